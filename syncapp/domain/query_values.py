"""Types of query parameters: whole numbers, instants (ms), cursors and members of metadata."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from syncapp.domain.instants import ms_of

_LATEST_MS = 253_402_300_799_999  # the last instant of the year 9999
MAX_MEMBERS = 8
_WHOLE = re.compile(r"-?\d{1,17}\Z", re.ASCII)
# The pattern in the OpenAPI document. It begins in 1971, because 1970 with an offset may be before the Unix epoch. The
# parser accepts more forms.
_DOCUMENTED = (
    r"^(197[1-9]|19[89][0-9]|[2-8][0-9]{3})-[0-9]{2}-[0-9]{2}"
    r"T[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
)
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(Z|[+ -]\d\d:?\d\d)\Z", re.ASCII)


def _whole(text: Any) -> Any:
    return int(text) if isinstance(text, str) and _WHOLE.match(text) else text


def instant(text: Any) -> Any:
    """Parse ms or ISO 8601 with an offset. A space before the offset is read as the plus that decoding replaced."""
    if not isinstance(text, str) or _WHOLE.match(text):
        return _whole(text)
    if _ISO.match(text):
        try:
            return ms_of(datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)\Z", r"+\1", text)).isoformat())
        except (ValueError, OverflowError):
            pass
    raise PydanticCustomError("instant", "must be ISO 8601 with an offset, or ms since 1970, such as 1767268800000")


def members(filters: Any) -> Any:
    """Check the members of metadata to filter by."""
    if not isinstance(filters, dict):
        raise PydanticCustomError("members", "must be written as metadata.<key>=<value>")
    if "" in filters:
        raise PydanticCustomError("members", "must name a key: metadata.<key>=<value>")
    if len(filters) > MAX_MEMBERS:
        raise PydanticCustomError("too_long", f"may filter by at most {MAX_MEMBERS} members")
    return filters


def cursor_of(pattern: str) -> AfterValidator:
    """Return a validator of cursors with this pattern."""
    compiled = re.compile(pattern.removesuffix("$") + r"\Z")

    def check(text: str) -> str:
        if not compiled.match(text):
            raise PydanticCustomError("cursor", "must be the `next_cursor` of an earlier response")
        return text

    return AfterValidator(check)


Whole = BeforeValidator(_whole)
Instant = Annotated[
    int,
    BeforeValidator(instant),
    Field(ge=0, le=_LATEST_MS),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time", "pattern": _DOCUMENTED},
                {"type": "integer", "minimum": 0, "maximum": _LATEST_MS},
            ]
        }
    ),
]
Number = Annotated[int, Field(ge=1, le=2**53), Whole]
