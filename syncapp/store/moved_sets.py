"""Moves the deadlines and lists of buckets to another number of buckets (`bucket_move`).

The old sets get names of their own, and a text takes the place of the deadlines: commits are refused if these are no
sorted set, before their first write. The new sets are made under names of their own, and take their places at the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import redis

from syncapp.domain.session_ids import tenant_of
from syncapp.errors import StoreUnavailable
from syncapp.store.client import call_all
from syncapp.store.connection_pool import even_if_full, packed, pool_of
from syncapp.store.key_scan import KeyScan
from syncapp.store.keys import COMPLETE, SENTINEL, Keyspace, final_set, new_set, new_sets, old_set, old_sets

BATCH = 1000
"""Keys or members per round trip."""
_BUCKETS_AT_ONCE = 16
_NOTICE = "flask sessions rebucket is moving the sessions; run it again if it was stopped"
_Item = TypeVar("_Item")

# KEYS 1 set  2 its name out of the way; ARGV 1 text that takes its place, or ''. If an earlier run was stopped, another
# process may have made a set anew; then both become one.
_PUT_AWAY = """#!lua flags=allow-oom
if redis.call('TYPE', KEYS[1]).ok == 'zset' then
  if redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('ZUNIONSTORE', KEYS[2], 2, KEYS[1], KEYS[2], 'AGGREGATE', 'MIN')
    redis.call('DEL', KEYS[1])
  else
    redis.call('RENAME', KEYS[1], KEYS[2])
  end
end
if ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1]) end"""
# KEYS 1 set  2 the one that takes its place. If there is none, only the text is removed.
_PUT_IN_PLACE = """#!lua flags=allow-oom
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('RENAME', KEYS[2], KEYS[1])
elseif redis.call('TYPE', KEYS[1]).ok == 'string' then
  redis.call('DEL', KEYS[1])
end"""


class MoveFailed(StoreUnavailable):
    """The sessions are not where they should be, and clients stay refused."""


class MovedSets:
    """The sets of `old` and `new` buckets; step() is called before each batch, and may raise.

    All methods raise `StoreUnavailable`, and may be repeated.
    """

    def __init__(self, client: redis.Redis, old: Keyspace, new: Keyspace, step: Callable[[], None]) -> None:
        self._pool = pool_of(client)
        self._old = old
        self._new = new
        self._all = Keyspace(max(old.buckets, new.buckets))
        self._step = step

    def block(self) -> None:
        """Put the deadlines away, and refuse every commit, in the old buckets and in the new ones."""
        self._put_away([self._all.deadlines(each) for each in range(self._all.buckets)], _NOTICE)

    def put_lists_away(self) -> None:
        """Put the lists of sessions away."""
        self._put_away([self._all.listed(each) for each in range(self._all.buckets)], "")
        for keys in self._scan(self._all.tenant_lists()):
            self._put_away(keys, "")

    def fill(self) -> None:
        """Make the new sets from the old ones, with the same scores.

        They are complete if the old ones were; otherwise they lack the sentinel, and a sweeper completes them.
        """
        for key in self._sets(old_sets()):
            for members in self._members(key):
                targets: dict[str, list[str]] = {}
                for name, score in members:
                    targets.setdefault(self._target(key, name), []).extend((score, name))
                self._call(even_if_full("ZADD", target, *pairs) for target, pairs in targets.items())
        for old, new in ((self._old.deadlines, self._new.deadlines), (self._old.listed, self._new.listed)):
            marks = self._call(packed("ZSCORE", old_set(old(each)), SENTINEL) for each in range(self._old.buckets))
            if all(score is not None and float(score) == float(COMPLETE) for score in marks):
                keys = [new_set(new(each)) for each in range(self._new.buckets)]
                self._call(even_if_full("ZADD", key, COMPLETE, SENTINEL) for key in keys)

    def unscheduled(self, session_ids: Sequence[str]) -> int:
        """Return how many of the sessions are not among the new deadlines."""
        return self._missing((new_set(self._new.deadlines(self._new.bucket(each))), each) for each in session_ids)

    def have_rebuilt(self) -> None:
        """Have a sweeper look for sessions that are not among the new deadlines."""
        keys = [new_set(self._new.deadlines(each)) for each in range(self._new.buckets)]
        self._call(packed("ZREM", key, SENTINEL) for key in keys)

    def check(self) -> None:
        """Raise `MoveFailed` unless the new sets have all sessions of the old ones."""
        for key in self._sets(old_sets()):
            for members in self._members(key):
                if missing := self._missing((self._target(key, name), name) for name, _ in members):
                    raise MoveFailed(f"{missing} sessions of {key} are in no new set")

    def put_in_place(self) -> None:
        """Put the new sets in their places, and delete the old ones."""
        deadlines = [self._all.deadlines(each) for each in range(self._all.buckets)]
        lists = [final_set(key) for key in self._sets(new_sets()) if _is_list(key)]
        # The deadlines come last, because with them a bucket accepts commits.
        for batch in batches([*lists, *deadlines], _BUCKETS_AT_ONCE):
            self._step()
            self._call(packed("EVAL", _PUT_IN_PLACE, 2, key, new_set(key)) for key in batch)
        for keys in batches(self._sets(old_sets()), _BUCKETS_AT_ONCE):
            self._step()
            self._call(packed("DEL", key) for key in keys)

    def _missing(self, pairs: Iterable[tuple[str, str]]) -> int:
        """Return how many sessions are not in their set, of pairs of a set's key and a session."""
        by_key: dict[str, list[str]] = {}
        for key, name in pairs:
            by_key.setdefault(key, []).append(name)
        scores = self._call(packed("ZMSCORE", key, *names) for key, names in by_key.items())
        return sum(each.count(None) for each in scores)

    def _put_away(self, keys: Sequence[str], notice: str) -> None:
        for batch in batches(keys, _BUCKETS_AT_ONCE):
            self._step()
            self._call(packed("EVAL", _PUT_AWAY, 2, key, old_set(key), notice) for key in batch)

    def _sets(self, pattern: str) -> list[str]:
        return sorted({key for keys in self._scan(pattern) for key in keys})

    def _target(self, key: str, session_id: str) -> str:
        """Return the new set for a session of an old one."""
        bucket = self._new.bucket(session_id)
        listed = self._new.listed(bucket, tenant_of(session_id))
        return new_set(listed if _is_list(key) else self._new.deadlines(bucket))

    def _members(self, key: str) -> Iterator[list[tuple[str, str]]]:
        """Yield the sessions of a set, with their scores, in batches."""
        for first in itertools.count(0, BATCH):
            self._step()
            (flat,) = self._call([packed("ZRANGE", key, first, first + BATCH - 1, "WITHSCORES")])
            yield [(name, score) for name, score in zip(flat[::2], flat[1::2], strict=True) if name != SENTINEL]
            if len(flat) < 2 * BATCH:
                return

    def _scan(self, pattern: str) -> Iterator[list[str]]:
        scan = KeyScan(self._pool, pattern, BATCH)
        while not scan.is_complete:
            self._step()
            yield scan.next()

    def _call(self, commands: Iterable[bytes]) -> list[Any]:
        return call_all(self._pool, list(commands))


def batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield the items in lists of at most `size`."""
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def _is_list(key: str) -> bool:
    """Return whether a set that is out of the way is a list, and not deadlines."""
    return key.split(":")[3] == "listed"
