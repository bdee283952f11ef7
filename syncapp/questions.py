"""What clients may ask of the log: query strings as values, every fault at once; instants are in ms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from syncapp.errors import ValidationFailed
from syncapp.fields import UUID_PATTERN, Mode
from syncapp.models import Request
from syncapp.past import ms_of

_LATEST_MS = 253_402_300_799_999  # the last instant of the year 9999
_WHOLE = re.compile(r"-?\d{1,17}\Z", re.ASCII)
# What the document asks for: of 1971 or later, since 1970 may begin a day earlier elsewhere. More is understood.
_SHOWN = (
    r"^(197[1-9]|19[89][0-9]|[2-8][0-9]{3})-[0-9]{2}-[0-9]{2}"
    r"T[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
)
_OF_EVENTS = r"^[0-9]{1,15}-[0-9]{1,15}$"
_OF_SESSIONS = r"^[0-9]{1,14}_" + UUID_PATTERN.removeprefix("^")
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(Z|[+ -]\d\d:?\d\d)\Z", re.ASCII)


def _whole(text: Any) -> Any:
    return int(text) if isinstance(text, str) and _WHOLE.match(text) else text


def _instant(text: Any) -> Any:
    """Read ms or ISO 8601 with an offset; a plus that the query string turned into a space is one again."""
    if not isinstance(text, str) or _WHOLE.match(text):
        return _whole(text)
    if _ISO.match(text):
        try:
            return ms_of(datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)\Z", r"+\1", text)).isoformat())
        except (ValueError, OverflowError):
            pass
    raise PydanticCustomError("instant", "must be ISO 8601 with an offset, or ms since 1970, such as 1767268800000")


def _cursor(pattern: str) -> AfterValidator:
    compiled = re.compile(pattern.removesuffix("$") + r"\Z")

    def check(text: str) -> str:
        if not compiled.match(text):
            raise PydanticCustomError("cursor", "must be a `next_cursor` of an earlier answer")
        return text

    return AfterValidator(check)


Whole = BeforeValidator(_whole)
Instant = Annotated[
    int,
    BeforeValidator(_instant),
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
_FORMS = ": ISO 8601 with an offset, or ms since 1970."
_CURSOR = "`next_cursor` of the page before, which this one follows."
EventType = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
Status = Literal["pending", "running", "paused", "completed", "expired", "cancelled", "deleted"]


class Question(Request):
    """A query string; a name that may stand more than once has a list."""

    @classmethod
    def ask(cls, given: Mapping[str, Sequence[str]]) -> Self:
        """Read the values of each name; raises `ValidationFailed` naming every fault."""
        lists = {name for name, item in cls.model_fields.items() if get_origin(item.annotation) is list}
        raw = {name: list(values) if name in lists else values[-1] for name, values in given.items()}
        repeated = [
            {"field": name, "message": "must be given once", "code": "repeated"}
            for name, values in given.items()
            if len(values) > 1 and name not in lists
        ]
        try:
            asked = cls.parse(raw)
        except ValidationFailed as failed:
            raise (ValidationFailed(failed.message, [*failed.details, *repeated]) if repeated else failed) from None
        if repeated:
            raise ValidationFailed("a name was given more than once", repeated)
        return asked


def _backwards(raw: dict[str, Any], first: str, last: str) -> Iterator[InitErrorDetails]:
    """Yield the fault of a span that ends before it begins; what is no instant is named elsewhere."""
    try:
        low, high = _instant(raw.get(first)), _instant(raw.get(last))
    except PydanticCustomError:
        return
    if isinstance(low, int) and isinstance(high, int) and low > high:
        fault = PydanticCustomError("backwards", f"must not be later than {last}")
        yield InitErrorDetails(type=fault, loc=(first,), input=None)


class EventsQuestion(Question):
    """Events of a session, in the order they were committed; `from` is part of the span, `to` is not."""

    type: list[EventType] = Field(
        default_factory=list, description="Only events of this type; may be given several times."
    )
    since: Instant | None = Field(default=None, alias="from", description=f"Only events from this instant on{_FORMS}")
    until: Instant | None = Field(default=None, alias="to", description=f"Only events before this instant{_FORMS}")
    limit: Annotated[int, Field(ge=1, le=1000), Whole] = Field(default=100, description="Most events of a page.")
    cursor: Annotated[str, _cursor(_OF_EVENTS), Field(json_schema_extra={"pattern": _OF_EVENTS})] | None = Field(
        default=None, description=_CURSOR
    )

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield a span that ends before it begins."""
        yield from _backwards(raw, "from", "to")

    @property
    def after(self) -> tuple[int, int]:
        """(epoch, version) to go on after."""
        epoch, version = map(int, (self.cursor or "0-0").split("-"))
        return epoch, version


class AtQuestion(Question):
    """An instant, or a version of an epoch (the newest, if none is given)."""

    time: Instant | None = Field(default=None, description=f"The instant; give this or `version`{_FORMS}")
    version: Number | None = Field(default=None, description="The version; give this or `time`.")
    epoch: Number | None = Field(default=None, description="The epoch of `version`; the newest without one.")

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield what does not go together."""
        if ("time" in raw) == ("version" in raw):
            fault = PydanticCustomError("one_of", "give either time or version")
            yield InitErrorDetails(type=fault, loc=("time",), input=None)
        if "epoch" in raw and "version" not in raw:
            fault = PydanticCustomError("needs_version", "goes with version only")
            yield InitErrorDetails(type=fault, loc=("epoch",), input=None)


class HistoryQuestion(Question):
    """Sessions, the last changed first; each span includes its `from` and not its `to`."""

    status: list[Status] = Field(default_factory=list, description="Only of this status; may be given several times.")
    mode: list[Mode] = Field(default_factory=list, description="Only of this mode; may be given several times.")
    created_from: Instant | None = Field(default=None, description=f"Only created from this instant on{_FORMS}")
    created_to: Instant | None = Field(default=None, description=f"Only created before this instant{_FORMS}")
    updated_from: Instant | None = Field(default=None, description=f"Only changed last from this instant on{_FORMS}")
    updated_to: Instant | None = Field(default=None, description=f"Only changed last before this instant{_FORMS}")
    limit: Annotated[int, Field(ge=1, le=1000), Whole] = Field(default=100, description="Most sessions of a page.")
    cursor: Annotated[str, _cursor(_OF_SESSIONS), Field(json_schema_extra={"pattern": _OF_SESSIONS})] | None = Field(
        default=None, description=_CURSOR
    )

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield spans that end before they begin."""
        yield from _backwards(raw, "created_from", "created_to")
        yield from _backwards(raw, "updated_from", "updated_to")

    @property
    def before(self) -> tuple[int, str] | None:
        """(instant in ms, session id) to go on before."""
        if self.cursor is None:
            return None
        at, _, session_id = self.cursor.partition("_")
        return int(at), session_id


class ExportQuestion(Question):
    """The form of an export."""

    format: Literal["json", "ndjson", "csv"] = Field(
        default="json", description="One document, a line each, or a table."
    )
