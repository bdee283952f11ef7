"""Rules between the fields of a create request, by mode (docs/clock.md).

They check the raw body, so that their errors are reported together with those of single fields. The code here must not
rely on the types of values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from syncapp.domain.control_rules import control_faults
from syncapp.domain.modes import GROUP_MODES, MODES, OWNER_MODES, ModeTraits

Fault = tuple[str, str, str]
"""Field, message, code."""


def create_faults(raw: dict[str, Any]) -> Iterator[Fault]:
    """Yield every error between the fields of a create request."""
    mode = raw.get("sync_mode")
    traits = MODES.get(mode) if isinstance(mode, str) else None
    participants = [participant for _, participant in _objects(raw, "participants")]
    groups = [group for _, group in _objects(raw, "groups")]
    yield from _participant_faults(traits, raw, participants)
    yield from _group_faults(traits, raw, participants, groups)
    yield from _time_faults(traits, raw)
    yield from control_faults(traits, raw, list(_objects(raw, "participants")), list(_objects(raw, "groups")))
    yield from _warning_faults(raw)


def _participant_faults(
    mode: ModeTraits | None, raw: dict[str, Any], participants: list[dict[str, Any]]
) -> Iterator[Fault]:
    if mode and mode.has_owner_budgets and not raw.get("participants") and not _is_not_a_list(raw, "participants"):
        yield "participants", "must name at least one participant in this mode", "too_short"
    yield from _duplicates("participants", "participant_id", _list(raw, "participants"))
    indexes = [participant.get("participant_index") for participant in participants]
    given = [index for index in indexes if index is not None]
    if given and {repr(index) for index in indexes} != {str(index) for index in range(len(participants))}:
        message = f"must all have a participant_index, each from 0 to {len(participants) - 1} once, or none"
        yield "participants", message, "participant_index"
    for index, participant in _objects(raw, "participants"):
        if mode and mode.has_participant_budgets and not _has_time(participant, raw):
            yield f"participants.{index}.total_time_ms", "is required in this mode, without a time_control", "missing"
        if mode and not mode.has_owner_budgets and participant.get("total_time_ms") is not None:
            yield f"participants.{index}.total_time_ms", f"is allowed in {OWNER_MODES} only", "not_in_mode"


def _group_faults(
    mode: ModeTraits | None, raw: dict[str, Any], participants: list[dict[str, Any]], groups: list[dict[str, Any]]
) -> Iterator[Fault]:
    if mode is None:
        return
    if not mode.has_group_budgets:
        if raw.get("groups") is not None:
            yield "groups", f"is allowed in {GROUP_MODES} only", "not_in_mode"
        for index, participant in _objects(raw, "participants"):
            if participant.get("group_id") is not None:
                yield f"participants.{index}.group_id", f"is allowed in {GROUP_MODES} only", "not_in_mode"
        return
    yield from _duplicates("groups", "group_id", _list(raw, "groups"))
    listed = {group["group_id"] for group in groups if isinstance(group.get("group_id"), str)}
    with_budget = _ids_with_budget(groups) if raw.get("time_control") is None else listed | _named_groups(participants)
    for index, participant in _objects(raw, "participants"):
        yield from _member_faults(f"participants.{index}", participant, listed, with_budget)
    with_members = _named_groups(participants)
    for index, group in _objects(raw, "groups"):
        name = group.get("group_id")
        if isinstance(name, str) and name not in with_members | with_budget:
            yield f"groups.{index}.total_time_ms", "is required for a group without members", "missing"


def _member_faults(field: str, participant: dict[str, Any], listed: set[str], with_budget: set[str]) -> Iterator[Fault]:
    group = participant.get("group_id")
    if group is None:
        yield f"{field}.group_id", "is required in this mode", "missing"
    elif not isinstance(group, str):
        return
    elif listed and group not in listed:
        yield f"{field}.group_id", "is not the id of one of the groups", "unknown_group"
    elif group not in with_budget and participant.get("total_time_ms") is None:
        yield f"{field}.total_time_ms", "is required if the group has no total_time_ms", "missing"


def _time_faults(mode: ModeTraits | None, raw: dict[str, Any]) -> Iterator[Fault]:
    if mode and mode.budget_field and mode.needs_budget and raw.get(mode.budget_field) is None:
        yield mode.budget_field, f"is required in {raw['sync_mode']}", "missing"
    for field in ("time_per_cycle_ms", "max_time_ms"):
        if raw.get(field) is not None and mode and mode.budget_field != field:
            only = next(name for name, traits in MODES.items() if traits.budget_field == field)
            yield field, f"is allowed in {only} only", "not_in_mode"
    if raw.get("increment_ms") and mode and not mode.has_owner_budgets:
        yield "increment_ms", f"is allowed in {OWNER_MODES} only", "not_in_mode"
    total = raw.get("total_time_ms")
    if mode and mode.budget_field == "total_time_ms" and type(total) is int and total > 86_400_000:
        yield "total_time_ms", "must be less than or equal to 86400000", "less_than_equal"


def _warning_faults(raw: dict[str, Any]) -> Iterator[Fault]:
    thresholds = [repr(threshold) for threshold in _list(raw, "warn_at_ms")]
    if len(set(thresholds)) < len(thresholds):
        yield "warn_at_ms", "must be different thresholds", "duplicate"


def _duplicates(field: str, name: str, items: list[Any]) -> Iterator[Fault]:
    ids = [item.get(name) if isinstance(item, dict) else None for item in items]
    counts = Counter(each for each in ids if isinstance(each, str))
    for index, each in enumerate(ids):
        if isinstance(each, str) and counts[each] > 1:
            yield f"{field}.{index}.{name}", f"{each!r} is not unique", "duplicate"


def _ids_with_budget(groups: list[dict[str, Any]]) -> set[str]:
    """Return the ids of the groups that have a budget of their own."""
    return {
        group["group_id"]
        for group in groups
        if isinstance(group.get("group_id"), str)
        and (group.get("total_time_ms") is not None or group.get("time_control") is not None)
    }


def _named_groups(participants: list[dict[str, Any]]) -> set[str]:
    """Return the ids of the groups that participants name."""
    return {each["group_id"] for each in participants if isinstance(each.get("group_id"), str)}


def _has_time(owner: dict[str, Any], raw: dict[str, Any]) -> bool:
    """Return whether an owner has a budget: its own, or that of a time control."""
    return any(
        each is not None for each in (owner.get("total_time_ms"), owner.get("time_control"), raw.get("time_control"))
    )


def _objects(raw: dict[str, Any], field: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, item in enumerate(_list(raw, field)):
        if isinstance(item, dict):
            yield index, item


def _list(raw: dict[str, Any], field: str) -> list[Any]:
    value = raw.get(field)
    return value if isinstance(value, list) else []


def _is_not_a_list(raw: dict[str, Any], field: str) -> bool:
    return field in raw and not isinstance(raw[field], list)
