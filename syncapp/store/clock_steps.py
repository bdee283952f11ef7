"""Detects steps of the store's clock, on which all sessions depend.

Once a second, each process compares the store's clock with its own monotonic clock. If they diverge, the process cannot
tell which of them jumped. It records the step, and 4 s later counts the processes that recorded the same one. If more
than half of them did, the store's clock was set, and one process raises an alert. Otherwise the process's own clock is
in doubt. Slewing by a time daemon is too slow to be detected, and is harmless.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import orjson
import redis
import structlog

from syncapp import metrics
from syncapp.domain.instants import iso
from syncapp.store.connection_pool import even_if_full, packed, pool_of
from syncapp.store.failover import Server
from syncapp.store.keys import Keyspace
from syncapp.store.process_registry import ProcessRegistry

log = structlog.get_logger(__name__)

TURN_S = 1.0
MIN_STEP_MS = 200.0
"""A smaller difference between two comparisons is slewing, drift or a slow network."""
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
    """A step that one process saw: the store's clock showed after_ms instead of the expected before_ms."""

    process: str
    before_ms: int
    after_ms: int

    @property
    def amount_ms(self) -> int:
        """The size of the step; positive is forward."""
        return self.after_ms - self.before_ms

    def is_same(self, other: Step) -> bool:
        """Return whether two processes saw the same step."""
        near = abs(self.after_ms - other.after_ms) <= _SAME_STEP_MS
        return near and abs(self.amount_ms - other.amount_ms) <= max(1_000, abs(self.amount_ms) // 10)


@dataclass(frozen=True, slots=True)
class _ClockSample:
    offset_ms: float
    error_ms: float


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
        self._last: _ClockSample | None = None
        self._pending: tuple[float, Step] | None = None
        self._warning: tuple[float, str] = (float("-inf"), "")

    def turn(self) -> float:
        """Compare the clocks once; return the time (s) until the next comparison. Raises redis-py's errors."""
        sent_s = self._clock()
        now, role = self._pool.call(packed("TIME") + packed("ROLE"), 2)
        received_s = self._clock()
        if isinstance(now, Exception):
            raise now
        if isinstance(role, list) and role[0] in ("slave", "replica"):
            self._server.leave(self._server.generation)
            return TURN_S
        now_ms = int(now[0]) * 1000 + int(now[1]) / 1000
        self._compare(sent_s, received_s, now_ms)
        self._registry.report(now_ms)
        self._turns += 1
        if self._turns % _METRIC_TURNS == 0:
            self._registry.update_metric()  # sets the metric, for deployments that do not query /ready
        if self._pending and self._clock() >= self._pending[0]:
            self._vote(self._pending[1], now_ms)
        return TURN_S

    def worries(self) -> list[str]:
        """Return the warning of a step in the last hour, for `/ready`; empty if there was none."""
        until_s, text = self._warning
        return [text] if self._clock() < until_s else []

    def _compare(self, sent_s: float, received_s: float, now_ms: float) -> None:
        middle_ms = (sent_s + received_s) * 500
        sample = _ClockSample(now_ms - middle_ms, (received_s - sent_s) * 500 + 1)
        last, self._last = self._last, sample
        if last is None:
            return
        change_ms = sample.offset_ms - last.offset_ms
        if abs(change_ms) < MIN_STEP_MS + sample.error_ms + last.error_ms:
            return
        step = Step(self._registry.name, round(last.offset_ms + middle_ms), round(now_ms))
        self._pending = (self._clock() + VOTE_S, step)
        log.warning("clocks_parted", by_ms=step.amount_ms, store_said=iso(step.after_ms))
        self._write("ZADD", self._keys.clock_steps(), step.after_ms, orjson.dumps(asdict(step)))
        self._write("ZREMRANGEBYRANK", self._keys.clock_steps(), 0, -_MAX_RECORDED - 1)

    def _write(self, command: str, key: str, *args: str | bytes | int) -> None:
        """Write an optional record; an error is only logged."""
        (reply,) = self._pool.call(even_if_full(command, key, *args), 1)
        if isinstance(reply, Exception):
            log.debug("clock_watch_not_written", error=str(reply))

    def _vote(self, step: Step, now_ms: float) -> None:
        """Decide, `VOTE_S` after a step, whether the store's clock was set."""
        self._pending = None
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
