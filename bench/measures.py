"""What `against` measures: each measurement prepares a build, and yields a function that is called once a round.

The function returns numbers by name and unit. All of them treat every build alike.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import hiredis

from bench.build import Build, workers
from bench.figures import quantile
from bench.load import Generator, request
from bench.rig import cpu_s
from bench.scale import Found, Scale, Turn
from bench.socket_measures import connect, fanout, played, sockets

_HEADERS = "Accept: application/json\r\nUser-Agent: bench\r\n"
_EXPIRED = re.compile(rb'"type":"participant_expired","at_ms":(\d+)')
_LONGEST_S = 120.0


@contextmanager
def rest(build: Build, scale: Scale) -> Iterator[Turn]:
    """REST reads and switches on one process."""
    sessions = build.sessions(scale.sessions)
    requests = {
        "GET": [request("GET", f"/v1/sessions/{each}", _HEADERS) for each in sessions],
        "switch": [request("POST", f"/v1/sessions/{each}/switch", _HEADERS) for each in sessions],
    }
    with build.web() as web, Generator() as generator:
        for each in requests.values():  # processes warm, sessions known
            generator.load(web.port, each, 16, scale.seconds)

        def turn() -> Found:
            found: Found = {}
            for connections in scale.connections:
                for name, bodies in requests.items():
                    before = cpu_s(workers(web))
                    load = generator.load(web.port, bodies, connections, scale.seconds)
                    if load.failures:
                        raise RuntimeError(f"{load.failures} answers were no success")
                    label, waits = f"{name}, {connections} connections", sorted(load.latencies_us)
                    found[label, "requests/s"] = load.rate
                    found[f"{label}, p99", "µs"] = quantile(waits, 0.99)
                    found[label, "CPU µs"] = (cpu_s(workers(web)) - before) / len(waits) * 1e6
            build.forget_outbox()
            return found

        yield turn


@contextmanager
def scripts(build: Build, scale: Scale) -> Iterator[Turn]:
    """The server's own time for a switch, and the rate at which it runs them when it never waits."""
    (small,), (large,) = build.sessions(1), build.sessions(1, scale.participants)
    many = build.sessions(50)
    build.ask("switch", [small, large, *many], 2, False)
    sent = b"".join(build.recorded(many))
    commands = _commands(sent)
    raw = build.raw()

    def block(session: str, with_key: bool) -> float:
        before_us, before = build.script_time()
        build.ask("switch", [session], scale.calls, with_key)
        after_us, after = build.script_time()
        return (after_us - before_us) / (after - before)

    def saturated() -> float:
        before, times = build.busy_s(), max(1, scale.calls // 3)
        for _ in range(times):
            raw.send(sent)
            for _ in range(commands):
                raw.next()
        return times * len(many) / (build.busy_s() - before)

    def turn() -> Found:
        found = {
            ("server time of a switch, 2 participants", "µs"): block(small, False),
            (f"server time of a switch with a key, {scale.participants:,}", "µs"): block(large, True),
            ("switches, saturated", "1/CPU s"): saturated(),
        }
        build.forget_outbox()
        return found

    try:
        yield turn
    finally:
        raw.close()


@contextmanager
def drain(build: Build, scale: Scale) -> Iterator[Turn]:
    """How fast a worker that has been started before moves waiting events into PostgreSQL.

    It is suspended while the events are made. All of them count, and all CPU time from there to the last one: the
    buckets that are drained at once would otherwise count more, the fewer buckets a build has.
    """

    def turn() -> Found:
        build.flush()
        build.sessions(1)
        with build.worker() as worker:
            _emptied(build)
            tree = worker.tree()
            for process in tree:
                process.suspend()
            try:
                build.ask("switch", build.sessions(max(1, scale.events // 100)), 98, False)
                build.ask("drains")
                total = _length(build, build.outboxes())
            finally:
                began_s, spent = time.monotonic(), cpu_s(tree)
                for process in reversed(tree):
                    process.resume()
            _emptied(build)
            return {
                ("drain", "events/s"): total / (time.monotonic() - began_s),
                ("drain", "CPU µs"): (cpu_s(tree) - spent) / total * 1e6,
            }

    yield turn


@contextmanager
def expiry(build: Build, scale: Scale) -> Iterator[Turn]:
    """How late expiries are committed by one web process: in ms begun, because a ratio needs more than 0."""

    def late(name: str, after_ms: list[int]) -> Found:
        left_ms, ahead_ms = -1.0, scale.ahead_ms
        while left_ms < 0:  # a busy machine may need longer to start the sessions
            build.flush()
            left_ms = build.ask("due", after_ms, ahead_ms)
            ahead_ms *= 2
        end_s = time.monotonic() + left_ms / 1000 + _LONGEST_S
        time.sleep((left_ms + max(after_ms)) / 1000)
        while len(found := _expired(build)) < len(after_ms):
            _wait(end_s)
        return {
            (f"lateness, {name}, p99", "begun ms"): quantile(found, 0.99) + 1,
            (f"lateness, {name}, worst", "begun ms"): found[-1] + 1,
        }

    def turn() -> Found:
        spread = [scale.spread_ms * place // scale.expiries for place in range(scale.expiries)]
        return late("spread", spread) | late(f"{scale.expiries:,} at once", [0] * scale.expiries)

    with build.web():
        yield turn


@contextmanager
def stored(build: Build, scale: Scale) -> Iterator[Turn]:
    """Memory of a session in the store: its hash, and its share of the sets."""

    def turn() -> Found:
        build.flush()
        ids = build.sessions(scale.sessions)
        build.ask("switch", ids, 1, False)
        kinds = ("hash", "zset")
        keys = [key for kind in kinds for key in build.redis.scan_iter(count=1000, _type=kind)]
        used = sum(build.redis.memory_usage(key, samples=0) or 0 for key in keys)
        return {("memory of a session", "bytes"): used / len(ids)}

    yield turn


MEASURES: dict[str, tuple[Callable[[Build, Scale], AbstractContextManager[Turn]], int]] = {
    "scripts": (scripts, 20),
    "memory": (stored, 3),
    "rest": (rest, 5),
    "sockets": (sockets, 7),
    "fanout": (fanout, 15),
    "drain": (drain, 5),
    "expiry": (expiry, 3),
    "connect": (connect, 3),
    "evening": (played, 3),
}
"""By name: the measurement, and its usual number of rounds."""


def _commands(sent: bytes) -> int:
    """Return how many commands these bytes contain: a command looks like a reply that is an array."""
    reader = hiredis.Reader()
    reader.feed(sent)
    return sum(1 for _ in iter(reader.gets, False))


def _length(build: Build, keys: list[bytes]) -> int:
    pipe = build.redis.pipeline(transaction=False)
    for key in keys:
        pipe.xlen(key)
    return sum(pipe.execute())


def _emptied(build: Build) -> None:
    """Wait until all events are in PostgreSQL."""
    keys, end_s = build.outboxes(), time.monotonic() + _LONGEST_S
    while _length(build, keys):
        _wait(end_s)


def _expired(build: Build) -> list[float]:
    """Return how many ms after its deadline each participant expired, in order."""
    found: list[float] = []
    for key in build.outboxes():
        entries: Any = build.redis.xrange(key)
        for stream_id, fields in entries:
            at_ms = int(stream_id.partition(b"-")[0])
            found.extend(at_ms - float(each[1]) for each in _EXPIRED.finditer(b" ".join(fields.values())))
    return sorted(found)


def _wait(end_s: float) -> None:
    if time.monotonic() > end_s:
        raise TimeoutError("this did not end in time")
    time.sleep(0.01)
