"""The query of `GET /v1/sessions`, and the test whether a session matches it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema

from syncapp.domain.field_types import ParticipantId
from syncapp.domain.modes import Mode
from syncapp.domain.query import CURSOR, PLUS, SEVERAL, Query, SessionsCursor
from syncapp.domain.query_values import Whole, members

_MEMBER = "metadata."
_ID_START = r"^[0-9a-fA-F-]{1,36}$"
_NUMBER = re.compile(r"-?\d{1,400}(\.\d{1,400})?([eE][+-]?\d{1,3})?\Z", re.ASCII)


class SessionsQuery(Query):
    """Filters for the sessions in the store, newest first.

    `metadata.<key>=<value>`, up to eight times, selects sessions whose metadata has this member: a string, or a number
    or boolean as written in JSON. Whole numbers are compared exactly, other numbers as doubles.
    """

    status: list[Literal["pending", "running", "paused", "completed", "expired", "cancelled"]] = Field(
        default_factory=list, description=SEVERAL.format("statuses")
    )
    sync_mode: list[Mode] = Field(default_factory=list, description=SEVERAL.format("modes"))
    participant_id: ParticipantId | None = Field(default=None, description=f"Only with this participant.{PLUS}")
    id_prefix: Annotated[str, AfterValidator(str.lower), Field(pattern=_ID_START)] | None = Field(
        default=None, description="Only sessions whose id begins with this: 1 to 36 characters of a UUID."
    )
    limit: Annotated[int, Field(ge=1, le=100), Whole] = Field(default=50, description="Maximum sessions per page.")
    cursor: SessionsCursor | None = Field(default=None, description=CURSOR)
    # OpenAPI cannot describe parameters with arbitrary names.
    metadata: SkipJsonSchema[Annotated[dict[str, str], BeforeValidator(members)]] = Field(default_factory=dict)

    @classmethod
    def from_args(cls, args: Mapping[str, Sequence[str]]) -> Self:
        """Parse the values of all parameters. Raises `ValidationFailed` with all errors."""
        members = {name.partition(".")[2]: values for name, values in args.items() if name.startswith(_MEMBER)}
        raw: dict[str, Any] = {name: values for name, values in args.items() if not name.startswith(_MEMBER)}
        return cls._read(raw, {"metadata": members} if members else {})

    @property
    def filters(self) -> bool:
        """Whether the query filters at all."""
        return bool(self.status or self.sync_mode or self.participant_id or self.id_prefix or self.metadata)

    @property
    def before(self) -> tuple[int, str] | None:
        """The (created in ms, session id) of the last session of the previous page; None for the first page."""
        if self.cursor is None:
            return None
        at, _, session_id = self.cursor.partition("_")
        return int(at), session_id.lower()

    def matches(self, status: str | None, sync_mode: str, metadata: Mapping[str, Any]) -> bool:
        """Return whether a session matches, apart from its participants; status: None if it is not known."""
        return (
            (status is None or not self.status or status in self.status)
            and (not self.sync_mode or sync_mode in self.sync_mode)
            and all(name in metadata and _equals(metadata[name], text) for name, text in self.metadata.items())
        )


def _equals(value: Any, text: str) -> bool:
    """Return whether a string, number or boolean equals a value in a query string."""
    if isinstance(value, str):
        return value == text
    if isinstance(value, bool):
        return text == ("true" if value else "false")
    if not isinstance(value, int | float) or not _NUMBER.match(text):
        return False
    # Long whole numbers must not be rounded on either side, because ids differ in their last digits.
    return value == (Decimal(text) if isinstance(value, int) else float(text))
