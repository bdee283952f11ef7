"""What limits cost the server: a switch with and without them, and a refusal, in turns.

The buckets are the real ones, but gain a token in 1 µs, so that nothing is refused that should not be. A refusal is by
a bucket that holds no token. There are many short blocks, because the load of a machine changes.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.figures import Part, figure, interleave
from bench.raw import Raw
from bench.rig import Rig
from bench.scripts import Calls, server_time
from syncapp.domain.principal import Principal

ROUNDS = 400
CALLS = 40
FREE = "1 2000000 1 2000000"
SUBJECTS = {
    "switch": "",
    "switch, limited": FREE,
    "refusal for the session": "50000 49999 1 2000000",
    "refusal for the principal": "1 2000000 50000 49999",
    "switch, again": "",
}


def run(rig: Rig) -> Part:
    """Measure the server's time for each."""
    calls, raw = Calls(rig, 2), Raw(rig.settings.redis_url)
    bucket = rig.keys.limits(Principal(sub="bench"))

    def time_of(limits: str) -> Callable[[], list[float]]:
        call = calls.packed("switch", "", "", limits=(limits, bucket) if limits else None)

        def measure() -> list[float]:
            for _ in range(8):  # they pay for the garbage of the subject before
                raw.call(call)
            return [server_time(rig, raw, lambda: call, lambda reply: None, CALLS)]

        return measure

    found = interleave({name: time_of(limits) for name, limits in SUBJECTS.items()}, ROUNDS)
    raw.close()
    rig.forget_outbox()
    floor = ("switch", found["switch"])
    return Part(
        "Limits",
        [figure(name, "µs", found[name], None if name == "switch" else floor) for name in SUBJECTS],
        ["`switch, again` is the same call as `switch`: its ratio shows the noise."],
    )
