"""The definition of a session: the part that never changes within an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import Any

import orjson

from syncapp.domain.control_clock import OwnerClock, first_clock
from syncapp.domain.control_text import SessionRules, read_control, read_rules, write_control
from syncapp.domain.modes import MODES
from syncapp.domain.notation import format_control
from syncapp.domain.schemas import CreateSession, NewGroup, NewParticipant
from syncapp.domain.time_control import MAX_SESSION_PERIODS, Stage, TimeControl
from syncapp.errors import ValidationFailed


@dataclass(frozen=True)
class Definition:
    """The part of a session that never changes within an epoch. Times are in ms, None if the session has none.

    control: the session's time control, as the scripts have it (`control_text`): '' if only owners (participants, in
    `per_group` groups) have one, None if nobody has. own_controls: those of owners with their own, by index.
    takeback_cycles: how many cycles can be taken back.
    """

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
    control: str | None = None
    own_controls: Mapping[str, str] = field(default_factory=dict)
    takeback_cycles: int = 0

    @cached_property
    def controls(self) -> tuple[TimeControl, ...]:
        """The time control of each participant, in `per_group` of each group; empty without time controls."""
        if self.control is None:
            return ()
        texts = [self.own_controls.get(str(index), self.control) for index in range(self.owner_count)]
        return tuple(map(read_control, texts))

    def first_clocks(self) -> list[tuple[int, OwnerClock]]:
        """Return the main time (ms) and the clock of each owner with a time control, at the start."""
        quota_ms = self.session_rules.lag_quota_ms
        return [first_clock(control, quota_ms) for control in self.controls]

    def clock_members(self, index: int, clock: OwnerClock) -> dict[str, Any]:
        """Return the members of a state about the clock of an owner with a time control."""
        control, has_lag = self.controls[index], self.session_rules.lag_quota_ms > 0
        members = clock.document(control.stages[clock.stage - 1], has_lag=has_lag)
        if str(index) in self.own_controls:
            members |= shown_control(self.own_controls[str(index)])
        return members

    @property
    def owner_count(self) -> int:
        """The number of participants, in `per_group` of groups."""
        return len(self.group_ids or self.participant_ids)

    @cached_property
    def period_count(self) -> int:
        """The most periods and blocks that the clocks can begin by themselves, without a move."""
        return sum(
            max(stage.periods or int(stage.period_moves is not None) for stage in control.stages)
            for control in self.controls
        )

    @property
    def session_rules(self) -> SessionRules:
        """What holds for all time controls of the session."""
        return read_rules(self.control or next(iter(self.own_controls.values()), ""))

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
        """Parse the text that `to_json` returned; in a script's reply, a second line has the time control."""
        document, _, control = (text if isinstance(text, str) else text.decode()).partition("\n")
        raw: dict[str, Any] = orjson.loads(document)
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()
        }
        return cls(**values, control=control.removeprefix("*") if control else None)

    def to_json(self) -> bytes:
        """Return the text that a session's hash holds, without default values and the time control.

        Scripts do not parse it.
        """
        default = Definition()
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "control"}
        return orjson.dumps({name: value for name, value in values.items() if value != getattr(default, name)})


@lru_cache(4096)
def shown_control(text: str) -> Mapping[str, Any]:
    """Return the members of a state about a control, from its text for the scripts."""
    control = read_control(text)
    return {"time_control": control.document(), "time_control_notation": format_control(control)}


def define(new: CreateSession, action: Mapping[str, Any]) -> Definition:
    """Return the definition of a new session, participants and groups in rotation order.

    Raises `ValidationFailed` if its time controls have too many periods together.
    """
    participants, groups = new.in_rotation(), new.in_groups()
    indexes = {group.group_id: index for index, group in enumerate(groups)}
    budgets = [participant.total_time_ms for participant in participants]
    group_budgets = [new.budget_of(group) for group in groups]
    control, own_controls = _controls(new, group_budgets if groups else budgets)
    definition = Definition(
        participant_ids=tuple(participant.participant_id for participant in participants),
        budgets_ms=tuple(budgets),
        action_on_timeout=action,
        group_ids=tuple(indexes),
        group_budgets_ms=tuple(group_budgets),
        group_of=tuple(indexes[participant.group_id or ""] for participant in participants) if groups else (),
        total_time_ms=total_time_ms(new, group_budgets if groups else budgets),
        time_per_cycle_ms=new.time_per_cycle_ms,
        max_time_ms=new.max_time_ms,
        max_cycles=new.max_cycles,
        warn_at_ms=tuple(sorted(new.warn_at_ms or (), reverse=True)),
        control=control,
        own_controls=own_controls,
        takeback_cycles=new.takeback_cycles,
    )
    if control is None:
        return definition
    if definition.period_count > MAX_SESSION_PERIODS:
        message = f"gives all clocks together {definition.period_count} periods, more than {MAX_SESSION_PERIODS}"
        raise ValidationFailed.of("time_control", message, "too_many_periods")
    granted = tuple(main_ms for main_ms, _ in definition.first_clocks())
    total_ms = total_time_ms(new, granted)
    if groups:
        return replace(definition, group_budgets_ms=granted, total_time_ms=total_ms)
    return replace(definition, budgets_ms=granted, total_time_ms=total_ms)


def _controls(new: CreateSession, budgets_ms: Sequence[int | None]) -> tuple[str | None, dict[str, str]]:
    """Return `Definition.control` and `own_controls`; budgets_ms: of owners without a time control.

    If the session has no time control but an owner has one, or lag is compensated, all others have one with a single
    Fischer stage.
    """
    owners: Sequence[NewGroup | NewParticipant] = new.in_groups() or new.in_rotation()
    lag = new.lag_compensation
    if new.time_control is None and lag is None and not any(owner.time_control for owner in owners):
        return None, {}
    rules = SessionRules(new.warn_scope == "period", *((lag.quota_ms, lag.per_move_ms) if lag else ()))
    own_controls = {}
    for index, owner in enumerate(owners):
        control = owner.time_control
        if control is None and new.time_control is None:
            # Not checked again: the sum of a group's budgets may be more than a stage may have.
            stage = Stage.model_construct(time_ms=budgets_ms[index], increment_ms=new.increment_ms)
            control = TimeControl.model_construct(stages=[stage]).normalized()
        if control is not None:
            own_controls[str(index)] = write_control(control, rules)
    return write_control(new.time_control, rules) if new.time_control else "", own_controls


def total_time_ms(new: CreateSession, budgets_ms: Iterable[int | None]) -> int | None:
    """Return the total in a state, in ms: the given one, or the sum of all budgets; None in modes without a total."""
    if not MODES[new.sync_mode].shows_total:
        return None
    return sum(each or 0 for each in budgets_ms) if new.total_time_ms is None else new.total_time_ms


def session_budget_ms(new: CreateSession) -> int | None:
    """Return the session's own budget in ms; None if it has none."""
    budgets = {
        "time_per_cycle_ms": new.time_per_cycle_ms,
        "total_time_ms": new.total_time_ms,
        "max_time_ms": new.max_time_ms,
    }
    field = MODES[new.sync_mode].budget_field
    return budgets[field] if field else None
