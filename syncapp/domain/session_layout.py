"""The layout of a session in a script's reply and in a snapshot: texts, identified by position."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Record = tuple[int, int, int, bool]
"""The record of a participant or group: time used (ms), time remaining (ms), a number, and whether it has expired.

A participant's number is its cycle count. A group's is the position, within the group, of the member whose turn was
last.
"""

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
"""Number of scalars with fixed positions in a snapshot; the same as in lua/_snapshot.lua."""
_PADDING = " " * len(SCALARS)
# Positions after the scalars and the metadata in a state reply.
DEFINITION = len(SCALARS) + 1
TAGS = DEFINITION + 1
BLOCKS = TAGS + 1
RECORD_WIDTH = 34
_BLOCK = 128  # records in a block; the same as in lua/_records.lua
_RECORD = "%12d%12d%9d%1d"  # the same as in lua/_records.lua
_COMPLETION = "completion="


def values_of(reply: Sequence[str]) -> list[str]:
    """Return a state reply with its first text, which has all scalars, split into one text each."""
    # Padded, because a session of an earlier release may have fewer scalars.
    return [*(reply[0] + _PADDING).split(" ")[: len(SCALARS)], *reply[1:]]


def values_of_snapshot(snapshot: Sequence[str]) -> list[str]:
    """Return the state in a message's `snapshot`, with one text for each scalar.

    Scalars after the first PLACED are written as `name=text` at the position of a reply's tags. Earlier releases ignore
    that text, and write no names there.
    """
    named = dict(word.split("=", 1) for word in snapshot[PLACED + 2].split(" ") if "=" in word)
    return [*snapshot[:PLACED], *(named.get(name, "") for name in SCALARS[PLACED:]), *snapshot[PLACED:]]


def block_count(records: int) -> int:
    """Return the number of blocks of a number of records."""
    return -(-records // _BLOCK)


def write_records(records: Iterable[Record]) -> str:
    """Return records as the scripts store them: a text of RECORD_WIDTH characters each."""
    return "".join([_RECORD % record for record in records])


def read_records(text: str) -> list[Record]:
    """Return the records in a text of the scripts."""
    return [
        (int(text[at : at + 12]), int(text[at + 12 : at + 24]), int(text[at + 24 : at + 33]), text[at + 33] == "1")
        for at in range(0, len(text), RECORD_WIDTH)
    ]


def with_completion(tags: str, completion: str) -> str:
    """Return a state's tags with the completion, as JSON, in the last word."""
    return f"{tags} {_COMPLETION}{completion}" if completion else tags


def split_tags(tags: str) -> tuple[str, str]:
    """Return a state's tags, or a snapshot's named scalars, and the completion as JSON; '' if there is none."""
    tags, _, completion = tags.partition(_COMPLETION)
    return tags.rstrip(), completion


def created_ms_of(scalars: str) -> int:
    """Return the instant (ms) at which the session with these scalars was created."""
    return int(scalars.split(" ")[SCALARS.index("created_ms")])


def order_of(scalars: str) -> tuple[int, int]:
    """Return the (epoch, version) from the text of a session's scalars."""
    epoch, version, _ = scalars.split(" ", 2)
    return int(epoch), int(version)
