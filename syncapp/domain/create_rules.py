"""What must fit between the fields of a new session, mode by mode (docs/clock.md).

Looks at the body as it came, so that these faults are named together with those in the fields: nothing
here may trust a type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args

from syncapp.domain.field_types import Mode

Fault = tuple[str, str, str]
"""Field, message, code."""

_MODES = get_args(Mode)
_TURNS = ("per_participant", "per_group")
_SHARED = ("per_cycle", "global", "count_up")


def faults_of_session(raw: dict[str, Any]) -> Iterator[Fault]:
    """Yield every fault between the fields of a create body."""
    mode = next((each for each in _MODES if each == raw.get("sync_mode")), None)
    people = [person for person in _list(raw, "participants") if isinstance(person, dict)]
    groups = [group for group in _list(raw, "groups") if isinstance(group, dict)]
    yield from _participants(mode, raw, people)
    yield from _groups(mode, raw, people, groups)
    yield from _times(mode, raw)
    yield from _warnings(raw)


def _participants(mode: str | None, raw: dict[str, Any], people: list[dict[str, Any]]) -> Iterator[Fault]:
    if mode in _TURNS and not raw.get("participants") and not _wrong_list(raw, "participants"):
        yield "participants", "must name at least one participant in this mode", "too_short"
    yield from _duplicates("participants", "participant_id", _list(raw, "participants"))
    places = [person.get("participant_index") for person in people]
    given = [place for place in places if place is not None]
    if given and {repr(place) for place in places} != {str(place) for place in range(len(people))}:
        message = f"must have a participant_index each or none at all, and each of 0 to {len(people) - 1} once"
        yield "participants", message, "participant_index"
    for place, person in _objects(raw, "participants"):
        if mode == "per_participant" and person.get("total_time_ms") is None:
            yield f"participants.{place}.total_time_ms", "is required in this mode", "missing"
        if mode in _SHARED and person.get("total_time_ms") is not None:
            yield f"participants.{place}.total_time_ms", "belongs to per_participant and per_group only", "not_in_mode"


def _groups(
    mode: str | None, raw: dict[str, Any], people: list[dict[str, Any]], groups: list[dict[str, Any]]
) -> Iterator[Fault]:
    if mode is None:
        return
    if mode != "per_group":
        if raw.get("groups") is not None:
            yield "groups", "belongs to per_group only", "not_in_mode"
        for place, person in _objects(raw, "participants"):
            if person.get("group_id") is not None:
                yield f"participants.{place}.group_id", "belongs to per_group only", "not_in_mode"
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


def _times(mode: str | None, raw: dict[str, Any]) -> Iterator[Fault]:
    required = {"global": "total_time_ms", "per_cycle": "time_per_cycle_ms"}.get(mode or "")
    if required and raw.get(required) is None:
        yield required, f"is required in {mode}", "missing"
    for field, only in (("time_per_cycle_ms", "per_cycle"), ("max_time_ms", "count_up")):
        if raw.get(field) is not None and mode not in (None, only):
            yield field, f"belongs to {only} only", "not_in_mode"
    if raw.get("increment_ms") and mode in _SHARED:
        yield "increment_ms", "belongs to per_participant and per_group only", "not_in_mode"
    total = raw.get("total_time_ms")
    if mode == "global" and type(total) is int and total > 86_400_000:
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
