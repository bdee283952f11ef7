"""Query strings as models. All errors are reported at once, with the names of parameters. Instants are in ms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_origin

from pydantic import Field
from pydantic_core import InitErrorDetails, PydanticCustomError

from syncapp.domain.field_types import UUID_PATTERN
from syncapp.domain.query_values import cursor_of, instant
from syncapp.domain.validation import Request, validation_failure
from syncapp.errors import ValidationFailed

_SESSIONS_CURSOR = r"^[0-9]{1,14}_" + UUID_PATTERN.removeprefix("^")
SessionsCursor = Annotated[str, cursor_of(_SESSIONS_CURSOR), Field(json_schema_extra={"pattern": _SESSIONS_CURSOR})]
SEVERAL = "Return only these {}. Repeat the parameter, or separate values with commas."
PLUS = " In a URL, `+` is written as `%2B`."
CURSOR = "The `next_cursor` of the previous page."
IN_QUERY = (
    "The token, instead of the header `Authorization`, for pages that cannot set headers. Keep such URLs out of logs."
)
Status = Literal["pending", "running", "paused", "completed", "expired", "cancelled", "deleted"]


class Query(Request):
    """A query string; a parameter that may be repeated is a list."""

    @classmethod
    def from_args(cls, args: Mapping[str, Sequence[str]]) -> Self:
        """Parse the values of all parameters. Raises `ValidationFailed` with all errors."""
        return cls._read(args, {})

    @classmethod
    def _read(cls, args: Mapping[str, Sequence[str]], groups: Mapping[str, Mapping[str, Sequence[str]]]) -> Self:
        """Parse parameters, and groups that form one field each; values of a list may be separated by commas."""
        lists = {name for name, item in cls.model_fields.items() if get_origin(item.annotation) is list}
        raw: dict[str, Any] = {
            name: [each for value in values for each in value.split(",")] if name in lists else values[-1]
            for name, values in args.items()
        }
        raw |= {group: {name: values[-1] for name, values in members.items()} for group, members in groups.items()}
        single = {name: values for name, values in args.items() if name not in lists}
        single |= {f"{group}.{name}": values for group, members in groups.items() for name, values in members.items()}
        repeated = [
            {"field": name, "message": "must be given once", "code": "repeated"}
            for name, values in single.items()
            if len(values) > 1
        ]
        try:
            query = cls.parse(raw)
        except ValidationFailed as failed:
            details = (cls._query_detail(detail, lists, raw) for detail in failed.details)
            raise validation_failure([*details, *repeated]) from None
        if repeated:
            raise validation_failure(repeated)
        return query

    @classmethod
    def _query_detail(cls, detail: dict[str, str], lists: set[str], raw: Mapping[str, Any]) -> dict[str, str]:
        """Return an error with the name of the parameter, without the index in a list."""
        name = detail["field"].partition(".")[0]
        field = name if name in lists else detail["field"]
        if detail["code"] == "id" and " " in raw.get(name, ""):  # decoding has turned a plus into a space
            return detail | {"message": f"{detail['message']}; in a URL, + is written as %2B"}
        if detail["code"] != "extra_forbidden":
            return detail | {"field": field}
        known = ", ".join(item.alias or name for name, item in cls.model_fields.items()) or "none"
        return detail | {"message": f"is not a known parameter; known: {known}"}


def backwards(raw: dict[str, Any], first: str, last: str) -> Iterator[InitErrorDetails]:
    """Yield an error if a span ends before it begins. Invalid instants are reported by their own fields."""
    try:
        low, high = instant(raw.get(first)), instant(raw.get(last))
    except PydanticCustomError:
        return
    if isinstance(low, int) and isinstance(high, int) and low > high:
        fault = PydanticCustomError("backwards", f"must not be later than {last}")
        yield InitErrorDetails(type=fault, loc=(first,), input=None)
