"""The number of buckets that the store's sessions are spread over, and who may use them.

A process with another number would not find the sessions, and create others beside them. So the store has a record of
the number, and each process compares it with its own once a second. No command relies on an older comparison than
`VALID_S`: `flask sessions rebucket` changes the record first, and waits for longer than that before it moves a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis
import structlog

from syncapp.config import Settings, is_given
from syncapp.errors import StoreUnavailable
from syncapp.store.client import TRANSLATION, call_all, connect
from syncapp.store.clock_steps import boot_clock_s
from syncapp.store.connection_pool import even_if_full, packed, pool_of
from syncapp.store.keys import SENTINEL, Keyspace

log = structlog.get_logger(__name__)

VALID_S = 3.0
"""How long a comparison is relied on."""
MAX_BUCKETS = 1024
_OF_EARLIER_RELEASES = 16  # their default
_SAMPLE = 10  # members of each set by which the number of a store without a record is found


class WrongBuckets(StoreUnavailable):
    """This process must not use the sessions: the store has another number of buckets. Nothing was changed.

    reason: what is the matter with the store, for `/ready`.
    """

    def __init__(self, reason: str, word: str) -> None:
        super().__init__(f"the store {reason}; nothing was changed", {"retry_after_s": 5, "reason": word})
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BucketCount:
    """The record. target: the number that the sessions are being moved to; None if they are not being moved.

    is_finishing: all keys were moved, and only the sets of the buckets have to take their places.
    """

    buckets: int
    target: int | None = None
    is_finishing: bool = False

    def text(self) -> str:
        """Return the record as the store has it."""
        if self.target is None:
            return str(self.buckets)
        return f"{'finishing' if self.is_finishing else 'moving'} {self.buckets} {self.target}"

    @classmethod
    def parse(cls, text: str) -> BucketCount:
        """Return the record with this text. Raises `WrongBuckets` if it is none."""
        try:
            match text.split(" "):
                case [number]:
                    return cls(int(number))
                case [("moving" | "finishing") as phase, old, new]:
                    return cls(int(old), int(new), phase == "finishing")
        except ValueError:
            pass
        raise WrongBuckets("has no number in the key of its number of buckets (docs/keys.md)", "BUCKETS_UNKNOWN")


class BucketRecord:
    """Reads and writes the record. All methods raise `StoreUnavailable`.

    A cluster has copies of it. All are written before anything else happens, so it suffices to read some: those on
    masters that answer. If they differ, a run of `flask sessions rebucket` was stopped while it wrote them.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = pool_of(client)
        keys = Keyspace()
        self._names = keys.bucket_count_copies() if self._pool.is_cluster else [keys.bucket_count()]

    def read(self) -> BucketCount | None:
        """Return the record; None if there is none."""
        found, error = self._read(self._pool.awake(self._names))
        if not found:
            found, error = self._read(self._names)
        if error and not found:
            with TRANSLATION:
                raise error
        if len(found) > 1 and all(each.target is None for each in found):
            raise WrongBuckets("has copies of its number of buckets that differ (docs/keys.md)", "BUCKETS_UNKNOWN")
        return min(found, key=_progress) if found else None

    def _read(self, names: Sequence[str]) -> tuple[set[BucketCount], Exception | None]:
        """Return what copies say, and the first error among the replies."""
        replies = self._pool.call_each(*(packed("GET", name) for name in names))
        error = next((each for each in replies if isinstance(each, Exception)), None)
        return {BucketCount.parse(each) for each in replies if isinstance(each, str)}, error

    def read_or_write(self, configured: int) -> BucketCount:
        """Return the record. If there is none, write it: the number of the data, or the configured one without data."""
        if found := self.read():
            return found
        derived = BucketCount(self._derive(configured))
        call_all(self._pool, [even_if_full("SET", name, derived.text(), "NX") for name in self._names])
        return self.read() or derived

    def find(self, configured: int) -> BucketCount:
        """Return the same without writing it."""
        return self.read() or BucketCount(self._derive(configured))

    def write(self, count: BucketCount) -> None:
        """Replace the record."""
        call_all(self._pool, [even_if_full("SET", name, count.text()) for name in self._names])

    def _derive(self, configured: int) -> int:
        """Return the number of buckets of a store without a record, as earlier releases leave it."""
        keys, buckets = Keyspace(MAX_BUCKETS), range(MAX_BUCKETS)
        found = self._replies(
            command
            for each in buckets
            # Not an empty stream: a worker makes it, whatever the number of the data is.
            for command in (
                packed("EXISTS", keys.deadlines(each), keys.listed(each)),
                packed("XLEN", keys.outbox(each)),
            )
        )
        used = [each for each in buckets if any(isinstance(n, int) and n for n in found[2 * each : 2 * each + 2])]
        if not used:
            return configured
        sentinels = self._replies(packed("ZSCORE", keys.deadlines(each), SENTINEL) for each in used)
        if used == list(range(len(used))) and all(isinstance(each, str) for each in sentinels):
            return len(used)  # a sweeper has marked all buckets
        sets = [(each, kind(each)) for each in used for kind in (keys.deadlines, keys.listed)]
        members = self._replies(packed("ZRANGE", key, 0, _SAMPLE) for _, key in sets)
        pairs = [
            (bucket, name)
            for (bucket, _), names in zip(sets, members, strict=True)
            for name in (names if isinstance(names, list) else ())
            if name != SENTINEL
        ]
        for number in (configured, _OF_EARLIER_RELEASES):
            if used[-1] < number and all(Keyspace(number).bucket(name) == bucket for bucket, name in pairs):
                return number
        return max(_OF_EARLIER_RELEASES, used[-1] + 1)

    def _replies(self, commands: Iterable[bytes]) -> list[Any]:
        """Return replies, including errors about keys of another type."""
        with TRANSLATION:
            return self._pool.call(*commands)


def _progress(count: BucketCount) -> int:
    """Return how far a move has come: of copies that differ, the earliest stage counts, because it can be repeated.

    A number alone comes last, whether it is that before the move or after it: no session is used yet.
    """
    return 2 if count.target is None else int(count.is_finishing)


class BucketGuard:
    """Refuses the use of sessions while the record differs from this process's number of buckets.

    follows: this process took its number from the record, because `SYNC_BUCKETS` is not set. adopt(number): has a
    process that follows use another number at once, as a worker can. on_other: is called once when a process that
    follows finds another number, and cannot.
    """

    on_other: Callable[[], None] = staticmethod(lambda: None)

    def __init__(
        self,
        client: redis.Redis,
        buckets: int,
        *,
        follows: bool = False,
        adopt: Callable[[int], None] | None = None,
        clock: Callable[[], float] = boot_clock_s,
    ) -> None:
        self._record = BucketRecord(client)
        self._buckets = buckets
        self._follows = follows
        self._adopt = adopt
        self._clock = clock
        self._valid_until_s = float("-inf")
        self._refusal: tuple[str, str] | None = None

    @classmethod
    def of(cls, client: redis.Redis, settings: Settings, adopt: Callable[[int], None] | None = None) -> BucketGuard:
        """Return the guard of a process with these settings."""
        return cls(client, settings.sync_buckets, follows=not is_given("sync_buckets"), adopt=adopt)

    @property
    def is_moving(self) -> bool:
        """Whether the sessions were being moved at the last comparison."""
        return self._refusal is not None and self._refusal[1] == "MOVING"

    def require(self) -> None:
        """Raise `WrongBuckets` if this process must not use the sessions. Rarely takes a round trip."""
        if self._clock() >= self._valid_until_s:
            self.check()
        if self._refusal:
            raise WrongBuckets(*self._refusal)

    def require_now(self) -> None:
        """Do the same after a comparison."""
        self.check()
        self.require()

    def before(self, turn: Callable[[], float]) -> Callable[[], float]:
        """Return a loop's turn that compares first."""

        def both() -> float:
            self.check()
            return turn()

        return both

    def check(self) -> None:
        """Compare the record with this process's number. Raises `StoreUnavailable` if it can't be read."""
        started_s = self._clock()
        try:
            refusal = self._refusal_of(self._record.read_or_write(self._buckets))
        except WrongBuckets as error:
            refusal = error.reason, error.details["reason"]
        before, self._refusal = self._refusal, refusal
        self._valid_until_s = started_s + VALID_S
        if refusal and refusal != before:
            log.error("sessions_not_used", reason=refusal[0])
        elif before and not refusal:
            log.info("sessions_used_again")

    def _refusal_of(self, count: BucketCount) -> tuple[str, str] | None:
        if self._adopt and self._follows and self._buckets != (number := max(count.buckets, count.target or 0)):
            self._adopt(number)
            self._buckets = number
        if count.target is not None:
            way = f"from {count.buckets} to {count.target} buckets"
            return f"has its sessions moved {way} (flask sessions rebucket)", "MOVING"
        if count.buckets == self._buckets:
            return None
        what = f"keeps its sessions in {count.buckets} buckets, but "
        if self._follows:
            self.on_other()
            return f"{what}this process started with {self._buckets}: restart it", "OTHER_BUCKETS"
        advice = f"set SYNC_BUCKETS={count.buckets}, or run flask sessions rebucket"
        return f"{what}SYNC_BUCKETS is {self._buckets}: {advice}", "OTHER_BUCKETS"


def following(settings: Settings) -> Settings:
    """Return the settings with the number of buckets of the record, if `SYNC_BUCKETS` is not set.

    Without an answer of the store the number stays; a process whose number is not that of the record refuses commands.
    """
    if is_given("sync_buckets"):
        return settings
    client = connect(settings, max_connections=1)
    try:
        return replace(settings, sync_buckets=BucketRecord(client).read_or_write(settings.sync_buckets).buckets)
    except (redis.RedisError, StoreUnavailable):
        return settings
    finally:
        client.close()


def require_buckets(settings: Settings) -> None:
    """Raise `WrongBuckets` if a process with these settings must not use the sessions."""
    BucketGuard.of(connect(settings, max_connections=1), settings).require()
