"""A session whose log forks, and forged rows that `flask audit verify` must find."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import orjson
import redis as redis_py
from flask import Flask

from syncapp import cli
from syncapp.domain.results import Claim
from syncapp.history.recovery import Outcome
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import Log, rows
from tests.support.lost_sessions import ID, dumped, roll_back
from tests.support.store import SetClock, chess, settings
from tests.support.types import Db

FORK = re.compile(
    rf"session {ID}, epoch (\d+), version (\d+): fork: versions? (\d+)(?: to (\d+))? committed twice, (.+) follows"
    r" the other branch, explained by (\d+) dead letters?"
)


class Play:
    """A session on a store that is set back now and then, and the log that gets all of it."""

    def __init__(self, store: SessionStore, clock: SetClock, log: Log, client: redis_py.Redis, db: Db) -> None:
        self.store, self.clock, self.log, self.client, self.db = store, clock, log, client, db
        self.app = Flask("test")
        urls: Any = client.connection_pool.connection_kwargs
        redis_url = f"redis://{urls['host']}:{urls['port']}/0"
        cli.register(self.app, settings(redis_url, database_url=log.url))
        self.number = itertools.count()

    def begin(self, commits: int = 3) -> None:
        """Leave a session at this version."""
        self.store.create(chess(3_600_000, session_id=ID, increment_ms=1000))
        self.store.start(ID)
        self.commit(commits - 2)

    def commit(self, count: int) -> None:
        """Make commits that no other past has, and store them."""
        for _ in range(count):
            self.clock.pass_ms(1 + next(self.number))
            self.store.switch(ID, Claim(request_id=f"request-{next(self.number)}"))
        self.log.store()

    def file(self) -> bytes:
        return dumped(self.client)

    def back(self, file: bytes) -> None:
        roll_back(self.client, file)

    def fork(self, lost: int, won: int) -> None:
        """Make this many commits, lose them from the store, and make that many others."""
        file = self.file()
        self.commit(lost)
        self.back(file)
        self.commit(won)

    def recover(self, rule: str = "run") -> Outcome:
        found = self.log.recoveries[rule].recover(ID)
        self.log.store()
        return found

    def run(self, *words: str) -> tuple[int, list[str]]:
        done = self.app.test_cli_runner().invoke(args=words)
        return done.exit_code, done.output.splitlines()

    def verify(self) -> tuple[int, list[str]]:
        return self.run("audit", "verify")

    def forks(self) -> list[tuple[int, int, int, str]]:
        """Of each fork that is told, and of nothing else: its first and last version, letters, and what goes on."""
        code, printed = self.verify()
        assert code == 0, printed
        found = [FORK.fullmatch(line) for line in printed if line.startswith("session")]
        assert all(found), printed
        told = [f"Forks that dead letters explain: {len(found)}."] if found else []
        assert printed[len(found) + 1 :] == ["All is as committed.", *told]
        return [
            (int(one[3]), int(one[4] or one[3]), int(one[6]), re.sub(r"\d{13,}", "E", one[5])) for one in found if one
        ]


def keys(db: Db) -> list[tuple[int, int]]:
    return rows(db, "SELECT epoch, version FROM sync_events WHERE session_id = %s ORDER BY 1, 2", ID)


def forge(db: Db, epoch: int, version: int) -> Callable[[], Any]:
    """Change a row and everything in it that is made from its message; return what puts it back."""
    where = "session_id = %s AND epoch = %s AND version = %s"
    key = (ID, epoch, version)
    columns = "message, content_hash, request_id"
    select = f"SELECT message::text, content_hash, request_id FROM sync_events WHERE {where}"
    ((text, content_hash, request_id),) = rows(db, select, *key)
    message = orjson.loads(text) | {"request_id": "forged"}
    raw = orjson.dumps(message)
    update = f"UPDATE sync_events SET ({columns}) = (%s, %s, %s) WHERE {where} RETURNING 1"
    assert rows(db, update, raw.decode(), sha256(raw).digest(), "forged", *key)
    return lambda: rows(db, update, text, content_hash, request_id, *key)


def expect_every_forgery_is_found(play: Play, unwatched: tuple[int, int] | None = None) -> None:
    """Forge and take out row by row. unwatched: the end of a past that nothing goes on from."""
    for epoch, version in keys(play.db):
        if (epoch, version) == unwatched:
            continue
        back = forge(play.db, epoch, version)
        code, printed = play.verify()
        faults = [line for line in printed if line.startswith("session") and not FORK.fullmatch(line)]
        assert code == 1, (epoch, version, printed)
        assert len(faults) == 1
        back()
        where = f"session_id = '{ID}' AND epoch = {epoch} AND version = {version}"
        rows(play.db, f"CREATE TEMPORARY TABLE kept AS SELECT * FROM sync_events WHERE {where}; SELECT 1")
        rows(play.db, f"DELETE FROM sync_events WHERE {where} RETURNING 1")
        code, printed = play.verify()
        assert code == 1, ("taken out", epoch, version, printed)
        rows(play.db, "INSERT INTO sync_events TABLE kept RETURNING 1")
        rows(play.db, "DROP TABLE kept; SELECT 1")
    assert play.verify()[0] == 0
