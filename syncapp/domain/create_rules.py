"""What must fit between the fields of a new session, mode by mode (docs/clock.md).

Looks at the body as it came, so that these faults are named together with those in the fields: nothing
here may trust a type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from syncapp.domain.modes import GROUP_MODES, MODES, OWNER_MODES, ModeTraits

Fault = tuple[str, str, str]
"""Field, message, code."""


def faults_of_session(raw: dict[str, Any]) -> Iterator[Fault]:
    """Yield every fault between the fields of a create body."""
    mode = raw.get("sync_mode")
    traits = MODES.get(mode) if isinstance(mode, str) else None
    people = [person for person in _list(raw, "participants") if isinstance(person, dict)]
    groups = [group for group in _list(raw, "groups") if isinstance(group, dict)]
    yield from _participants(traits, raw, people)
    yield from _groups(traits, raw, people, groups)
    yield from _times(traits, raw)
    yield from _warnings(raw)


def _participants(mode: ModeTraits | None, raw: dict[str, Any], people: list[dict[str, Any]]) -> Iterator[Fault]:
    if mode and mode.has_owner_budgets and not raw.get("participants") and not _wrong_list(raw, "participants"):
        yield "participants", "must name at least one participant in this mode", "too_short"
    yield from _duplicates("participants", "participant_id", _list(raw, "participants"))
    places = [person.get("participant_index") for person in people]
    given = [place for place in places if place is not None]
    if given and {repr(place) for place in places} != {str(place) for place in range(len(people))}:
        message = f"must have a participant_index each or none at all, and each of 0 to {len(people) - 1} once"
        yield "participants", message, "participant_index"
    for place, person in _objects(raw, "participants"):
        if mode and mode.has_participant_budgets and person.get("total_time_ms") is None:
            yield f"participants.{place}.total_time_ms", "is required in this mode", "missing"
        if mode and not mode.has_owner_budgets and person.get("total_time_ms") is not None:
            yield f"participants.{place}.total_time_ms", f"belongs to {OWNER_MODES} only", "not_in_mode"


def _groups(
    mode: ModeTraits | None, raw: dict[str, Any], people: list[dict[str, Any]], groups: list[dict[str, Any]]
) -> Iterator[Fault]:
    if mode is None:
        return
    if not mode.has_group_budgets:
        if raw.get("groups") is not None:
            yield "groups", f"belongs to {GROUP_MODES} only", "not_in_mode"
        for place, person in _objects(raw, "participants"):
            if person.get("group_id") is not None:
                yield f"participants.{place}.group_id", f"belongs to {GROUP_MODES} only", "not_in_mode"
        return
    yield from _duplicates("groups", "group_id", _list(raw, "groups"))
    known = {group["group_id"] for group in groups if isinstance(group.get("group_id"), str)}
    owners = set(_owned(groups))
    for place, person in _objects(raw, "participants"):
        yield from _member(f"participants.{place}", person, known, owners)
    peopled = {person["group_id"] for person in people if isinstance(person.get("group_id"), str)}
    for place, group in _objects(raw, "groups"):
        name = group.get("group_id")
        if isinstance(name, str) and name not in peopled | owners:
            yield f"groups.{place}.total_time_ms", "is required for a group without members", "missing"


def _member(field: str, person: dict[str, Any], known: set[str], owners: set[str]) -> Iterator[Fault]:
    group = person.get("group_id")
    if group is None:
        yield f"{field}.group_id", "is required in this mode", "missing"
    elif not isinstance(group, str):
        return
    elif known and group not in known:
        yield f"{field}.group_id", "is not the id of one of the groups", "unknown_group"
    elif group not in owners and person.get("total_time_ms") is None:
        yield f"{field}.total_time_ms", "is required where the group has no total_time_ms of its own", "missing"


def _times(mode: ModeTraits | None, raw: dict[str, Any]) -> Iterator[Fault]:
    if mode and mode.budget_field and mode.needs_budget and raw.get(mode.budget_field) is None:
        yield mode.budget_field, f"is required in {raw['sync_mode']}", "missing"
    for field in ("time_per_cycle_ms", "max_time_ms"):
        if raw.get(field) is not None and mode and mode.budget_field != field:
            only = next(name for name, traits in MODES.items() if traits.budget_field == field)
            yield field, f"belongs to {only} only", "not_in_mode"
    if raw.get("increment_ms") and mode and not mode.has_owner_budgets:
        yield "increment_ms", f"belongs to {OWNER_MODES} only", "not_in_mode"
    total = raw.get("total_time_ms")
    if mode and mode.budget_field == "total_time_ms" and type(total) is int and total > 86_400_000:
        yield "total_time_ms", "must be less than or equal to 86400000", "less_than_equal"


def _warnings(raw: dict[str, Any]) -> Iterator[Fault]:
    thresholds = [repr(threshold) for threshold in _list(raw, "warn_at_ms")]
    if len(set(thresholds)) < len(thresholds):
        yield "warn_at_ms", "must be different thresholds", "duplicate"


def _duplicates(field: str, name: str, items: list[Any]) -> Iterator[Fault]:
    ids = [item.get(name) if isinstance(item, dict) else None for item in items]
    counts = Counter(each for each in ids if isinstance(each, str))
    for place, each in enumerate(ids):
        if isinstance(each, str) and counts[each] > 1:
            yield f"{field}.{place}.{name}", f"{each!r} is not unique", "duplicate"


def _owned(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the budgets of the groups that have one of their own, by id."""
    return {
        group["group_id"]: group["total_time_ms"]
        for group in groups
        if isinstance(group.get("group_id"), str) and group.get("total_time_ms") is not None
    }


def _objects(raw: dict[str, Any], field: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for place, item in enumerate(_list(raw, field)):
        if isinstance(item, dict):
            yield place, item


def _list(raw: dict[str, Any], field: str) -> list[Any]:
    value = raw.get(field)
    return value if isinstance(value, list) else []


def _wrong_list(raw: dict[str, Any], field: str) -> bool:
    return field in raw and not isinstance(raw[field], list)
