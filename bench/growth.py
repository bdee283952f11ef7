"""Growth: what a server with 1,000, 10,000 and 100,000 live sessions costs."""

from __future__ import annotations

import random
import time
import uuid
from itertools import cycle
from typing import Any

from bench.figures import Figure, Part, Rounds, figure, interleave, timed, value
from bench.rig import BARE, Rig
from syncapp.store.client import connect
from syncapp.store.sweeper import Sweeper

SIZES = (1000, 10_000, 100_000)
ROUNDS = 8
CALLS = 200
_BATCH = 2000


def run(rig: Rig) -> Part:
    """Measure latency, memory and a pass of the sweeper at each number of sessions."""
    figures: list[Figure] = []
    ids: list[str] = []
    by_size: dict[int, list[float]] = {}
    client = connect(rig.settings)
    sweeper = Sweeper(client, rig.new_store())
    empty = int(rig.redis.info("memory")["used_memory"])
    for size in SIZES:
        ids += clones(rig, size - len(ids))
        rig.forget_outbox()
        used = int(rig.redis.info("memory")["used_memory"])
        some = random.Random(size).sample(ids, 500)
        for each in some:
            rig.store.switch(each)  # as in a session that is played
        rest(rig)
        found = measured(rig, some, sweeper)
        bare = ("EVALSHA, redis-py", found["bare"])
        label = f"{size:,} sessions"
        figures += [figure(f"{name}, {label}", "µs", found[name], bare) for name in ("get", "switch", "sweep")]
        figures.append(value(f"memory, {label}", "bytes/session", (used - empty) / size))
        by_size[size] = sorted(own[len(own) // 2] for own in map(sorted, found["switch"]))
    least, most = by_size[SIZES[0]], by_size[SIZES[-1]]
    sweeps = {each.name: each.median for each in figures if each.name.startswith("sweep")}
    first, last = f"{SIZES[0]:,}", f"{SIZES[-1]:,}"
    # Medians of the least disturbed rounds: the sizes can't be measured in turns.
    figures.append(value(f"switch, {last} to {first} sessions", "×", most[ROUNDS // 4] / least[ROUNDS // 4]))
    figures.append(
        value(
            f"sweep, {last} to {first} sessions",
            "×",
            sweeps[f"sweep, {last} sessions"] / sweeps[f"sweep, {first} sessions"],
        )
    )
    client.close()
    rig.flush()
    return Part(
        "Growth",
        figures,
        [
            "Live sessions of two participants; the calls go to 500 of them, chosen at random.",
            "A sweep is a pass that finds nothing due. Memory is all memory of the server, divided by the sessions.",
        ],
    )


def measured(rig: Rig, ids: list[str], sweeper: Sweeper) -> dict[str, Rounds]:
    """Return the round trips of calls to these sessions, and passes of a sweeper, in turns with the floor."""
    sha = rig.redis.script_load(BARE)
    pick = cycle(ids).__next__
    return interleave(
        {
            "bare": lambda: timed(lambda: rig.redis.evalsha(sha, 1, "k", "x"), CALLS),
            "get": lambda: timed(lambda: rig.store.get(pick()), CALLS),
            "switch": lambda: timed(lambda: rig.store.switch(pick()), CALLS),
            "sweep": lambda: timed(sweeper.run_once, 20),
        },
        ROUNDS,
    )


def rest(rig: Rig) -> None:
    """Wait until the server has rewritten its file: so many new keys at once trigger that, and it uses a core."""
    names = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
    while any(int(rig.redis.info("persistence")[name]) for name in names):
        time.sleep(0.2)


def clones(rig: Rig, count: int) -> list[str]:
    """Make many running sessions by copying one, which is much faster than creating each."""
    original = rig.session()
    key = rig.keys.session(original)
    dumped: Any = rig.redis.dump(key)
    deadline: Any = rig.redis.zscore(rig.keys.deadlines(rig.keys.bucket(original)), original)
    made = [original]
    while len(made) < count:
        with rig.redis.pipeline(transaction=False) as pipe:
            for _ in range(min(_BATCH, count - len(made))):
                each = str(uuid.uuid4())
                pipe.restore(rig.keys.session(each), 0, dumped)
                pipe.zadd(rig.keys.deadlines(rig.keys.bucket(each)), {each: deadline})
                made.append(each)
            pipe.execute()
    return made
