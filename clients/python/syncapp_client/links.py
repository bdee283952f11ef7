"""Links: tokens for one session, and the addresses of pages that use them."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict, cast

from syncapp_client.rest import Rest, path_part


class Link(TypedDict):
    """A link; `token` and `url` are in the response that makes it, and nowhere else."""

    jti: str
    scope: str
    participant_id: str | None
    created_at: str
    expires_at: str
    created_by: str
    label: NotRequired[str]
    token: NotRequired[str]
    url: NotRequired[str]


class Links:
    """The links of sessions. All methods raise `SyncAppError`."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    def create(
        self,
        session_id: str,
        scope: str,
        *,
        participant_id: str | None = None,
        expires_in_s: int | None = None,
        label: str | None = None,
    ) -> Link:
        """Create a link, with some of the caller's scopes, separated by spaces.

        It is not tried again after a lost reply, because each request creates a link: `outcome_unknown` is then true.
        """
        given = {"scope": scope, "participant_id": participant_id, "expires_in_s": expires_in_s, "label": label}
        body = {name: value for name, value in given.items() if value is not None}
        return cast("Link", self._rest.request("POST", _path(session_id), body=body).data)

    def list(self, session_id: str) -> list[Link]:
        """Return the links that have neither expired nor been revoked, oldest first."""
        found: Any = self._rest.request("GET", _path(session_id)).data["links"]
        return cast("list[Link]", found)

    def revoke(self, session_id: str, jti: str | None = None) -> None:
        """Revoke a link, or all of the session."""
        path = _path(session_id) + ("" if jti is None else f"/{path_part(jti)}")
        self._rest.request("DELETE", path)


def _path(session_id: str) -> str:
    return f"/v1/sessions/{path_part(session_id)}/links"
