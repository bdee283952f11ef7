"""What scripts cost the server: its time for each, its rate when saturated, and memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

from bench.figures import Figure, Part, Rounds, figure, interleave, value
from bench.raw import Raw, packed
from bench.rig import BARE, Rig
from syncapp.domain.results import Claim
from syncapp.domain.schemas import CreateSession

SIZES = (2, 10, 100, 1000)
ROUNDS = 24
CALLS = 60
BATCH = 50
CONTROLS = {"stages and byo-yomi": "syncapp:1000 in 20h +1s; 30m then 5x30s", "byo-yomi": "sgf:0 5x30 byo-yomi"}
"""Time controls by name."""


def run(rig: Rig) -> Part:
    """Measure every script at each number of participants."""
    figures: list[Figure] = []
    by_size = {size: server_times(rig, size) for size in SIZES}
    for size, times in by_size.items():
        bare = ("bare script", times["bare"])
        if size == SIZES[0]:
            figures.append(figure("bare script", "µs", times["bare"]))
        figures += [
            figure(f"{name}, {size} participants", "µs", times[name], bare)
            for name in ("get", "switch", "switch, idempotency key", "pause and resume")
        ]
    least, most = SIZES[0], SIZES[-1]
    ratios = [many[0] / few[0] for few, many in zip(by_size[least]["switch"], by_size[most]["switch"], strict=True)]
    figures.append(figure(f"switch, {most} to {least} participants", "×", [[each] for each in ratios]))
    figures += time_controls(rig)
    figures += saturated(rig)
    figures += memory(rig)
    return Part(
        "Scripts",
        figures,
        [
            "Server time is `usec_per_call` of INFO commandstats, the mean of a block of calls: medians are of blocks.",
            "Memory of a session is that of its hash and its share of the deadlines and the list.",
            "Events stay in the outbox, and idempotency records in the store, for a limited time only.",
        ],
    )


class Calls:
    """Packed calls of scripts on one session, as the store makes them."""

    def __init__(self, rig: Rig, participants: int, session_id: str = "") -> None:
        self._rig = rig
        self.session_id = session_id or rig.session(participants)
        self.keys = rig.keys.commit(self.session_id)
        found = rig.store.get(self.session_id).found
        known = rig.store._runner._cache._sessions[self.session_id]
        self._known: tuple[int, str] = (found.epoch, known.tags)
        self._scripts = rig.store._runner._scripts
        self._scripts.functions.load(self.keys)
        self._number = 0

    def packed(self, name: str, *args: str, key: bool = False, limits: tuple[str, str] | None = None) -> bytes:
        """Return the bytes of a call; key: with a new idempotency key; limits: the argument, and its key."""
        keys, fingerprint = list(self.keys), ""
        if key:
            self._number += 1
            keys.append(self._rig.keys.idempotency(self.session_id, f"bench-{self._number}"))
            fingerprint = "f" * 64
        head = [self.session_id, "", "", fingerprint, "bench", *map(str, self._known), "3600000", "3600000", "1000"]
        head += [f'"session_id":"{self.session_id}"', "", "", "", limits[0] if limits else ""]
        keys += limits[1:] if limits else ()
        return self._scripts.packed(f"{name}_session", keys, [*head, *args])

    def learn(self, reply: list[Any]) -> None:
        """Remember what a reply contained and name it in later calls, as the store does."""
        tags = reply[2][3]
        if tags:
            self._known = (self._known[0], tags.decode())


def server_times(rig: Rig, participants: int) -> dict[str, Rounds]:
    """Return the server's own time for each script, in µs."""
    calls = Calls(rig, participants)
    sha = rig.redis.script_load(BARE)
    bare = packed("EVALSHA", sha, 1, "k", "x")
    raw = Raw(rig.settings.redis_url)

    def time_of(call: Callable[[], bytes]) -> Callable[[], list[float]]:
        return lambda: [server_time(rig, raw, call, calls.learn)]

    pause_or_resume = cycle(("pause", "resume")).__next__
    found = interleave(
        {
            "bare": lambda: [server_time(rig, raw, lambda: bare, lambda reply: None)],
            "get": time_of(lambda: calls.packed("get")),
            "switch": time_of(lambda: calls.packed("switch", "", "")),
            "pause and resume": time_of(lambda: calls.packed(pause_or_resume())),
        },
        ROUNDS,
    )
    # By itself: otherwise the next subject would pay for its garbage.
    found |= interleave({"switch, idempotency key": time_of(lambda: calls.packed("switch", "", "", key=True))}, ROUNDS)
    raw.close()
    rig.forget_outbox()
    return found


def time_controls(rig: Rig) -> list[Figure]:
    """Return what time controls cost: the server's time for a switch, and memory, beside a plain session."""
    ids = {"plain": rig.session()}
    for name, control in CONTROLS.items():
        people = [{"participant_id": each} for each in ("white", "black")]
        body = {"sync_mode": "per_participant", "participants": people, "time_control": control}
        ids[name] = rig.store.create(CreateSession.parse(body)).found.session_id
        rig.store.start(ids[name])
    for session_id in ids.values():
        rig.store.switch(session_id)
    sizes = {name: rig.memory(rig.keys.session(each)) for name, each in ids.items()}
    raw = Raw(rig.settings.redis_url)

    def time_of(calls: Calls) -> Callable[[], list[float]]:
        return lambda: [server_time(rig, raw, lambda: calls.packed("switch", "", ""), calls.learn)]

    found = interleave({name: time_of(Calls(rig, 2, each)) for name, each in ids.items()}, ROUNDS)
    raw.close()
    rig.forget_outbox()
    plain = ("switch, plain", found["plain"])
    figures = [figure("switch, plain", "µs", found["plain"])]
    figures += [figure(f"switch, {name}", "µs", found[name], plain) for name in CONTROLS]
    return figures + [value(f"hash of a session, {name}", "bytes", size) for name, size in sizes.items()]


def saturated(rig: Rig) -> list[Figure]:
    """Return how many scripts a second the server runs when it never waits for a client."""
    calls = [Calls(rig, 2) for _ in range(100)]
    bare = packed("EVALSHA", rig.redis.script_load(BARE), 1, "k", "x")
    raw = Raw(rig.settings.redis_url)
    batches = {
        "bare": bare * BATCH,
        "get": b"".join(each.packed("get") for each in calls[:BATCH]),
        "switch": b"".join(each.packed("switch", "", "") for each in calls[:BATCH]),
    }

    def rate(name: str) -> list[float]:
        before = _busy_s(rig)
        for _ in range(20):
            raw.send(batches[name])
            for _ in range(BATCH):
                raw.next()
        return [20 * BATCH / (_busy_s(rig) - before)]

    found = interleave({name: partial(rate, name) for name in batches}, ROUNDS)
    raw.close()
    rig.forget_outbox()
    floor = ("bare script, saturated", found["bare"])
    return [
        figure("bare script, saturated", "calls/CPU s", found["bare"]),
        figure("get, saturated", "calls/CPU s", found["get"], floor),
        figure("switch, saturated", "calls/CPU s", found["switch"], floor),
    ]


def memory(rig: Rig, count: int = 500) -> list[Figure]:
    """Return bytes a session, at each number of participants."""
    figures: list[Figure] = []
    for size in SIZES:
        rig.flush()
        many = count if size < 1000 else 50
        ids = [rig.session(size) for _ in range(many)]
        for each in ids:
            rig.store.switch(each)
        hashes = sum(rig.memory(rig.keys.session(each)) for each in ids)
        buckets = range(rig.settings.sync_buckets)
        deadlines = sum(rig.memory(rig.keys.deadlines(bucket)) for bucket in buckets)
        lists = sum(rig.memory(rig.keys.listed(bucket)) for bucket in buckets)
        entries = rig.redis.xinfo_stream(rig.keys.outbox(rig.keys.bucket(ids[0])))["length"]
        outbox = rig.memory(rig.keys.outbox(rig.keys.bucket(ids[0]))) / entries
        figures.append(value(f"memory of a session, {size} participants", "bytes", (hashes + deadlines + lists) / many))
        if size == SIZES[0]:
            figures.append(value("of it, deadlines", "bytes", deadlines / many))
            figures.append(value("of it, the list", "bytes", lists / many))
            figures.append(value("an event in the outbox, until drained", "bytes", outbox))
            rig.store.switch(ids[0], Claim(idempotency_key="bench"))
            record = rig.keys.idempotency(ids[0], "bench")
            figures.append(value("an idempotency record", "bytes", rig.memory(record)))
    rig.flush()
    return figures


def server_time(
    rig: Rig, raw: Raw, call: Callable[[], bytes], learn: Callable[[list[Any]], None], count: int = CALLS
) -> float:
    """Return the mean server time of a block of calls, in µs; `learn` receives each reply."""
    rig.redis.config_resetstat()
    for _ in range(count):
        learn(raw.call(call()))
    stats: dict[str, dict[str, float]] = rig.redis.info("commandstats")
    return float(stats.get("cmdstat_fcall", stats.get("cmdstat_evalsha", {}))["usec_per_call"])


def _busy_s(rig: Rig) -> float:
    """Return the CPU time that the server's main thread has used, in s."""
    cpu = rig.redis.info("cpu")
    return float(cpu["used_cpu_user_main_thread"]) + float(cpu["used_cpu_sys_main_thread"])
