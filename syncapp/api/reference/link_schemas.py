"""Models of the responses about links."""

from __future__ import annotations

from pydantic import Field

from syncapp.api.reference.answer_types import Answer, Data, Instant, absent


class ShownLink(Answer):
    """A link, without its token."""

    jti: str = Field(description="The id of the link, 24 characters.")
    scope: str = Field(description="What the link allows: scopes, separated by spaces.")
    participant_id: str | None = Field(description="The participant that the link acts as; null for all.")
    label: str | None = absent("The name that the link was given.")
    created_at: Instant = Field(description="When the link was created.")
    expires_at: Instant = Field(description="When the link expires.")
    created_by: str = Field(description="The `sub` of the token that created it; empty if that principal was erased.")


class NewLink(ShownLink):
    """A new link with its token, which no other response has."""

    token: str = Field(description="The token, for `Authorization: Bearer`, `?token=` or `AUTH`.")
    url: str = Field(description="The address of the page that uses the link: for a QR code, or to send to somebody.")


class LinkAnswer(Data[NewLink]):
    """A new link."""


class ShownLinks(Answer):
    """The links of a session."""

    links: list[ShownLink] = Field(description="The links, oldest first; at most 1,000.")


class LinksAnswer(Data[ShownLinks]):
    """The links of a session."""
