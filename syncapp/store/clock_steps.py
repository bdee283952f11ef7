"""Detects steps of the store's clock, on which all sessions depend. In a cluster, each master has its own clock.

Once a second, each process compares the store's clock with its own monotonic clock. If they diverge, the process cannot
tell which of them jumped. It records the step, and 4 s later counts the processes that recorded the same one. If more
than half of them did, the store's clock was set, and one process raises an alert. Otherwise the process's own clock is
in doubt. Slewing by a time daemon is too slow to be detected, and is harmless.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson
import redis
import structlog
from redis import exceptions

from syncapp import metrics
from syncapp.domain.instants import iso
from syncapp.store.connection_pool import ConnectionPool, even_if_full, packed, pool_of
from syncapp.store.failover import Server
from syncapp.store.keys import Keyspace
from syncapp.store.process_registry import ProcessRegistry

log = structlog.get_logger(__name__)

TURN_S = 1.0
MIN_STEP_MS = 200.0
"""A smaller difference between two comparisons is slewing, drift or a slow network."""
MAX_APART_MS = 50.0
"""The clocks of a cluster's masters may be this far apart without a warning."""
VOTE_S = 4.0
"""Time from a step to the vote on it; by then, all processes have compared clocks."""
_MAX_RECORDED = 1_000
_METRIC_TURNS = 5  # turns between updates of the metric of processes
_WARNING_S = 3_600.0
_SAME_STEP_MS = 15_000


def boot_clock_s() -> float:
    """Return the seconds since the machine started, including sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True, slots=True)
class Step:
    """A step that one process saw: the store's clock showed after_ms instead of the expected before_ms.

    node: which master's clock it is, in a cluster.
    """

    process: str
    before_ms: int
    after_ms: int
    node: str = ""

    @property
    def amount_ms(self) -> int:
        """The size of the step; positive is forward."""
        return self.after_ms - self.before_ms

    def is_same(self, other: Step) -> bool:
        """Return whether two processes saw the same step."""
        near = abs(self.after_ms - other.after_ms) <= _SAME_STEP_MS
        return (
            self.node == other.node
            and near
            and abs(self.amount_ms - other.amount_ms) <= max(1_000, abs(self.amount_ms) // 10)
        )


@dataclass(frozen=True, slots=True)
class _ClockSample:
    """A server's clock: what it showed when this process's own clock showed middle_ms, give or take error_ms."""

    now_ms: float
    middle_ms: float
    error_ms: float

    @property
    def offset_ms(self) -> float:
        return self.now_ms - self.middle_ms


class ClockStepWatch:
    """Detects steps on behalf of one process; alert(kind, **context) reports them.

    Each turn also reports to the store that the process is alive, and detects a server that has become a replica.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keyspace,
        registry: ProcessRegistry,
        *,
        server: Server,
        alert: Callable[..., None],
        clock: Callable[[], float] = boot_clock_s,
    ) -> None:
        self._client = client
        self._pool = pool_of(client)
        self._server = server
        self._keys = keys
        self._registry = registry
        self._alert = alert
        self._clock = clock
        self._turns = 0
        self._last: dict[str, _ClockSample] = {}
        self._pending: dict[str, tuple[float, Step]] = {}
        self._apart_ms = 0.0
        self._warning: tuple[float, str] = (float("-inf"), "")

    def turn(self) -> float:
        """Compare the clocks once; return the time (s) until the next comparison. Raises redis-py's errors."""
        samples = self._samples()
        self._apart_ms = _apart_ms(samples)
        if not samples:
            return TURN_S
        for node, sample in samples.items():
            self._compare(node, sample)
        self._last = {node: self._last[node] for node in samples}
        now_ms = next(iter(samples.values())).now_ms
        self._registry.report(now_ms)
        self._turns += 1
        if self._turns % _METRIC_TURNS == 0:
            self._registry.update_metric()  # sets the metric, for deployments that do not query /ready
        for node, (due_s, step) in list(self._pending.items()):
            if self._clock() >= due_s:
                del self._pending[node]
                self._vote(step, now_ms)
        return TURN_S

    def worries(self) -> list[str]:
        """Return the warnings for `/ready`: of a step in the last hour, and of masters whose clocks differ."""
        until_s, text = self._warning
        stepped = [text] if self._clock() < until_s else []
        return stepped + ([f"the masters' clocks are {self._apart_ms:.0f} ms apart"] if self._apart_ms else [])

    def _samples(self) -> dict[str, _ClockSample]:
        """Read the clock of each server that answers and is no replica. Raises an error if none answers."""
        samples: dict[str, _ClockSample] = {}
        failure: Exception | None = None
        for pool in self._pool.nodes():
            try:
                if not self._pool.is_silent(pool) and (sample := self._sample(pool)):
                    samples[pool.name] = sample
            except exceptions.RedisError as error:
                failure = error
        if failure and not samples:
            raise failure
        return samples

    def _sample(self, pool: ConnectionPool) -> _ClockSample | None:
        """Read a server's clock; None if the server is a replica, which is then left. Raises redis-py's errors."""
        sent_s = self._clock()
        now, role = pool.call(packed("TIME"), packed("ROLE"))
        received_s = self._clock()
        if isinstance(now, Exception):
            raise now
        if isinstance(role, list) and role[0] in ("slave", "replica"):
            self._server.leave(self._server.generation)
            return None
        now_ms = int(now[0]) * 1000 + int(now[1]) / 1000
        middle_ms = (sent_s + received_s) * 500
        return _ClockSample(now_ms, middle_ms, (received_s - sent_s) * 500 + 1)

    def _compare(self, node: str, sample: _ClockSample) -> None:
        last, self._last[node] = self._last.get(node), sample
        if last is None:
            return
        change_ms = sample.offset_ms - last.offset_ms
        if abs(change_ms) < MIN_STEP_MS + sample.error_ms + last.error_ms:
            return
        before_ms = round(last.offset_ms + sample.middle_ms)
        step = Step(self._registry.name, before_ms, round(sample.now_ms), node if self._pool.is_cluster else "")
        self._pending[node] = (self._clock() + VOTE_S, step)
        log.warning("clocks_parted", by_ms=step.amount_ms, store_said=iso(step.after_ms))
        record = {name: value for name, value in asdict(step).items() if value != ""}
        self._write("ZADD", self._keys.clock_steps(), step.after_ms, orjson.dumps(record))
        self._write("ZREMRANGEBYRANK", self._keys.clock_steps(), 0, -_MAX_RECORDED - 1)

    def _write(self, command: str, key: str, *args: str | bytes | int) -> None:
        """Write an optional record; an error is only logged."""
        (reply,) = self._pool.call(even_if_full(command, key, *args))
        if isinstance(reply, Exception):
            log.debug("clock_watch_not_written", error=str(reply))

    def _vote(self, step: Step, now_ms: float) -> None:
        """Decide, `VOTE_S` after a step, whether the store's clock was set."""
        same = [each for each in recorded_steps(self._client, self._keys) if each.is_same(step)]
        agreeing = {each.process for each in same} | {self._registry.name}
        alive = len(self._registry.live_processes(now_ms)) or 1
        confirmed = len(agreeing) > 1 and 2 * len(agreeing) > alive
        metrics.CLOCK_STEPS.labels("store" if confirmed else "own").inc()
        size = f"{abs(step.amount_ms) / 1000:.3f} s {'forward' if step.amount_ms > 0 else 'back'}"
        if not confirmed:
            self._warn(
                f"the store's clock moved {size} against the clock of this process; other processes did not confirm it"
            )
            log.error("own_clock_in_doubt", by_ms=step.amount_ms, seen_by=len(agreeing), processes=alive)
            return
        self._warn(f"the store's clock was set {size}, at {iso(step.after_ms)}; see docs/troubleshooting.md")
        if self._registry.name == min(agreeing):
            self._alert(
                "clock_step",
                by_ms=step.amount_ms,
                before=iso(step.before_ms),
                after=iso(step.after_ms),
                seen_by=len(agreeing),
                processes=alive,
            )

    def _warn(self, text: str) -> None:
        self._warning = (self._clock() + _WARNING_S, text)


def _apart_ms(samples: Mapping[str, _ClockSample]) -> float:
    """Return how far the masters' clocks are apart, 0 if that is within `MAX_APART_MS` and what was measured."""
    ordered = sorted(samples.values(), key=lambda sample: sample.offset_ms)
    if len(ordered) < 2:
        return 0.0
    first, last = ordered[0], ordered[-1]
    apart_ms = last.offset_ms - first.offset_ms - first.error_ms - last.error_ms
    return apart_ms if apart_ms > MAX_APART_MS else 0.0


def recorded_steps(client: redis.Redis, keys: Keyspace) -> list[Step]:
    """Return the recorded steps, oldest first, one for each process that saw a step. Raises redis-py's errors."""
    records: Any = client.zrange(keys.clock_steps(), 0, -1)
    return [Step(**orjson.loads(each)) for each in records]


def agreed_steps(steps: Iterable[Step]) -> list[Step]:
    """Return each step that more than one process saw, once."""
    groups: list[list[Step]] = []
    for step in steps:
        for group in groups:
            if group[0].is_same(step):
                group.append(step)
                break
        else:
            groups.append([step])
    return [group[0] for group in groups if len({each.process for each in group}) > 1]
