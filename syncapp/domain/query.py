"""A query string as a model: every fault is reported at once, in the words of a query string; instants are in ms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_origin

from pydantic import Field
from pydantic_core import InitErrorDetails, PydanticCustomError

from syncapp.domain.field_types import UUID_PATTERN
from syncapp.domain.query_values import cursor_of, instant
from syncapp.domain.validation import Request, refused
from syncapp.errors import ValidationFailed

_SESSIONS_CURSOR = r"^[0-9]{1,14}_" + UUID_PATTERN.removeprefix("^")
SessionsCursor = Annotated[str, cursor_of(_SESSIONS_CURSOR), Field(json_schema_extra={"pattern": _SESSIONS_CURSOR})]
SEVERAL = "Only these {}; repeat it, or separate values by commas."
PLUS = " In a URL, `+` is written as `%2B`."
CURSOR = "`next_cursor` of the page before, which this one follows."
Status = Literal["pending", "running", "paused", "completed", "expired", "cancelled", "deleted"]


class Query(Request):
    """A query string; a name that may stand more than once has a list."""

    @classmethod
    def from_args(cls, given: Mapping[str, Sequence[str]]) -> Self:
        """Read the values of each name; raises `ValidationFailed` naming every fault."""
        return cls._read(given, {})

    @classmethod
    def _read(cls, given: Mapping[str, Sequence[str]], groups: Mapping[str, Mapping[str, Sequence[str]]]) -> Self:
        """Read names, and names that belong together as one field; values of a list may be separated by commas, too."""
        lists = {name for name, item in cls.model_fields.items() if get_origin(item.annotation) is list}
        raw: dict[str, Any] = {
            name: [each for value in values for each in value.split(",")] if name in lists else values[-1]
            for name, values in given.items()
        }
        raw |= {group: {name: values[-1] for name, values in members.items()} for group, members in groups.items()}
        single = {name: values for name, values in given.items() if name not in lists}
        single |= {f"{group}.{name}": values for group, members in groups.items() for name, values in members.items()}
        repeated = [
            {"field": name, "message": "must be given once", "code": "repeated"}
            for name, values in single.items()
            if len(values) > 1
        ]
        try:
            asked = cls.parse(raw)
        except ValidationFailed as failed:
            details = (cls._of_query(detail, lists, raw) for detail in failed.details)
            raise refused([*details, *repeated]) from None
        if repeated:
            raise refused(repeated)
        return asked

    @classmethod
    def _of_query(cls, detail: dict[str, str], lists: set[str], raw: Mapping[str, Any]) -> dict[str, str]:
        """Return a fault in the words of a query string: it has parameters and no places in a list."""
        name = detail["field"].partition(".")[0]
        field = name if name in lists else detail["field"]
        if detail["code"] == "id" and " " in raw.get(name, ""):  # a plus that became a space
            return detail | {"message": f"{detail['message']}; in a URL, + is written as %2B"}
        if detail["code"] != "extra_forbidden":
            return detail | {"field": field}
        known = ", ".join(item.alias or name for name, item in cls.model_fields.items()) or "none"
        return detail | {"message": f"is not a known parameter; known: {known}"}


def backwards(raw: dict[str, Any], first: str, last: str) -> Iterator[InitErrorDetails]:
    """Yield the fault of a span that ends before it begins; what is no instant is named elsewhere."""
    try:
        low, high = instant(raw.get(first)), instant(raw.get(last))
    except PydanticCustomError:
        return
    if isinstance(low, int) and isinstance(high, int) and low > high:
        fault = PydanticCustomError("backwards", f"must not be later than {last}")
        yield InitErrorDetails(type=fault, loc=(first,), input=None)
