"""The query of `GET /v1/sessions`, and whether a session matches it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema

from syncapp.domain.field_types import ParticipantId
from syncapp.domain.modes import Mode
from syncapp.domain.query import CURSOR, PLUS, SEVERAL, Query, SessionsCursor
from syncapp.domain.query_values import Whole, members

_MEMBER = "metadata."
_NUMBER = re.compile(r"-?\d{1,400}(\.\d{1,400})?([eE][+-]?\d{1,3})?\Z", re.ASCII)


class SessionsQuery(Query):
    """Sessions that the store holds, the newest first.

    `metadata.<key>=<value>`, up to eight times, asks for sessions whose metadata has this member: a string, or a number
    or boolean as JSON writes it. Whole numbers are compared exactly, other numbers as doubles.
    """

    status: list[Literal["pending", "running", "paused", "completed", "expired", "cancelled"]] = Field(
        default_factory=list, description=SEVERAL.format("statuses")
    )
    sync_mode: list[Mode] = Field(default_factory=list, description=SEVERAL.format("modes"))
    participant_id: ParticipantId | None = Field(default=None, description=f"Only with this participant.{PLUS}")
    limit: Annotated[int, Field(ge=1, le=100), Whole] = Field(default=50, description="Most sessions of a page.")
    cursor: SessionsCursor | None = Field(default=None, description=CURSOR)
    # OpenAPI has no form for parameters with free names.
    metadata: SkipJsonSchema[Annotated[dict[str, str], BeforeValidator(members)]] = Field(default_factory=dict)

    @classmethod
    def from_args(cls, given: Mapping[str, Sequence[str]]) -> Self:
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
