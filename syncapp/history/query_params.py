"""The query strings of the history's routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_core import InitErrorDetails, PydanticCustomError

from syncapp.domain.modes import Mode
from syncapp.domain.query import CURSOR, SEVERAL, Query, SessionsCursor, Status, backwards
from syncapp.domain.query_values import Instant, Number, Whole, cursor_of

_OF_EVENTS = r"^[0-9]{1,15}-[0-9]{1,15}$"
_FORMS = ": ISO 8601 with an offset, or ms since 1970."
EventType = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]


class EventsQuery(Query):
    """Events of a session, in the order they were committed; `from` is part of the span, `to` is not."""

    type: list[EventType] = Field(default_factory=list, description=SEVERAL.format("types of events"))
    since: Instant | None = Field(default=None, alias="from", description=f"Only events from this instant on{_FORMS}")
    until: Instant | None = Field(default=None, alias="to", description=f"Only events before this instant{_FORMS}")
    limit: Annotated[int, Field(ge=1, le=1000), Whole] = Field(default=100, description="Most events of a page.")
    cursor: Annotated[str, cursor_of(_OF_EVENTS), Field(json_schema_extra={"pattern": _OF_EVENTS})] | None = Field(
        default=None, description=CURSOR
    )

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield a span that ends before it begins."""
        yield from backwards(raw, "from", "to")

    @property
    def after(self) -> tuple[int, int]:
        """(epoch, version) to go on after."""
        epoch, version = map(int, (self.cursor or "0-0").split("-"))
        return epoch, version


class AtQuery(Query):
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


class HistoryQuery(Query):
    """Sessions, the last changed first; each span includes its `from` and not its `to`."""

    status: list[Status] = Field(default_factory=list, description=SEVERAL.format("statuses"))
    sync_mode: list[Mode] = Field(default_factory=list, description=SEVERAL.format("modes"))
    created_from: Instant | None = Field(default=None, description=f"Only created from this instant on{_FORMS}")
    created_to: Instant | None = Field(default=None, description=f"Only created before this instant{_FORMS}")
    updated_from: Instant | None = Field(default=None, description=f"Only changed last from this instant on{_FORMS}")
    updated_to: Instant | None = Field(default=None, description=f"Only changed last before this instant{_FORMS}")
    limit: Annotated[int, Field(ge=1, le=1000), Whole] = Field(default=100, description="Most sessions of a page.")
    cursor: SessionsCursor | None = Field(default=None, description=CURSOR)

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield spans that end before they begin."""
        yield from backwards(raw, "created_from", "created_to")
        yield from backwards(raw, "updated_from", "updated_to")

    @property
    def before(self) -> tuple[int, str] | None:
        """(instant in ms, session id) to go on before."""
        if self.cursor is None:
            return None
        at, _, session_id = self.cursor.partition("_")
        return int(at), session_id


class ExportQuery(Query):
    """The form of an export."""

    format: Literal["json", "ndjson", "csv"] = Field(
        default="json", description="One document, a line each, or a table."
    )
