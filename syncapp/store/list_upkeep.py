"""Keeps the lists of sessions complete: adds missing sessions, and removes those that have expired.

Each bucket has a list for each tenant. That of tenant `default` has the same sentinel as the bucket's deadlines
(`deadline_rebuild`), which counts for all of them. If it is missing, because the store is of an earlier release or the
key was deleted, the sweeper that holds the first bucket's lease scans all sessions and lists them. During a rolling
deploy or a rollback, processes of an earlier release create sessions without listing them. So the lists are compared
with the deadlines, which have all live sessions, every `CHECK_S`. The hash of a finished session expires by itself:
once a minute, all members of the lists are checked, and the expiry script removes those without a session. Each step
takes about 5 ms, so that the sweep is not delayed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import redis
import structlog

from syncapp.domain.session_ids import tenant_of
from syncapp.domain.session_layout import created_ms_of
from syncapp.store.client import call_all
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.deadline_rebuild import CHECK_S, SCANNING
from syncapp.store.key_scan import KeyScan
from syncapp.store.keys import COMPLETE, SENTINEL, Keyspace
from syncapp.store.live_sessions import LiveSessions
from syncapp.store.sessions import SessionStore

log = structlog.get_logger(__name__)

CLEAN_S = 60.0
"""Time between two checks of all members."""
CLEAN_TENANTS_S = 600.0
"""Time between two checks of the members of other tenants' lists, which takes a scan of all keys."""
_SLICE_S = 0.005  # maximum delay of the next pass of the sweep
_BATCH = 500  # members or keys per round trip


class ListUpkeep:
    """Works in short steps, in the sweeper's thread and with its client."""

    def __init__(
        self, client: redis.Redis, store: SessionStore, keys: Keyspace, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pool = pool_of(client)
        self._store = store
        self._keys = keys
        self._live = LiveSessions(client, keys)
        self._clock = clock
        self._work: Iterator[None] | None = None
        self._next_check_s = self._next_clean_s = self._next_tenants_s = 0.0

    def step(self, *, held: bool) -> None:
        """Do one time slice of the work, if there is any; never raises.

        held: whether this process has the lease of the first bucket. Without it, nothing is done and unfinished work is
        abandoned: the next holder starts with the sentinels.
        """
        if not held:
            self._work, self._next_check_s = None, 0.0
            return
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
            self._work, self._next_check_s = None, self._clock() + CHECK_S
            log.warning("listing_not_kept", error=f"{type(error).__name__}: {error}", again_in_s=CHECK_S)

    def _due(self) -> Iterator[None] | None:
        now_s = self._clock()
        if now_s >= self._next_check_s:
            self._next_check_s = now_s + CHECK_S
            return self._check()
        if now_s >= self._next_clean_s:
            self._next_clean_s = now_s + CLEAN_S
            return self._clean()
        if now_s >= self._next_tenants_s:
            self._next_tenants_s = now_s + CLEAN_TENANTS_S
            return self._clean_tenants()
        return None

    def _check(self) -> Iterator[None]:
        yield from self._fill()
        yield from self._compare()

    def _fill(self) -> Iterator[None]:
        """Add all sessions to the lists that may be incomplete."""
        keys = list(map(self._keys.listed, range(self._keys.buckets)))
        scores = self._call([packed("ZSCORE", key, SENTINEL) for key in keys])
        incomplete = {bucket for bucket, score in enumerate(scores) if score is None or float(score) != float(COMPLETE)}
        if not incomplete:
            return
        # During a scan, the sentinel has a finite score. A list that is deleted meanwhile loses it, and is scanned
        # again.
        self._call([packed("ZADD", keys[bucket], "NX", SCANNING, SENTINEL) for bucket in incomplete])
        yield
        started_s, added, scan = self._clock(), 0, KeyScan(self._pool, self._keys.sessions(), _BATCH)
        while not scan.is_complete:
            names = filter(None, map(self._keys.session_of, scan.next()))
            added += self._add([each for each in names if self._keys.bucket(each) in incomplete])
            yield
        marked = self._call([packed("ZADD", keys[bucket], "XX", "CH", COMPLETE, SENTINEL) for bucket in incomplete])
        seconds = round(self._clock() - started_s, 3)
        log.info("listing_filled", buckets=sum(marked), sessions=added, seconds=seconds)

    def _compare(self) -> Iterator[None]:
        """List the sessions that have a deadline but are not listed; and correct how many each tenant has."""
        added = 0
        self._live.begin()
        for bucket in range(self._keys.buckets):
            for names in self._members(self._keys.deadlines(bucket)):
                self._live.add(names)
                by_tenant: dict[str, list[str]] = {}
                for name in names:
                    by_tenant.setdefault(tenant_of(name), []).append(name)
                reads = [
                    packed("ZMSCORE", self._keys.listed(bucket, tenant), *each) for tenant, each in by_tenant.items()
                ]
                pairs = zip(chain(*by_tenant.values()), chain(*self._call(reads)), strict=True)
                added += self._add([name for name, score in pairs if score is None])
                yield
        self._live.correct()
        if added:
            log.info("listing_completed", sessions=added)

    def _add(self, session_ids: Sequence[str]) -> int:
        """List the sessions that exist and are not listed; return their number."""
        reads = [packed("HGET", self._keys.session(each), "scalars") for each in session_ids]
        adding: dict[str, bytes] = {}
        for name, scalars in zip(session_ids, self._call(reads), strict=True):
            if not scalars:
                continue
            try:
                created_ms = created_ms_of(scalars)
            except (IndexError, ValueError):  # the other sessions must still be listed
                log.warning("session_not_listed", session_id=name, error="its scalars can't be read")
                continue
            listed = self._keys.listed(self._keys.bucket(name), tenant_of(name))
            adding[name] = packed("ZADD", listed, "NX", created_ms, name)
        # Read again after the addition, because a session that was deleted in between must not stay listed. Then
        # commits keep the list: a delete removes the session, and a new session with the same id sets its own score.
        again = [packed("HGET", self._keys.session(each), "scalars") for each in adding]
        replies = self._call([*adding.values(), *again])
        added, existing = replies[: len(adding)], replies[len(adding) :]
        if gone := [name for name, scalars in zip(adding, existing, strict=True) if not scalars]:
            self._store.expire(gone)
        return sum(int(each) for each, scalars in zip(added, existing, strict=True) if scalars)

    def _clean(self) -> Iterator[None]:
        """Remove the members whose session no longer exists."""
        yield from self._clean_lists(list(map(self._keys.listed, range(self._keys.buckets))))

    def _clean_tenants(self) -> Iterator[None]:
        """Do the same for the lists of all other tenants, which a scan finds."""
        scan = KeyScan(self._pool, self._keys.tenant_lists(), _BATCH)
        while not scan.is_complete:
            yield from self._clean_lists(scan.next())
            yield

    def _clean_lists(self, lists: Sequence[str]) -> Iterator[None]:
        for key in lists:
            for names in self._members(key):
                existing = self._call([packed("EXISTS", self._keys.session(each)) for each in names])
                gone = [name for name, exists in zip(names, existing, strict=True) if not exists]
                if gone:
                    self._store.expire(gone)
                yield

    def _members(self, key: str) -> Iterator[list[str]]:
        """Yield the sessions of a sorted set in batches."""
        cursor = 0
        while True:
            ((text, flat),) = self._call([packed("ZSCAN", key, cursor, "COUNT", _BATCH)])
            cursor = int(text)
            if names := [each for each in flat[::2] if each != SENTINEL]:
                yield names
            if not cursor:
                return

    def _call(self, commands: Sequence[bytes]) -> list[Any]:
        return call_all(self._pool, commands)
