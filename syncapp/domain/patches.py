"""Patches: what a commit changed, with the names of the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from syncapp.domain.instants import iso

_INSTANTS = tuple(
    (f"{name}_ms", f"{name}_at")
    for name in ("cycle_started", "session_started", "session_completed", "updated", "idle")
)


def patch_of(message: Mapping[str, Any]) -> tuple[Mapping[str, Any], int | None]:
    """Return the arguments of `Session.fold` from a commit's message: the patch with the completion, and `idle_ms`."""
    return add_completion(message["patch"], message.get("completion")), message.get("idle_ms")


def add_completion(patch: Mapping[str, Any], completion: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return a patch or a state document with the completion, if any; a message has it outside its patch."""
    return {**patch, "completion": completion} if completion else patch


def public_patch(patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a commit's patch with the field names of the state: `updated_ms` becomes `updated_at`, in ISO 8601."""
    public = dict(patch)
    for name, public_name in _INSTANTS:
        if name in public:
            public[public_name] = iso(public.pop(name))
    return public
