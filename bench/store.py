"""Store operations, compared with a bare EVALSHA through redis-py and over a raw socket."""

from __future__ import annotations

import multiprocessing
import time
import uuid
from multiprocessing.connection import Connection
from typing import Any

from bench.figures import Part, Rounds, figure, interleave, timed
from bench.raw import Raw, packed
from bench.rig import BARE, Rig, new_session
from syncapp.domain.results import Claim

ROUNDS = 16
CALLS = 150
PUBLISHED = 120
_PACE_S = 0.002

_context = multiprocessing.get_context("spawn")


def run(rig: Rig) -> Part:
    """Measure each operation's round trip, and the time from a commit to a subscriber."""
    sessions = [rig.session() for _ in range(1000)]  # not an empty server
    mine = sessions[0]
    store, client = rig.store, rig.redis
    sha = client.script_load(BARE)
    raw = Raw(rig.settings.redis_url)
    bare_call = packed("EVALSHA", sha, 1, "k", "x")
    new = new_session()
    rounds = interleave(
        {
            "hiredis": lambda: timed(lambda: raw.call(bare_call), CALLS),
            "bare": lambda: timed(lambda: client.evalsha(sha, 1, "k", "x"), CALLS),
            "get": lambda: timed(lambda: store.get(mine), CALLS),
            "create": lambda: timed(lambda: store.create(new), CALLS // 3),
            "switch": lambda: timed(lambda: store.switch(mine), CALLS),
            "keyed": lambda: timed(lambda: store.switch(mine, Claim(idempotency_key=uuid.uuid4().hex)), CALLS),
            "update": lambda: timed(lambda: store.update(mine, {"move": uuid.uuid4().hex}), CALLS // 3),
        },
        ROUNDS,
    )
    raw.close()
    bare = ("EVALSHA, redis-py", rounds["bare"])
    figures = [
        figure("EVALSHA, raw hiredis", "µs", rounds["hiredis"], bare),
        figure("EVALSHA, redis-py", "µs", rounds["bare"]),
        figure("get", "µs", rounds["get"], bare),
        figure("switch", "µs", rounds["switch"], bare),
        figure("switch, idempotency key", "µs", rounds["keyed"], bare),
        figure("create", "µs", rounds["create"], bare),
        figure("update", "µs", rounds["update"], bare),
    ]
    published, received = publish_to_receive(rig, mine)
    figures.append(figure("PUBLISH to receive, redis-py", "µs", published))
    figures.append(
        figure("switch to receive", "µs", received, ("PUBLISH to receive, redis-py", published)),
    )
    rig.forget_outbox()
    return Part(
        "Store operations",
        figures,
        ["1,000 live sessions, one caller, no other load. `update` is two round trips."],
    )


def publish_to_receive(rig: Rig, session_id: str) -> tuple[Rounds, Rounds]:
    """Return the times from the call of PUBLISH, and of a switch, to a subscriber in another process."""
    channel = rig.keys.channel(session_id)
    message = b"x" * 600
    published: Rounds = []
    switched: Rounds = []
    for _ in range(4):
        with Subscriber(rig.settings.redis_url, channel) as subscriber:
            published.append(subscriber.measure(lambda: rig.redis.publish(channel, message), PUBLISHED))
            switched.append(subscriber.measure(lambda: rig.store.switch(session_id), PUBLISHED))
    return published, switched


class Subscriber:
    """A process that records when messages arrive; a context manager."""

    def __init__(self, url: str, channel: str) -> None:
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_listen, args=(theirs, url, channel), daemon=True)

    def __enter__(self) -> Subscriber:
        self._process.start()
        self._pipe.recv()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe.close()
        self._process.join(5)
        self._process.kill()

    def measure(self, publish: Any, count: int) -> list[float]:
        """Publish a number of times, one at a time; return the times in µs."""
        sent: list[int] = []
        self._pipe.send(count)
        for _ in range(count):
            time.sleep(_PACE_S)
            sent.append(time.monotonic_ns())
            publish()
        received: list[int] = self._pipe.recv()
        return [(theirs - ours) / 1000 for ours, theirs in zip(sent, received, strict=True)]


def _listen(pipe: Connection, url: str, channel: str) -> None:
    raw = Raw(url)
    raw.call(packed("SUBSCRIBE", channel))
    pipe.send("subscribed")
    try:
        while True:
            count = pipe.recv()
            at: list[int] = []
            for _ in range(count):
                raw.next()
                at.append(time.monotonic_ns())
            pipe.send(at)
    except EOFError:
        raw.close()
