"""A session whose log forks, and forged rows that `flask audit verify` must find."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import orjson
import redis as redis_py

from syncapp.domain.results import Claim
from syncapp.history.recovery import Outcome
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import AuditServices, query_rows
from tests.support.flask_commands import run_flask
from tests.support.lost_sessions import ID, dump_hash, restore_hash
from tests.support.store import ManualClock, chess_request, make_settings
from tests.support.types import Db

FORK = re.compile(
    rf"session {ID}, epoch (\d+), version (\d+): fork: versions? (\d+)(?: to (\d+))? committed twice, (.+) follows"
    r" the other branch, explained by (\d+) dead letters?"
)


class ForkingSession:
    """A session on a store that is restored to older states, and the log that receives all its commits."""

    def __init__(
        self, store: SessionStore, clock: ManualClock, log: AuditServices, client: redis_py.Redis, db: Db
    ) -> None:
        self.store, self.clock, self.log, self.client, self.db = store, clock, log, client, db
        urls: Any = client.connection_pool.connection_kwargs
        redis_url = f"redis://{urls['host']}:{urls['port']}/0"
        self.settings = make_settings(redis_url, database_url=log.url)
        self.number = itertools.count()

    def begin(self, commits: int = 3) -> None:
        """Create a session with this many commits."""
        self.store.create(chess_request(3_600_000, session_id=ID, increment_ms=1000))
        self.store.start(ID)
        self.commit(commits - 2)

    def commit(self, count: int) -> None:
        """Make commits that differ from every other branch, and store them."""
        for _ in range(count):
            self.clock.advance_ms(1 + next(self.number))
            self.store.switch(ID, Claim(request_id=f"request-{next(self.number)}"))
        self.log.store()

    def file(self) -> bytes:
        return dump_hash(self.client)

    def back(self, file: bytes) -> None:
        restore_hash(self.client, file)

    def fork(self, lost: int, won: int) -> None:
        """Make `lost` commits, restore the store from before them, and make `won` other commits."""
        file = self.file()
        self.commit(lost)
        self.back(file)
        self.commit(won)

    def recover(self, rule: str = "run") -> Outcome:
        found = self.log.recoveries[rule].recover(ID)
        self.log.store()
        return found

    def run(self, *words: str) -> tuple[int, list[str]]:
        done = run_flask(self.settings, *words)
        return done.exit_code, done.output.splitlines()

    def verify(self) -> tuple[int, list[str]]:
        return self.run("audit", "verify")

    def forks(self) -> list[tuple[int, int, int, str]]:
        """Return first and last version, number of dead letters, and surviving branch of each reported fork."""
        code, printed = self.verify()
        assert code == 0, printed
        found = [FORK.fullmatch(line) for line in printed if line.startswith("session")]
        assert all(found), printed
        told = [f"Forks that dead letters explain: {len(found)}."] if found else []
        assert printed[len(found) + 1 :] == ["Everything is as committed.", *told]
        return [
            (int(one[3]), int(one[4] or one[3]), int(one[6]), re.sub(r"\d{13,}", "E", one[5])) for one in found if one
        ]


def event_keys(db: Db) -> list[tuple[int, int]]:
    return query_rows(db, "SELECT epoch, version FROM sync_events WHERE session_id = %s ORDER BY 1, 2", ID)


def forge_row(db: Db, epoch: int, version: int) -> Callable[[], Any]:
    """Change a row, with all columns that depend on its message; return a function that undoes it."""
    where = "session_id = %s AND epoch = %s AND version = %s"
    key = (ID, epoch, version)
    columns = "message, content_hash, request_id"
    select = f"SELECT message::text, content_hash, request_id FROM sync_events WHERE {where}"
    ((text, content_hash, request_id),) = query_rows(db, select, *key)
    message = orjson.loads(text) | {"request_id": "forged"}
    raw = orjson.dumps(message)
    update = f"UPDATE sync_events SET ({columns}) = (%s, %s, %s) WHERE {where} RETURNING 1"
    assert query_rows(db, update, raw.decode(), sha256(raw).digest(), "forged", *key)
    return lambda: query_rows(db, update, text, content_hash, request_id, *key)


def expect_every_forgery_is_found(play: ForkingSession, unwatched: tuple[int, int] | None = None) -> None:
    """Forge and delete each row in turn. unwatched: the last row of a branch, which no other row depends on."""
    for epoch, version in event_keys(play.db):
        if (epoch, version) == unwatched:
            continue
        back = forge_row(play.db, epoch, version)
        code, printed = play.verify()
        faults = [line for line in printed if line.startswith("session") and not FORK.fullmatch(line)]
        assert code == 1, (epoch, version, printed)
        assert len(faults) == 1
        back()
        where = f"session_id = '{ID}' AND epoch = {epoch} AND version = {version}"
        query_rows(play.db, f"CREATE TEMPORARY TABLE kept AS SELECT * FROM sync_events WHERE {where}; SELECT 1")
        query_rows(play.db, f"DELETE FROM sync_events WHERE {where} RETURNING 1")
        code, printed = play.verify()
        assert code == 1, ("taken out", epoch, version, printed)
        query_rows(play.db, "INSERT INTO sync_events TABLE kept RETURNING 1")
        query_rows(play.db, "DROP TABLE kept; SELECT 1")
    assert play.verify()[0] == 0
