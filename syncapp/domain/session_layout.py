"""How the scripts lay out a session in a reply and in a snapshot: texts, by place."""

from __future__ import annotations

from collections.abc import Sequence

# The order of lua/_session.lua's SCALARS; a contract test compares the two.
SCALARS = (
    "epoch",
    "version",
    "status",
    "sync_mode",
    "participant_count",
    "group_count",
    "increment_ms",
    "idle_timeout_ms",
    "turn",
    "cycle_count",
    "time_used_ms",
    "time_remaining_ms",
    "cycle_started_ms",
    "session_started_ms",
    "session_completed_ms",
    "created_ms",
    "updated_ms",
    "metadata_version",
    "on_timeout",
    "idle_ms",
    "look_ms",
    "time_per_cycle_ms",
    "max_cycles",
    "warned",
    "crossed",
    "idling",
    "unattended",
)
PLACED = 25
"""How many scalars have fixed places in a snapshot; the same as in lua/_commit.lua."""
_PADDING = " " * len(SCALARS)
# The places after the scalars and the metadata in a state reply.
DEFINITION = len(SCALARS) + 1
TAGS = DEFINITION + 1
BLOCKS = TAGS + 1
RECORD_WIDTH = 34
_COMPLETION = "completion="


def values_of(reply: Sequence[str]) -> list[str]:
    """Return a state with separate scalars; a reply begins with one text of all of them."""
    # Padded, because an earlier release may have known fewer.
    return [*(reply[0] + _PADDING).split(" ")[: len(SCALARS)], *reply[1:]]


def values_of_snapshot(snapshot: Sequence[str]) -> list[str]:
    """Return the state in a message's `snapshot`, with separate scalars.

    Scalars after the first PLACED are written as `name=text` in the place of a reply's tags. Earlier releases ignore
    that place, and write no names there.
    """
    named = dict(word.split("=", 1) for word in snapshot[PLACED + 2].split(" ") if "=" in word)
    return [*snapshot[:PLACED], *(named.get(name, "") for name in SCALARS[PLACED:]), *snapshot[PLACED:]]


def with_completion(tags: str, completion: str) -> str:
    """Return a state's tags with what it keeps of its end, as JSON, in the last word."""
    return f"{tags} {_COMPLETION}{completion}" if completion else tags


def parted(tags: str) -> tuple[str, str]:
    """Return a state's tags, or a snapshot's named scalars, and what it keeps of its end, as JSON; '' for nothing."""
    tags, _, completion = tags.partition(_COMPLETION)
    return tags.rstrip(), completion


def created_ms_of(scalars: str) -> int:
    """Return the instant (ms) at which the session with these scalars was created."""
    return int(scalars.split(" ")[SCALARS.index("created_ms")])


def order_of(scalars: str) -> tuple[int, int]:
    """Return the (epoch, version) that the text of a session's scalars begins with."""
    epoch, version, _ = scalars.split(" ", 2)
    return int(epoch), int(version)
