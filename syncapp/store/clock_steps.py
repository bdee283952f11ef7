"""Watches for steps of the store's clock, which every session runs by.

Each process compares the store's clock with its own monotonic one, once a second. When they differ, the process
cannot know which of them was set: it records the step, and a while later counts the processes that saw the same. If
most processes agree, the store's clock was set, and one of them alerts. If only one saw it, its own clock is in doubt.
Slewing, as time daemons do it, is too slow to be noticed and is harmless.
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
LEAST_STEP_MS = 200.0
"""A difference below this between two looks is slewing, drift or a slow network."""
VOTE_S = 4.0
"""How long after a step a process counts those that saw it, too: each has compared clocks by then."""
_MOST_KEPT = 1_000
_SHOW_EVERY = 5  # turns
_WORRY_S = 3_600.0
_SAME_MS = 15_000


def boot_clock_s() -> float:
    """Return the seconds since the machine started, including sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True, slots=True)
class Step:
    """What one process saw: the store's clock said after_ms when, going evenly, it should have said before_ms."""

    process: str
    before_ms: int
    after_ms: int

    @property
    def amount_ms(self) -> int:
        """How far the clock was set: positive is forward."""
        return self.after_ms - self.before_ms

    def is_same(self, other: Step) -> bool:
        """Tell whether two processes saw the same step."""
        near = abs(self.after_ms - other.after_ms) <= _SAME_MS
        return near and abs(self.amount_ms - other.amount_ms) <= max(1_000, abs(self.amount_ms) // 10)


@dataclass(frozen=True, slots=True)
class _ClockSample:
    offset_ms: float
    error_ms: float


class ClockStepWatch:
    """Watches for one process; alert(kind, **context) reports steps.

    Each turn also reports that the process is alive, and notices a server that has become a replica.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keyspace,
        presence: ProcessRegistry,
        *,
        server: Server,
        alert: Callable[..., None],
        clock: Callable[[], float] = boot_clock_s,
    ) -> None:
        self._client = client
        self._pool = pool_of(client)
        self._server = server
        self._keys = keys
        self._presence = presence
        self._alert = alert
        self._clock = clock
        self._turns = 0
        self._last: _ClockSample | None = None
        self._seen: tuple[float, Step] | None = None
        self._worry: tuple[float, str] = (float("-inf"), "")

    def turn(self) -> float:
        """Compare once; return how long to wait (s) before the next time. Raises what redis raises."""
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
        self._presence.say(now_ms)
        self._turns += 1
        if self._turns % _SHOW_EVERY == 0:
            self._presence.show()  # for those who look at /metrics only
        if self._seen and self._clock() >= self._seen[0]:
            self._vote(self._seen[1], now_ms)
        return TURN_S

    def worries(self) -> list[str]:
        """Return what `/ready` says about a step in the last hour."""
        until_s, text = self._worry
        return [text] if self._clock() < until_s else []

    def _compare(self, sent_s: float, received_s: float, now_ms: float) -> None:
        middle_ms = (sent_s + received_s) * 500
        sample = _ClockSample(now_ms - middle_ms, (received_s - sent_s) * 500 + 1)
        last, self._last = self._last, sample
        if last is None:
            return
        parted_ms = sample.offset_ms - last.offset_ms
        if abs(parted_ms) < LEAST_STEP_MS + sample.error_ms + last.error_ms:
            return
        step = Step(self._presence.name, round(last.offset_ms + middle_ms), round(now_ms))
        self._seen = (self._clock() + VOTE_S, step)
        log.warning("clocks_parted", by_ms=step.amount_ms, store_said=iso(step.after_ms))
        self._write("ZADD", self._keys.clock_steps(), step.after_ms, orjson.dumps(asdict(step)))
        self._write("ZREMRANGEBYRANK", self._keys.clock_steps(), 0, -_MOST_KEPT - 1)

    def _write(self, command: str, key: str, *words: str | bytes | int) -> None:
        """Write something optional: a refusal is only logged."""
        (reply,) = self._pool.call(even_if_full(command, key, *words), 1)
        if isinstance(reply, Exception):
            log.debug("clock_watch_not_written", error=str(reply))

    def _vote(self, step: Step, now_ms: float) -> None:
        """Decide, some seconds after a step, whose clock was set."""
        self._seen = None
        others = [each for each in recorded_steps(self._client, self._keys) if each.is_same(step)]
        agreeing = {each.process for each in others} | {self._presence.name}
        there = len(self._presence.others(now_ms)) or 1
        confirmed = len(agreeing) > 1 and 2 * len(agreeing) > there
        metrics.CLOCK_STEPS.labels("store" if confirmed else "own").inc()
        told = f"{abs(step.amount_ms) / 1000:.3f} s {'forward' if step.amount_ms > 0 else 'back'}"
        if not confirmed:
            self._tell(
                f"the store's clock moved {told} against the clock of this process; other processes did not confirm it"
            )
            log.error("own_clock_in_doubt", by_ms=step.amount_ms, seen_by=len(agreeing), processes=there)
            return
        self._tell(f"the store's clock was set {told}, at {iso(step.after_ms)}; see docs/troubleshooting.md")
        if self._presence.name == min(agreeing):
            self._alert(
                "clock_step",
                by_ms=step.amount_ms,
                before=iso(step.before_ms),
                after=iso(step.after_ms),
                seen_by=len(agreeing),
                processes=there,
            )

    def _tell(self, text: str) -> None:
        self._worry = (self._clock() + _WORRY_S, text)


def recorded_steps(client: redis.Redis, keys: Keyspace) -> list[Step]:
    """Return the steps that processes saw, oldest first, once per process that saw it. Raises what redis raises."""
    found: Any = client.zrange(keys.clock_steps(), 0, -1)
    return [Step(**orjson.loads(each)) for each in found]


def agreed_steps(steps: Iterable[Step]) -> list[Step]:
    """Return one of each step that more than one process has seen."""
    groups: list[list[Step]] = []
    for step in steps:
        for group in groups:
            if group[0].is_same(step):
                group.append(step)
                break
        else:
            groups.append([step])
    return [group[0] for group in groups if len({each.process for each in group}) > 1]
