"""Rules between time controls and the other fields of a create request (docs/time-controls.md).

They check the raw body, as `create_rules` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from syncapp.domain.modes import GROUP_MODES, OWNER_MODES, ModeTraits
from syncapp.domain.notation import NotationError, parse

Fault = tuple[str, str, str]
"""Field, message, code."""
Owners = list[tuple[int, dict[str, Any]]]
"""Participants or groups of the body, with their places in its list."""
MAX_HOURGLASSES = 16
"""Clocks in an hourglass: each move changes all of them."""
_TOGETHER = "cannot be given together with time_control"


def control_faults(
    mode: ModeTraits | None, raw: dict[str, Any], participants: Owners, groups: Owners
) -> Iterator[Fault]:
    """Yield every error between time controls and other fields."""
    owned = [(f"participants.{at}", each) for at, each in participants] + [
        (f"groups.{at}", each) for at, each in groups
    ]
    own = [(field, each) for field, each in owned if each.get("time_control") is not None]
    control = raw.get("time_control")
    if raw.get("warn_scope") == "period" and control is None and not own:
        yield "warn_scope", "needs a time_control", "missing"
    if mode is None:
        return
    for name in ("time_control", "lag_compensation", "takeback_cycles"):
        if raw.get(name) and not mode.has_owner_budgets:
            yield name, f"is allowed in {OWNER_MODES} only", "not_in_mode"
    if mode.has_owner_budgets:
        yield from _budget_faults(raw, owned)
    for field, each in own:
        yield from _own_faults(mode, f"{field}.time_control", each["time_control"])
    if _is_hourglass(control):
        yield from _hourglass_faults(mode, raw, participants, groups, has_own=bool(own))


def _budget_faults(raw: dict[str, Any], owned: list[tuple[str, dict[str, Any]]]) -> Iterator[Fault]:
    """Yield the errors of budgets and increments that a time control replaces."""
    control = raw.get("time_control")
    for name in ("increment_ms", "total_time_ms"):
        if control is not None and raw.get(name):
            yield name, _TOGETHER, "contradiction"
    for field, each in owned:
        if each.get("total_time_ms") is not None and (control is not None or each.get("time_control") is not None):
            yield f"{field}.total_time_ms", _TOGETHER, "contradiction"


def _own_faults(mode: ModeTraits, field: str, control: Any) -> Iterator[Fault]:
    """Yield the errors of an owner's own control."""
    if not mode.has_owner_budgets:
        yield field, f"is allowed in {OWNER_MODES} only", "not_in_mode"
    elif mode.has_group_budgets and field.startswith("participants"):
        yield field, f"belongs to the group in {GROUP_MODES}", "not_in_mode"
    if _is_hourglass(control):
        yield field, "cannot be an hourglass: give it for the whole session", "contradiction"


def _hourglass_faults(
    mode: ModeTraits, raw: dict[str, Any], participants: Owners, groups: Owners, *, has_own: bool
) -> Iterator[Fault]:
    owners = (
        {repr(each.get("group_id")) for _, each in [*participants, *groups]} if mode.has_group_budgets else participants
    )
    if len(owners) < 2:
        yield "time_control", "an hourglass needs at least two clocks", "too_short"
    if len(owners) > MAX_HOURGLASSES:
        yield "time_control", f"an hourglass has at most {MAX_HOURGLASSES} clocks, not {len(owners)}", "too_long"
    if has_own:
        yield "time_control", "an hourglass must hold for everybody", "contradiction"
    action = raw.get("action_on_timeout")
    if isinstance(action, dict) and action.get("type") == "skip_cycle":
        message = "must not be skip_cycle in an hourglass: a player without time would get time back"
        yield "action_on_timeout.type", message, "contradiction"


def _is_hourglass(control: Any) -> bool:
    if isinstance(control, str):
        return _notes_hourglass(control)
    stages = control.get("stages") if isinstance(control, dict) else None
    return isinstance(stages, list) and any(isinstance(each, dict) and each.get("hourglass") is True for each in stages)


@lru_cache(1024)
def _notes_hourglass(text: str) -> bool:
    try:
        return parse(text).is_hourglass
    except NotationError:
        return False
