"""The query parameters of the history routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import InitErrorDetails, PydanticCustomError

from syncapp.domain.field_types import without_nul
from syncapp.domain.modes import Mode
from syncapp.domain.principal import MAX_SUB
from syncapp.domain.query import CURSOR, IN_QUERY, SEVERAL, Query, SessionsCursor, Status, backwards
from syncapp.domain.query_values import Instant, Number, Whole, cursor_of

_LAST = 10**15 - 1
_EVENTS_CURSOR = r"^[0-9]{1,15}-[0-9]{1,15}$"
_FORMS = ": ISO 8601 with an offset, or ms since 1970."
Principal = Annotated[str, Field(min_length=1, max_length=MAX_SUB), AfterValidator(without_nul)]
EventType = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]


class EventsQuery(Query):
    """Events of a session, by default in the order of their commits; `from` is inclusive, `to` is exclusive."""

    type: list[EventType] = Field(default_factory=list, description=SEVERAL.format("types of events"))
    principal: Principal | None = Field(default=None, description="Only events of this principal's commands.")
    since: Instant | None = Field(
        default=None, alias="from", description=f"Only events at or after this instant{_FORMS}"
    )
    until: Instant | None = Field(default=None, alias="to", description=f"Only events before this instant{_FORMS}")
    order: Literal["oldest_first", "newest_first"] = Field(
        default="oldest_first", description="The order of the events, over all pages."
    )
    limit: Annotated[int, Field(ge=1, le=1000), Whole] = Field(default=100, description="Maximum events per page.")
    cursor: Annotated[str, cursor_of(_EVENTS_CURSOR), Field(json_schema_extra={"pattern": _EVENTS_CURSOR})] | None = (
        Field(default=None, description=CURSOR)
    )

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield an error if the span ends before it begins."""
        yield from backwards(raw, "from", "to")

    @property
    def after(self) -> tuple[int, int]:
        """The (epoch, version) after which the page starts; before which, with `newest_first`."""
        start = "0-0" if self.order == "oldest_first" else f"{_LAST}-{_LAST}"
        epoch, version = map(int, (self.cursor or start).split("-"))
        return epoch, version


class AtQuery(Query):
    """An instant, or a version of an epoch (by default the newest epoch)."""

    time: Instant | None = Field(default=None, description=f"The instant; give either this or `version`{_FORMS}")
    version: Number | None = Field(default=None, description="The version; give either this or `time`.")
    epoch: Number | None = Field(default=None, description="The epoch of `version`; by default the newest.")

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield an error for each invalid combination."""
        if ("time" in raw) == ("version" in raw):
            error = PydanticCustomError("one_of", "give either time or version")
            yield InitErrorDetails(type=error, loc=("time",), input=None)
        if "epoch" in raw and "version" not in raw:
            error = PydanticCustomError("needs_version", "is allowed with version only")
            yield InitErrorDetails(type=error, loc=("epoch",), input=None)


class HistoryQuery(Query):
    """Sessions, the most recently changed first; each `from` is inclusive, each `to` is exclusive."""

    status: list[Status] = Field(default_factory=list, description=SEVERAL.format("statuses"))
    sync_mode: list[Mode] = Field(default_factory=list, description=SEVERAL.format("modes"))
    principal: Principal | None = Field(default=None, description="Only sessions that this principal created.")
    created_from: Instant | None = Field(
        default=None, description=f"Only sessions created at or after this instant{_FORMS}"
    )
    created_to: Instant | None = Field(default=None, description=f"Only sessions created before this instant{_FORMS}")
    updated_from: Instant | None = Field(
        default=None, description=f"Only sessions last changed at or after this instant{_FORMS}"
    )
    updated_to: Instant | None = Field(
        default=None, description=f"Only sessions last changed before this instant{_FORMS}"
    )
    limit: Annotated[int, Field(ge=1, le=1000), Whole] = Field(default=100, description="Maximum sessions per page.")
    cursor: SessionsCursor | None = Field(default=None, description=CURSOR)

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield an error for each span that ends before it begins."""
        yield from backwards(raw, "created_from", "created_to")
        yield from backwards(raw, "updated_from", "updated_to")

    @property
    def before(self) -> tuple[int, str] | None:
        """The (instant in ms, session id) before which the page starts."""
        if self.cursor is None:
            return None
        at, _, session_id = self.cursor.partition("_")
        return int(at), session_id


class ExportQuery(Query):
    """The format of an export."""

    format: Literal["json", "ndjson", "csv"] = Field(
        default="json", description="One JSON document, one line of JSON per event, or a CSV table."
    )
    token: str | None = Field(default=None, description=IN_QUERY)
