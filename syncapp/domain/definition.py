"""The definition of a session: the part that never changes within an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import orjson

from syncapp.domain.modes import MODES
from syncapp.domain.schemas import CreateSession


@dataclass(frozen=True)
class Definition:
    """The part of a session that never changes within an epoch. Times are in ms, None if the session has none."""

    participant_ids: tuple[str, ...] = ()
    budgets_ms: tuple[int | None, ...] = ()
    action_on_timeout: Mapping[str, Any] = field(default_factory=lambda: {"type": "end_session"})
    group_ids: tuple[str, ...] = ()
    group_budgets_ms: tuple[int, ...] = ()
    group_of: tuple[int, ...] = ()
    total_time_ms: int | None = None
    time_per_cycle_ms: int | None = None
    max_time_ms: int | None = None
    max_cycles: int | None = None
    warn_at_ms: tuple[int, ...] = ()

    @cached_property
    def index(self) -> dict[str, int]:
        """Index in the rotation by participant id."""
        return {name: index for index, name in enumerate(self.participant_ids)}

    @cached_property
    def group_index(self) -> dict[str, int]:
        """Index in the order of groups by group id."""
        return {name: index for index, name in enumerate(self.group_ids)}

    @classmethod
    def from_json(cls, text: str | bytes) -> Definition:
        """Parse the text that `to_json` returned."""
        raw: dict[str, Any] = orjson.loads(text)
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()
        }
        return cls(**values)

    def to_json(self) -> bytes:
        """Return the text that a session's hash holds, without default values. Scripts do not parse it."""
        default = Definition()
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return orjson.dumps({name: value for name, value in values.items() if value != getattr(default, name)})


def define(new: CreateSession, action: Mapping[str, Any]) -> Definition:
    """Return the definition of a new session, participants and groups in rotation order."""
    participants, groups = new.in_rotation(), new.in_groups()
    indexes = {group.group_id: index for index, group in enumerate(groups)}
    return Definition(
        participant_ids=tuple(participant.participant_id for participant in participants),
        budgets_ms=tuple(participant.total_time_ms for participant in participants),
        action_on_timeout=action,
        group_ids=tuple(indexes),
        group_budgets_ms=tuple(new.budget_of(group) for group in groups),
        group_of=tuple(indexes[participant.group_id or ""] for participant in participants) if groups else (),
        total_time_ms=total_time_ms(new),
        time_per_cycle_ms=new.time_per_cycle_ms,
        max_time_ms=new.max_time_ms,
        max_cycles=new.max_cycles,
        warn_at_ms=tuple(sorted(new.warn_at_ms or (), reverse=True)),
    )


def total_time_ms(new: CreateSession) -> int | None:
    """Return the total in a state, in ms: the given one, or the sum of all budgets; None in modes without a total."""
    traits = MODES[new.sync_mode]
    if not traits.shows_total:
        return None
    if new.total_time_ms is not None:
        return new.total_time_ms
    if traits.has_group_budgets:
        return sum(new.budget_of(group) for group in new.in_groups())
    return sum(participant.total_time_ms or 0 for participant in new.participants)


def session_budget_ms(new: CreateSession) -> int | None:
    """Return the session's own budget in ms; None if it has none."""
    budgets = {
        "time_per_cycle_ms": new.time_per_cycle_ms,
        "total_time_ms": new.total_time_ms,
        "max_time_ms": new.max_time_ms,
    }
    field = MODES[new.sync_mode].budget_field
    return budgets[field] if field else None
