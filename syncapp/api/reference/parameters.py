"""Headers and query parameters for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from syncapp.api.requests import MAX_WAIT_MS
from syncapp.domain.field_types import IDEMPOTENCY_KEY_PATTERN
from syncapp.domain.query import IN_QUERY

_TAG = '(W/)?"[!#-~]*"'
Key = Annotated[str, Field(pattern=IDEMPOTENCY_KEY_PATTERN)]
Ordinal = Annotated[int, Field(ge=0, le=2**53)]


class ReadHeaders(BaseModel):
    """Headers of a read."""

    if_none_match: str | None = Field(
        default=None,
        alias="If-None-Match",
        description="With `wait_ms`: the ETag that the client has, or `*` for the current one. Without `wait_ms` it is "
        "ignored, because the clock moves while the version stays the same.",
    )


class ReadQuery(BaseModel):
    """Query parameters of a read."""

    wait_ms: int = Field(
        default=0,
        ge=0,
        le=MAX_WAIT_MS,
        description="With `If-None-Match`: how long to wait for another version, in ms. If there is none by then, the "
        "status is 304.",
    )


class DeleteQuery(BaseModel):
    """Query parameters of a delete."""

    erase: bool = Field(
        default=False,
        description="`true` to erase the session's private parts (metadata, reasons, results, principals) from the "
        "audit log as well. This takes effect within seconds, also if the session no longer exists.",
    )


class StreamQuery(BaseModel):
    """Query parameters of a stream."""

    epoch: Ordinal | None = Field(default=None, description="The epoch that the client has; requires `version`.")
    version: Ordinal | None = Field(default=None, description="The version that the client has; requires `epoch`.")
    format: Literal["state", "patch"] = Field(
        default="state", description="`state` for whole states, `patch` for only what changed."
    )
    token: str | None = Field(default=None, description=IN_QUERY)


class StreamHeaders(BaseModel):
    """Headers of a stream."""

    last_event_id: Annotated[str, Field(pattern=r"^[0-9]{1,16}-[0-9]{1,16}$")] | None = Field(
        default=None,
        alias="Last-Event-ID",
        description="The `<epoch>-<version>` of the last event that the client has; browsers send it by themselves.",
    )


class CreateHeaders(BaseModel):
    """Headers of a create."""

    idempotency_key: Key | None = Field(
        default=None,
        alias="Idempotency-Key",
        description="1 to 128 visible ASCII characters. A repeated request with the same key changes nothing and "
        "returns the current state. Without `session_id`, the key must be a random UUID (version 4 or 7), a new one "
        "for each create.",
    )
    prefer: str | None = Field(
        default=None, alias="Prefer", description="`return=minimal` leaves the state out of the response."
    )
    request_id: str | None = Field(
        default=None,
        alias="X-Request-Id",
        description="An id for the logs and the audit log: 1 to 64 characters of A-Z a-z 0-9 . _ -. If it is absent or "
        "invalid, the server generates one.",
    )


class CommandHeaders(CreateHeaders):
    """Headers of a command."""

    idempotency_key: Key | None = Field(
        default=None,
        alias="Idempotency-Key",
        description="1 to 128 visible ASCII characters. A repeated command with the same key changes nothing and "
        "returns the current state, or with `return=minimal` the first event and patch, if they were kept.",
    )

    if_match: Annotated[str, Field(pattern=rf"^(\*|{_TAG}( ?, ?{_TAG})*)$")] | None = Field(
        default=None,
        alias="If-Match",
        description="The ETag that the session must have, weak or strong. If it has another one, nothing changes and "
        "the status is 412.",
    )
