"""Moves the keys of sessions from one number of buckets to another, while nobody uses them.

Every step may be repeated: after a run that was killed, the next one does all of them again, and finds what is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from syncapp.domain.session_layout import SCALARS
from syncapp.store.client import TRANSLATION, call_all
from syncapp.store.connection_pool import even_if_full, packed, pool_of
from syncapp.store.key_scan import KeyScan
from syncapp.store.keys import Keyspace, old_set
from syncapp.store.moved_sets import BATCH, MovedSets, MoveFailed, batches
from syncapp.store.replication import Replication

_COPIED = 100  # keys per round trip that pass through this process
_STATUS = SCALARS.index("status")
_LIVE = frozenset({"pending", "running", "paused"})
_DELETE_EMPTY_STREAM = """#!lua flags=allow-oom
if redis.call('TYPE', KEYS[1]).ok == 'stream' and redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[1])
end"""
_MISSING_RIGHTS = """
local missing = {}
for _, command in ipairs({
  {'DUMP', KEYS[1]}, {'PEXPIRETIME', KEYS[1]}, {'RENAME', KEYS[1], KEYS[2]}, {'RESTORE', KEYS[2], '0', ''},
  {'TYPE', KEYS[1]}, {'ZUNIONSTORE', KEYS[2], '2', KEYS[1], KEYS[2]},
}) do
  if not redis.acl_check_cmd(unpack(command)) then missing[#missing + 1] = command[1] end
end
return missing"""


@dataclass(slots=True)
class Inventory:
    """What a scan found.

    kinds: keys of sessions, by kind. to_move: those that must move. strays: those in no bucket of theirs, which no
    process finds; they stay where they are. live: live sessions; unscheduled: those without a deadline.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    to_move: int = 0
    strays: list[str] = field(default_factory=list)
    live: int = 0
    unscheduled: int = 0


class BucketMove:
    """Moves all keys from `old` to `new` buckets; step() is called before each batch, and may raise.

    All methods raise `StoreUnavailable`. client: does not decode replies.
    """

    def __init__(
        self, client: redis.Redis, old: int, new: int, replication: Replication, step: Callable[[], None]
    ) -> None:
        self._client = client
        self._pool = pool_of(client)
        self._old = Keyspace(old)
        self._new = Keyspace(new)
        self._all = Keyspace(max(old, new))
        self._replication = replication
        self._step = step
        self.sets = MovedSets(client, self._old, self._new, step)
        self.buckets = max(old, new)
        """How many buckets there are with the old and the new ones."""
        self.moved = 0
        """How many keys have got their new names."""

    def missing_rights(self) -> list[str]:
        """Return the commands that only a move needs, and that this user may not use."""
        key = self._all.deadlines(0)
        (missing,) = self._call([packed("EVAL", _MISSING_RIGHTS, 2, key, old_set(key))])
        return list(missing)

    def inventory(self) -> Inventory:
        """Count the keys of sessions; changes nothing."""
        found = Inventory()
        for keys in self._scan():
            self._sort(keys, found)
        return found

    def move_keys(self) -> None:
        """Give each key of a session its new name."""
        size, move = (_COPIED, self._copy) if self._pool.is_cluster else (BATCH, self._rename)
        for keys in self._scan():
            for batch in batches(self._sort(keys, Inventory()), size):
                self._step()
                move(batch)
                self.moved += len(batch)

    def verify(self) -> Inventory:
        """Check that every session is where it belongs, and in the new sets. Raises `MoveFailed`."""
        found = Inventory()
        for keys in self._scan():
            self._sort(keys, found)
            live = self._live(keys)
            found.live += len(live)
            found.unscheduled += self.sets.unscheduled(live)
        if found.to_move:
            raise MoveFailed(f"{found.to_move} keys of sessions are still in their old buckets")
        self.sets.check()
        if found.unscheduled:
            self.sets.have_rebuilt()
        return found

    def finish(self) -> None:
        """Put the new sets in their places, and delete the remaining keys of buckets that no longer exist."""
        self.sets.put_in_place()
        gone = range(self._new.buckets, self._all.buckets)
        self._call(packed("EVAL", _DELETE_EMPTY_STREAM, 1, self._all.outbox(each)) for each in gone)
        self._call(packed("DEL", key) for each in gone for key in (self._all.nudge(each), self._all.lease(each)))
        self._confirm()

    def _sort(self, keys: Sequence[str], found: Inventory) -> list[tuple[str, str]]:
        """Count keys; return the old and the new name of those that must move."""
        pairs = []
        for key in keys:
            target = self._new.relocated(key)
            if target is None:
                continue
            found.kinds[key.split(":", 3)[2]] += 1
            if key == target:
                continue
            if key == self._old.relocated(key):
                pairs.append((key, target))
            else:
                found.strays.append(key)
        found.to_move += len(pairs)
        return pairs

    def _live(self, keys: Sequence[str]) -> list[str]:
        """Return the live sessions among keys."""
        names = [name for each in keys if (name := self._new.session_of(each))]
        if not names:
            return []
        with TRANSLATION:
            replies = self._pool.call(*(packed("HGET", self._new.session(each), "scalars") for each in names))
        # A key of another type is none of a session.
        pairs = [(name, reply) for name, reply in zip(names, replies, strict=True) if isinstance(reply, str)]
        return [name for name, scalars in pairs if scalars.split(" ", _STATUS + 1)[_STATUS] in _LIVE]

    def _rename(self, pairs: Sequence[tuple[str, str]]) -> None:
        with TRANSLATION:
            for reply in self._pool.call(*(packed("RENAME", *pair) for pair in pairs)):
                if isinstance(reply, Exception) and "no such key" not in str(reply):  # it has expired
                    raise reply

    def _copy(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Move keys between the nodes of a cluster. The old ones are deleted when the new ones are safe."""
        with TRANSLATION, self._client.pipeline(transaction=False) as pipe:
            for old, _ in pairs:
                pipe.dump(old)
                pipe.pexpiretime(old)
            replies: list[Any] = pipe.execute()
        commands = []
        for (_, new), text, until_ms in zip(pairs, replies[::2], replies[1::2], strict=True):
            if text is not None:
                until = ("ABSTTL",) if until_ms > 0 else ()
                commands.append(even_if_full("RESTORE", new, max(0, until_ms), text, "REPLACE", *until))
        self._step()  # another run may have taken over while this one stood still
        self._call(commands)
        self._step()
        self._confirm()
        self._call(packed("DEL", old) for old, _ in pairs)

    def _confirm(self) -> None:
        """Wait until the required replicas have all writes."""
        with TRANSLATION:
            self._replication.confirm_all([self._all.outbox(each) for each in range(self._all.buckets)])

    def _scan(self) -> Iterator[list[str]]:
        scan = KeyScan(self._pool, self._all.bucket_keys(), BATCH)
        while not scan.is_complete:
            self._step()
            yield scan.next()

    def _call(self, commands: Iterable[bytes]) -> list[Any]:
        return call_all(self._pool, list(commands))
