"""What clients send to create a link."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from syncapp.domain.field_types import ParticipantId, without_nul
from syncapp.domain.link_ids import MAX_LIFETIME_S
from syncapp.domain.validation import Request

LINK_SCOPES = ("session:watch", "session:act", "session:control", "history:read")
"""The scopes that a link may have."""
LinkPage = Literal["watch", "play", "stage", "quiz", "auction", "exam"]
"""The pages that a link can open."""
DEFAULT_LIFETIME_S = 86_400


def _scopes(text: str) -> str:
    given = text.split(" ")
    if not set(given) <= set(LINK_SCOPES):
        raise PydanticCustomError("scope", f"must be some of {', '.join(LINK_SCOPES)}, separated by single spaces")
    return " ".join(scope for scope in LINK_SCOPES if scope in given)


class CreateLink(Request):
    """What a link allows, and for how long."""

    scope: Annotated[
        str,
        AfterValidator(_scopes),
        Field(json_schema_extra={"pattern": r"^[a-z:]+( [a-z:]+)*$"}),
    ] = Field(
        description="What the link allows: some of `session:watch`, `session:act`, `session:control` and "
        "`history:read`, separated by spaces. The caller must have these scopes."
    )
    participant_id: ParticipantId | None = Field(
        default=None,
        description="The participant that the link acts as, and no other; with `session:act` or `session:control`.",
    )
    expires_in_s: Annotated[int, Field(ge=60, le=MAX_LIFETIME_S)] = Field(
        default=DEFAULT_LIFETIME_S, description="Lifetime of the link in s: a minute to 30 days, by default a day."
    )
    page: LinkPage = Field(
        default="watch",
        description="The page that the link opens: `watch` shows any session; `play`, `stage`, `quiz`, `auction` and "
        "`exam` are made for one use. It does not change what the link allows.",
    )
    label: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(without_nul)] | None = Field(
        default=None, description="A name for the list of links; 1 to 100 characters."
    )

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes as a set."""
        return frozenset(self.scope.split(" "))
