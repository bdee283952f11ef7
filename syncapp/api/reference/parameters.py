"""Headers and query parameters of the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from syncapp.api.requests import MAX_WAIT_MS
from syncapp.domain.field_types import IDEMPOTENCY_KEY_PATTERN

_TAG = '(W/)?"[!#-~]*"'
Key = Annotated[str, Field(pattern=IDEMPOTENCY_KEY_PATTERN)]
Ordinal = Annotated[int, Field(ge=0, le=2**53)]


class ReadHeaders(BaseModel):
    """Headers of a read."""

    if_none_match: str | None = Field(
        default=None,
        alias="If-None-Match",
        description="With `wait_ms`: the ETag that the client has, or `*` for whatever is current. Without `wait_ms` "
        "it is ignored, because the clock moves while the version stays the same.",
    )


class ReadQuery(BaseModel):
    """How long a read waits."""

    wait_ms: int = Field(
        default=0,
        ge=0,
        le=MAX_WAIT_MS,
        description="With `If-None-Match`: wait so many ms for another version than that, then answer 304.",
    )


class StreamQuery(BaseModel):
    """Where a stream begins, and what it carries."""

    epoch: Ordinal | None = Field(default=None, description="With `version`: the epoch that the client knows.")
    version: Ordinal | None = Field(default=None, description="With `epoch`: the version that the client knows.")
    format: Literal["state", "patch"] = Field(default="state", description="Whole states, or what changed.")


class StreamHeaders(BaseModel):
    """Headers of a stream."""

    last_event_id: Annotated[str, Field(pattern=r"^[0-9]{1,16}-[0-9]{1,16}$")] | None = Field(
        default=None, alias="Last-Event-ID", description="`<epoch>-<version>` of the last event; browsers send it."
    )


class CreateHeaders(BaseModel):
    """Headers of a create."""

    idempotency_key: Key | None = Field(
        default=None,
        alias="Idempotency-Key",
        description="1 to 128 visible ASCII characters; the same key again changes nothing and answers with the "
        "current state. Without a `session_id` the key must be a random UUID (version 4 or 7), made for this create.",
    )
    prefer: str | None = Field(default=None, alias="Prefer", description="`return=minimal` leaves the state out.")
    request_id: str | None = Field(
        default=None,
        alias="X-Request-Id",
        description="Goes into logs and the audit trail, if it is 1 to 64 characters of A-Z a-z 0-9 . _ -; else the "
        "server makes one.",
    )


class CommandHeaders(CreateHeaders):
    """Headers of a command."""

    idempotency_key: Key | None = Field(
        default=None,
        alias="Idempotency-Key",
        description="1 to 128 visible ASCII characters; the same key again changes nothing and answers with the "
        "current state, or, where `return=minimal` is preferred, with the first event and patch if they were kept.",
    )

    if_match: Annotated[str, Field(pattern=rf"^(\*|{_TAG}( ?, ?{_TAG})*)$")] | None = Field(
        default=None,
        alias="If-Match",
        description="The ETag to act on, weak or strong; with another version nothing is changed (412).",
    )
