"""Values of a query string: whole numbers, instants (ms), cursors and members of metadata."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from syncapp.domain.instants import ms_of

_LATEST_MS = 253_402_300_799_999  # the last instant of the year 9999
MOST_MEMBERS = 8
_WHOLE = re.compile(r"-?\d{1,17}\Z", re.ASCII)
# What the document asks for: of 1971 or later, since 1970 may begin a day earlier elsewhere. More is understood.
_SHOWN = (
    r"^(197[1-9]|19[89][0-9]|[2-8][0-9]{3})-[0-9]{2}-[0-9]{2}"
    r"T[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
)
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(Z|[+ -]\d\d:?\d\d)\Z", re.ASCII)


def _whole(text: Any) -> Any:
    return int(text) if isinstance(text, str) and _WHOLE.match(text) else text


def instant(text: Any) -> Any:
    """Read ms or ISO 8601 with an offset; a plus that the query string turned into a space is one again."""
    if not isinstance(text, str) or _WHOLE.match(text):
        return _whole(text)
    if _ISO.match(text):
        try:
            return ms_of(datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)\Z", r"+\1", text)).isoformat())
        except (ValueError, OverflowError):
            pass
    raise PydanticCustomError("instant", "must be ISO 8601 with an offset, or ms since 1970, such as 1767268800000")


def members(asked: Any) -> Any:
    """Check the members of metadata that are asked for."""
    if not isinstance(asked, dict):
        raise PydanticCustomError("members", "must be asked for as metadata.<key>=<value>")
    if "" in asked:
        raise PydanticCustomError("members", "must name a key: metadata.<key>=<value>")
    if len(asked) > MOST_MEMBERS:
        raise PydanticCustomError("too_long", f"may filter by at most {MOST_MEMBERS} members")
    return asked


def cursor_of(pattern: str) -> AfterValidator:
    """Return the check of a cursor of this form."""
    compiled = re.compile(pattern.removesuffix("$") + r"\Z")

    def check(text: str) -> str:
        if not compiled.match(text):
            raise PydanticCustomError("cursor", "must be a `next_cursor` of an earlier answer")
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
                {"type": "string", "format": "date-time", "pattern": _SHOWN},
                {"type": "integer", "minimum": 0, "maximum": _LATEST_MS},
            ]
        }
    ),
]
Number = Annotated[int, Field(ge=1, le=2**53), Whole]
