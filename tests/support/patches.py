"""How a client applies a `STATE_PATCH`, as docs/protocol.md describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = {"participants": "participant_id", "groups": "group_id"}


def apply_patch(state: Mapping[str, Any], message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state after a message; neither argument changes."""
    patch = message["patch"]
    folded = {**state, **patch}
    if patch.get("status", "completed") != "completed":  # reopened
        folded.pop("completion", None)
    for name, key in KEYS.items():
        changes = patch.get(name, {})
        if name in state:
            folded[name] = [{**entry, **changes.get(entry[key], {})} for entry in state[name]]
    if "active_participant_id" in patch:
        active_id = patch["active_participant_id"]
        folded["participants"] = [
            {**person, "is_active": person["participant_id"] == active_id} for person in folded["participants"]
        ]
    return {**folded, "clock": message["clock"], "server_time_ms": message["timestamp"]}
