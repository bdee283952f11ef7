"""What the OpenAPI document says about tokens, made from the table of actions."""

from __future__ import annotations

from typing import Any

from syncapp.access.permissions import Reach
from syncapp.api.route_actions import EACH_COMMAND, OPEN_IN_PART, ROUTE_ACTIONS, action_of

SCHEMES: dict[str, Any] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A JWT with the claims of docs/security.md. Its `scope` lists scopes, with spaces between them.",
    }
}
"""The security schemes of a server with `AUTH=required`."""
_WITH = "With `AUTH=required`, this needs a token"


def requirement(endpoint: str) -> list[dict[str, list[str]]]:
    """Return the `security` of a route's operation; linters accept no scopes here for tokens of this type."""
    if endpoint in OPEN_IN_PART:
        return [{}, {"bearer": []}]
    return [{"bearer": []}] if endpoint in ROUTE_ACTIONS else []


def sentence(endpoint: str) -> str:
    """Return what the description of a route's operation says about scopes, with a space before it; '' if nothing."""
    action = action_of(endpoint)
    if action is not None:
        also = ", or `METRICS_TOKEN`" if action.reach is Reach.SERVICE else ""
        whole = ", which is not for one session only" if action.reach is Reach.TENANT else ""
        return f" {_WITH} with the scope `{action.scope}`{whole}{also}."
    if ROUTE_ACTIONS.get(endpoint) == EACH_COMMAND:
        return f" {_WITH} with the scope of the command; each session is checked by itself."
    return ""
