"""Keeps the lists of sessions whole: adds what they lack, and removes what has expired.

Each bucket's list has the same sentinel as its deadlines (`deadline_rebuild`). Where it is missing, in a store of an
earlier release or after the key was deleted, the holder of the sweeper's lease walks all sessions by SCAN and lists
them. During a rolling deploy or a rollback, processes of an earlier release create sessions that they do not list, so
every `LOOK_S` the deadlines, which have every live session, are compared with the lists. Where such a process holds the
lease, as its token shows, all processes of this release do so in its place. A finished session's hash expires by
itself; once a minute all members of the lists are looked at, and the expiry script, which looks again, removes those
that are gone. Each step is short, so that the sweep is not kept waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import redis
import structlog

from syncapp.domain.session_layout import created_ms_of
from syncapp.store.client import TRANSLATION
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.deadline_rebuild import LOOK_S, WALKED
from syncapp.store.keys import COMPLETE, SENTINEL, Keyspace
from syncapp.store.sessions import SessionStore

log = structlog.get_logger(__name__)

KEEPS_LISTS = "lists-"
"""What the token of the sweeper's lease begins with if its holder keeps the lists: an earlier release does not."""
CLEAN_S = 60.0
"""Time between two looks at all members."""
_SLICE_S = 0.005  # how long a step may keep the next pass of the sweep waiting
_AT_ONCE = 500  # members or keys that one round trip looks at


class ListUpkeep:
    """Works in small steps, in the sweeper's thread and with its client."""

    def __init__(
        self, client: redis.Redis, store: SessionStore, keys: Keyspace, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pool = pool_of(client)
        self._store = store
        self._keys = keys
        self._clock = clock
        self._work: Iterator[None] | None = None
        self._look_at_s = self._clean_at_s = 0.0
        self._held = False

    def step(self, *, held: bool) -> None:
        """Go on for a moment with what is to be done, if anything is; never raises.

        held: whether this process has the sweeper's lease. Without it nothing is done unless a process of an earlier
        release has it. Work is given up when it changes hands: the next holder begins with a look at the sentinels.
        """
        if held != self._held:
            self._held, self._work, self._look_at_s = held, None, 0.0
        try:
            if self._work is None:
                self._work = self._due()
            end_s = self._clock() + _SLICE_S
            while self._work:
                next(self._work)
                if self._clock() >= end_s:
                    break
        except StopIteration:
            self._work = None
        except Exception as error:  # noqa: BLE001 the sweep must go on even if the upkeep fails
            self._work, self._look_at_s = None, self._clock() + LOOK_S
            log.warning("listing_not_kept", error=f"{type(error).__name__}: {error}", again_in_s=LOOK_S)

    def _due(self) -> Iterator[None] | None:
        now_s = self._clock()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_S
            return self._look() if self._held or self._is_neglected() else None
        if self._held and now_s >= self._clean_at_s:
            self._clean_at_s = now_s + CLEAN_S
            return self._clean()
        return None

    def _is_neglected(self) -> bool:
        """Tell whether the lease's holder does not keep the lists."""
        (token,) = self._call([packed("GET", self._keys.sweeper())])
        return token is not None and not token.startswith(KEEPS_LISTS)

    def _look(self) -> Iterator[None]:
        yield from self._fill()
        yield from self._compare()

    def _fill(self) -> Iterator[None]:
        """Add all sessions to the lists that are not known to be whole."""
        keys = list(map(self._keys.listed, range(self._keys.buckets)))
        scores = self._call([packed("ZSCORE", key, SENTINEL) for key in keys])
        lost = {bucket for bucket, score in enumerate(scores) if score is None or float(score) != float(COMPLETE)}
        if not lost:
            return
        # During a walk the sentinel has a finite score: a list that is deleted meanwhile loses it, and is walked again.
        self._call([packed("ZADD", keys[bucket], "NX", WALKED, SENTINEL) for bucket in lost])
        yield
        begun_s, added, cursor = self._clock(), 0, 0
        while True:
            ((text, found),) = self._call([packed("SCAN", cursor, "MATCH", self._keys.sessions(), "COUNT", _AT_ONCE)])
            cursor = int(text)
            names = filter(None, map(self._keys.session_of, found))
            added += self._add([each for each in names if self._keys.bucket(each) in lost])
            if not cursor:
                break
            yield
        whole = self._call([packed("ZADD", keys[bucket], "XX", "CH", COMPLETE, SENTINEL) for bucket in lost])
        seconds = round(self._clock() - begun_s, 3)
        log.info("listing_filled", buckets=sum(whole), sessions=added, seconds=seconds)

    def _compare(self) -> Iterator[None]:
        """List the live sessions that have a deadline and are not listed."""
        added = 0
        for bucket in range(self._keys.buckets):
            listed = self._keys.listed(bucket)
            for names in self._members(self._keys.deadlines(bucket)):
                (scores,) = self._call([packed("ZMSCORE", listed, *names)])
                missing = [name for name, score in zip(names, scores, strict=True) if score is None]
                added += self._add(missing)
                yield
        if added:
            log.info("listing_completed", sessions=added)

    def _add(self, session_ids: Sequence[str]) -> int:
        """List those of the sessions that are there and not listed; return how many."""
        looks = [packed("HGET", self._keys.session(each), "scalars") for each in session_ids]
        adding: dict[str, bytes] = {}
        for name, scalars in zip(session_ids, self._call(looks), strict=True):
            if not scalars:
                continue
            try:
                created_ms = created_ms_of(scalars)
            except (IndexError, ValueError):  # it must not keep others from being listed
                log.warning("session_not_listed", session_id=name, error="its scalars can't be read")
                continue
            adding[name] = packed("ZADD", self._keys.listed(self._keys.bucket(name)), "NX", created_ms, name)
        # Looked at once more after it was added: one that was deleted in between must not stay. Commits do the rest:
        # a delete from now on removes it, and a new session of the same id sets its own score.
        again = [packed("HGET", self._keys.session(each), "scalars") for each in adding]
        replies = self._call([*adding.values(), *again])
        added, there = replies[: len(adding)], replies[len(adding) :]
        if gone := [name for name, scalars in zip(adding, there, strict=True) if not scalars]:
            self._store.expire(gone)
        return sum(int(each) for each, scalars in zip(added, there, strict=True) if scalars)

    def _clean(self) -> Iterator[None]:
        """Remove the members whose session is gone."""
        for key in map(self._keys.listed, range(self._keys.buckets)):
            for names in self._members(key):
                there = self._call([packed("EXISTS", self._keys.session(each)) for each in names])
                gone = [name for name, is_there in zip(names, there, strict=True) if not is_there]
                if gone:
                    self._store.expire(gone)
                yield

    def _members(self, key: str) -> Iterator[list[str]]:
        """Yield the sessions in a sorted set, some at a time."""
        cursor = 0
        while True:
            ((text, flat),) = self._call([packed("ZSCAN", key, cursor, "COUNT", _AT_ONCE)])
            cursor = int(text)
            if names := [each for each in flat[::2] if each != SENTINEL]:
                yield names
            if not cursor:
                return

    def _call(self, commands: Sequence[bytes]) -> list[Any]:
        """Return the replies to commands, all in one round trip. Raises the first error among them."""
        if not commands:
            return []
        with TRANSLATION:
            replies = self._pool.call(b"".join(commands), len(commands))
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies
