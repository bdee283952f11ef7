"""The id and the arguments of lua/create_session.lua."""

from __future__ import annotations

import re
import uuid
from typing import Any

import orjson

from syncapp.config import Settings
from syncapp.domain.definition import Definition, session_budget_ms
from syncapp.domain.modes import MODES
from syncapp.domain.private_parts import metadata_proof
from syncapp.domain.results import Claim
from syncapp.domain.schemas import CreateSession
from syncapp.errors import ValidationFailed
from syncapp.store.script_arguments import control_arguments

KEY_NAMESPACE = uuid.UUID("6c2f6d63-8a0b-5b0e-9c39-0d0c4d1f4f57")
"""Namespace of the session ids that are derived from idempotency keys, for creates without an id."""
_RANDOM_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z", re.IGNORECASE)


_NEWER_FIELDS = (("time_control", None), ("warn_scope", "main"), ("lag_compensation", None), ("takeback_cycles", 0))


def create_arguments(new: CreateSession, definition: Definition, settings: Settings) -> list[str | bytes | int]:
    """Return the arguments of a create, after those that all scripts share."""
    metadata = orjson.dumps(new.metadata)
    numbers = (session_budget_ms(new), new.time_per_cycle_ms, new.max_cycles)
    args: list[str | bytes | int] = [
        new.sync_mode,
        new.increment_ms,
        definition.action_on_timeout["type"],
        (new.idle_timeout_s or settings.idle_timeout_s) * 1000,
        *("" if number is None else number for number in numbers),
        " ".join(str(threshold) for threshold in definition.warn_at_ms),
        orjson.dumps(definition.action_on_timeout),
        metadata,
        metadata_proof(metadata),
        definition.to_json(),
        settings.audit_backlog_limit,
        settings.memory_limit_percent,
        len(definition.participant_ids),
        *control_arguments(definition, (clock for _, clock in definition.first_clocks())),
    ]
    has_budgets = MODES[new.sync_mode].has_participant_budgets
    for index, name in enumerate(definition.participant_ids):
        budget_ms = definition.budgets_ms[index] or 0 if has_budgets else 0
        args += [name, budget_ms, definition.group_of[index] if definition.group_of else ""]
    for name, budget_ms in zip(definition.group_ids, definition.group_budgets_ms, strict=True):
        args += [name, budget_ms]
    return args


def create_request(new: CreateSession) -> dict[str, Any]:
    """Return what the fingerprint of a create is made from: all but the id.

    It has no default of the idle timeout, which is a setting and not a part of the request; and fields that earlier
    releases do not know only if they are used, so that a create can be repeated at a process of another release.
    """
    request = new.model_dump(exclude={"session_id"})
    for document in (request, *request["participants"], *(request["groups"] or ())):
        for name, default in _NEWER_FIELDS:
            if document.get(name) == default:
                document.pop(name, None)
    return request


def new_id(claim: Claim) -> str:
    """Return the id of a new session that has none: derived from its idempotency key, or random without a key."""
    if claim.idempotency_key is None:
        return str(uuid.uuid4())
    if not _RANDOM_UUID.match(claim.idempotency_key):
        message = "must be a random UUID (version 4 or 7) if there is no session_id"
        raise ValidationFailed.of("Idempotency-Key", message, "random_uuid")
    owner, key = claim.principal, claim.idempotency_key
    return str(uuid.uuid5(KEY_NAMESPACE, f"{owner.tenant}/{key}/{owner.sub}" if owner.sub else key))
