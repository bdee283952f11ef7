"""Applying a `STATE_PATCH` to the last state (docs/protocol.md, "Applying patches")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from syncapp_client.values import State

_KEYS = {"participants": "participant_id", "groups": "group_id"}


def apply_patch(state: State, message: Mapping[str, Any]) -> State:
    """Return the state after a message; neither argument changes."""
    patch: Mapping[str, Any] = message["patch"]
    after: dict[str, Any] = {**state, **patch}
    if patch.get("status", "completed") != "completed":  # reopened
        after.pop("completion", None)
    for name, key in _KEYS.items():
        before = cast("list[dict[str, Any]] | None", state.get(name))
        changed: Mapping[str, Any] = patch.get(name, {})
        if before is not None:
            after[name] = [{**entry, **changed.get(entry[key], {})} for entry in before]
    if "active_participant_id" in patch:
        active_id = patch["active_participant_id"]
        after["participants"] = [
            {**each, "is_active": each["participant_id"] == active_id} for each in after["participants"]
        ]
    after |= {"clock": message["clock"], "server_time_ms": message["timestamp"]}
    return cast("State", after)
