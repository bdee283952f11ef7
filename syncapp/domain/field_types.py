"""Types of the values that clients may send, with their limits. Times are in ms."""

from __future__ import annotations

import re
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from syncapp.domain.limits import MAX_METADATA_BYTES, MAX_RESULT_BYTES

UUID_PATTERN = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
ID_PATTERN = r"^[A-Za-z0-9._:@+-]{1,64}$"
IDEMPOTENCY_KEY_PATTERN = r"^[\x21-\x7e]{1,128}$"

MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "model_type": "must be a JSON object",
    "id": "must be 1 to 64 characters of A-Z a-z 0-9 . _ : @ + -",
    "uuid": "must be a UUID, such as 3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10",
}


def _matching(pattern: str, code: str) -> AfterValidator:
    compiled = re.compile(pattern.removesuffix("$") + r"\Z")

    def check(text: str) -> str:
        if not compiled.match(text):
            raise PydanticCustomError(code, MESSAGES[code])
        return text

    return AfterValidator(check)


def without_nul(value: Any) -> Any:
    r"""Refuse NUL anywhere in a client's document: it is legal in JSON (`\u0000`), but not in PostgreSQL's `jsonb`."""
    stack = [value.model_dump() if isinstance(value, BaseModel) else value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if "\x00" in item:
                raise PydanticCustomError("nul_character", "must not contain the NUL character")
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return value


def at_most(limit: int) -> BeforeValidator:
    """Return a validator that refuses an object of more than `limit` bytes as JSON, before its members are checked."""

    def check(document: Any) -> Any:
        size = len(orjson.dumps(document)) if isinstance(document, dict) else 0
        if size > limit:
            raise PydanticCustomError(
                "too_large", "is {size} bytes as JSON, more than {limit}", {"size": size, "limit": limit}
            )
        return document

    return BeforeValidator(check)


def _small(document: Any) -> Any:
    size = len(orjson.dumps(document))
    if size > MAX_RESULT_BYTES:
        raise PydanticCustomError(
            "too_large", "is {size} bytes as JSON, more than {limit}", {"size": size, "limit": MAX_RESULT_BYTES}
        )
    return document


SessionId = Annotated[
    str,
    _matching(UUID_PATTERN, "uuid"),
    AfterValidator(str.lower),
    Field(
        json_schema_extra={"format": "uuid", "pattern": UUID_PATTERN}, examples=["3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"]
    ),
]
ParticipantId = Annotated[str, _matching(ID_PATTERN, "id"), Field(json_schema_extra={"pattern": ID_PATTERN})]
DurationMs = Annotated[int, Field(ge=1000, le=86_400_000)]
Metadata = Annotated[dict[str, Any], AfterValidator(without_nul), at_most(MAX_METADATA_BYTES)]
WarningMs = Annotated[int, Field(ge=1, le=86_400_000)]
Reason = Annotated[
    str,
    Field(min_length=1, max_length=500, json_schema_extra={"pattern": r"^[^\u0000]*$"}),
    AfterValidator(without_nul),
]
SmallJson = Annotated[Any, AfterValidator(without_nul), BeforeValidator(_small)]
