"""The arguments of scripts that are made of a command and its caller: names, private parts, the fingerprint."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from typing import Any

import orjson

from syncapp.domain.control_clock import OwnerClock, write_clocks
from syncapp.domain.definition import Definition
from syncapp.domain.private_parts import seal
from syncapp.domain.results import Claim
from syncapp.domain.session_ids import log_id, public_id, tenant_of


@lru_cache(maxsize=4096)
def session_names(session_id: str) -> str:
    """Return the JSON members that name a session in its messages; `session_id` is the log id."""
    names = f'"session_id":"{log_id(session_id)}"'
    if log_id(session_id) != session_id:
        names += f',"tenant":"{tenant_of(session_id)}","tenant_session_id":"{public_id(session_id)}"'
    return names


def private_members(claim: Claim, reason: bytes) -> tuple[str, bytes]:
    """Return the JSON members with the digests of a command's principal and reason, and with these parts."""
    sub = claim.principal.sub
    if not reason:  # most commands
        return seal(_json(sub)).members("principal") if sub else ("", b"")
    digest, part = seal(reason).members("reason")
    if not sub:
        return digest, part
    of_principal = seal(_json(sub)).members("principal")
    return f"{of_principal[0]},{digest}", b"%b,%b" % (of_principal[1], part)


@lru_cache(maxsize=4096)
def _json(text: str) -> bytes:
    return orjson.dumps(text)


def token_id(claim: Claim) -> bytes:
    """Return the id of a command's token as JSON, empty if it has none."""
    return _json(claim.principal.jti) if claim.principal.jti else b""


def fingerprint_of(command: str, claim: Claim, request: Any) -> str:
    """Return the hash by which a replay is distinguished from another command with the same idempotency key."""
    named = [command, claim.expected_epoch, claim.expected_version, request]
    return sha256(orjson.dumps(named, option=orjson.OPT_SORT_KEYS)).hexdigest()


def text_of(value: str | bytes | int) -> str:
    """Return an argument as text, as the fingerprint has it."""
    return value.decode() if isinstance(value, bytes) else str(value)


def control_arguments(definition: Definition, clocks: Iterable[OwnerClock]) -> list[str | int]:
    """Return what scripts that write a new session take about its time controls and takebacks (lua/_create.lua)."""
    takebacks = definition.takeback_cycles or ""
    if definition.control is None:
        return [f"{takebacks}|" if takebacks else "", "", 0]
    own = definition.own_controls
    words = [word for item in own.items() for word in item]
    return [f"{takebacks}|{'*' * bool(own)}{definition.control}", write_clocks(clocks), len(own), *words]
