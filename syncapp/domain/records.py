"""The records of a session's participants and groups, parsed from the blocks in which the scripts keep them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap

from msgspec import Struct

from syncapp.domain.definition import Definition
from syncapp.domain.session_layout import block_count, read_records


class Participant(Struct, frozen=True):
    """A participant's totals, settled to the session's `cycle_started_ms`.

    time_remaining_ms is 0 in modes in which participants have no budgets.
    """

    time_used_ms: int
    time_remaining_ms: int
    cycle_count: int
    has_expired: bool


class Group(Struct, frozen=True):
    """A group's totals, settled to the same instant as a participant's."""

    time_used_ms: int
    time_remaining_ms: int
    has_expired: bool


def participants_of(block: str) -> tuple[Participant, ...]:
    """Read a block of records."""
    return tuple(starmap(Participant, read_records(block)))


def split_blocks(definition: Definition, blocks: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the blocks of participants and groups, and those of clocks with a time control."""
    count = block_count(len(definition.participant_ids)) + block_count(len(definition.group_ids))
    return blocks[:count], blocks[count:]
