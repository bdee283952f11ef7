"""What clients may ask for by a query string, and every fault of it at once; instants are in ms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Self, get_origin

from pydantic import BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from syncapp.clock_text import Format
from syncapp.errors import ValidationFailed
from syncapp.fields import UUID_PATTERN, Mode, ParticipantId
from syncapp.query_values import Instant, Number, Whole, cursor_of, instant, members
from syncapp.validation import Request, refused

_MEMBER = "metadata."
_NUMBER = re.compile(r"-?\d{1,400}(\.\d{1,400})?([eE][+-]?\d{1,3})?\Z", re.ASCII)
_OF_EVENTS = r"^[0-9]{1,15}-[0-9]{1,15}$"
_OF_SESSIONS = r"^[0-9]{1,14}_" + UUID_PATTERN.removeprefix("^")
_FORMS = ": ISO 8601 with an offset, or ms since 1970."
_SEVERAL = "Only these {}; repeat it, or separate values by commas."
_PLUS = " In a URL, `+` is written as `%2B`."
_CURSOR = "`next_cursor` of the page before, which this one follows."
EventType = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
Status = Literal["pending", "running", "paused", "completed", "expired", "cancelled", "deleted"]


class Question(Request):
    """A query string; a name that may stand more than once has a list."""

    @classmethod
    def ask(cls, given: Mapping[str, Sequence[str]]) -> Self:
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


def _backwards(raw: dict[str, Any], first: str, last: str) -> Iterator[InitErrorDetails]:
    """Yield the fault of a span that ends before it begins; what is no instant is named elsewhere."""
    try:
        low, high = instant(raw.get(first)), instant(raw.get(last))
    except PydanticCustomError:
        return
    if isinstance(low, int) and isinstance(high, int) and low > high:
        fault = PydanticCustomError("backwards", f"must not be later than {last}")
        yield InitErrorDetails(type=fault, loc=(first,), input=None)


class EventsQuestion(Question):
    """Events of a session, in the order they were committed; `from` is part of the span, `to` is not."""

    type: list[EventType] = Field(default_factory=list, description=_SEVERAL.format("types of events"))
    since: Instant | None = Field(default=None, alias="from", description=f"Only events from this instant on{_FORMS}")
    until: Instant | None = Field(default=None, alias="to", description=f"Only events before this instant{_FORMS}")
    limit: Annotated[int, Field(ge=1, le=1000), Whole] = Field(default=100, description="Most events of a page.")
    cursor: Annotated[str, cursor_of(_OF_EVENTS), Field(json_schema_extra={"pattern": _OF_EVENTS})] | None = Field(
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

    status: list[Status] = Field(default_factory=list, description=_SEVERAL.format("statuses"))
    sync_mode: list[Mode] = Field(default_factory=list, description=_SEVERAL.format("modes"))
    created_from: Instant | None = Field(default=None, description=f"Only created from this instant on{_FORMS}")
    created_to: Instant | None = Field(default=None, description=f"Only created before this instant{_FORMS}")
    updated_from: Instant | None = Field(default=None, description=f"Only changed last from this instant on{_FORMS}")
    updated_to: Instant | None = Field(default=None, description=f"Only changed last before this instant{_FORMS}")
    limit: Annotated[int, Field(ge=1, le=1000), Whole] = Field(default=100, description="Most sessions of a page.")
    cursor: Annotated[str, cursor_of(_OF_SESSIONS), Field(json_schema_extra={"pattern": _OF_SESSIONS})] | None = Field(
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


class SessionsQuestion(Question):
    """Sessions that the store holds, the newest first.

    `metadata.<key>=<value>`, up to eight times, asks for sessions whose metadata has this member: a string, or a number
    or boolean as JSON writes it. Whole numbers are compared exactly, other numbers as doubles.
    """

    status: list[Literal["pending", "running", "paused", "completed", "expired", "cancelled"]] = Field(
        default_factory=list, description=_SEVERAL.format("statuses")
    )
    sync_mode: list[Mode] = Field(default_factory=list, description=_SEVERAL.format("modes"))
    participant_id: ParticipantId | None = Field(default=None, description=f"Only with this participant.{_PLUS}")
    limit: Annotated[int, Field(ge=1, le=100), Whole] = Field(default=50, description="Most sessions of a page.")
    cursor: Annotated[str, cursor_of(_OF_SESSIONS), Field(json_schema_extra={"pattern": _OF_SESSIONS})] | None = Field(
        default=None, description=_CURSOR
    )
    # OpenAPI has no form for parameters with free names.
    metadata: SkipJsonSchema[Annotated[dict[str, str], BeforeValidator(members)]] = Field(default_factory=dict)

    @classmethod
    def ask(cls, given: Mapping[str, Sequence[str]]) -> Self:
        """Read the values of each name; raises `ValidationFailed` naming every fault."""
        members = {name.partition(".")[2]: values for name, values in given.items() if name.startswith(_MEMBER)}
        raw: dict[str, Any] = {name: values for name, values in given.items() if not name.startswith(_MEMBER)}
        return cls._read(raw, {"metadata": members} if members else {})

    @property
    def filters(self) -> bool:
        """Whether any session may not fit."""
        return bool(self.status or self.sync_mode or self.participant_id or self.metadata)

    @property
    def before(self) -> tuple[int, str] | None:
        """(created, in ms; session id) to go on before."""
        if self.cursor is None:
            return None
        at, _, session_id = self.cursor.partition("_")
        return int(at), session_id.lower()

    def fits(self, status: str | None, sync_mode: str, metadata: Mapping[str, Any]) -> bool:
        """Tell whether a session is asked for, its participants apart; status: None if it is not known."""
        return (
            (status is None or not self.status or status in self.status)
            and (not self.sync_mode or sync_mode in self.sync_mode)
            and all(name in metadata and _is_written(metadata[name], text) for name, text in self.metadata.items())
        )


def _is_written(value: Any, text: str) -> bool:
    """Tell whether a query string writes a string, number or boolean like this."""
    if isinstance(value, str):
        return value == text
    if isinstance(value, bool):
        return text == ("true" if value else "false")
    if not isinstance(value, int | float) or not _NUMBER.match(text):
        return False
    # Neither a long whole number nor what it is asked as may be rounded: ids differ in their last digits.
    return value == (Decimal(text) if isinstance(value, int) else float(text))


class TextQuestion(Question):
    """A clock as text: the running one, or that of a participant or group, in a format."""

    format: Format = Field(default="mm:ss", description="How the time is written; `.t` is tenths of a second.")
    form: Literal["text", "array"] = Field(
        default="text", alias="as", description="Plain text, or a JSON array of that one text."
    )
    participant_id: ParticipantId | None = Field(
        default=None,
        description="The clock of this participant, or of its group, instead of the one that runs." + _PLUS,
    )
    group_id: ParticipantId | None = Field(
        default=None,
        description="The clock of this group instead of the one that runs; only in `per_group`." + _PLUS,
    )

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield two owners."""
        if "participant_id" in raw and "group_id" in raw:
            fault = PydanticCustomError("contradiction", "cannot be given together with participant_id")
            yield InitErrorDetails(type=fault, loc=("group_id",), input=None)


class ExportQuestion(Question):
    """The form of an export."""

    format: Literal["json", "ndjson", "csv"] = Field(
        default="json", description="One document, a line each, or a table."
    )
