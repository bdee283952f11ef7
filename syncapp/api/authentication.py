"""Who is calling: reads and verifies the token of a request, before looking at anything else in it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from flask import Request, g
from werkzeug.exceptions import NotFound

from syncapp.access.bearer import bearer_token
from syncapp.access.permissions import Reach
from syncapp.api.route_actions import OPEN, OPEN_IN_PART, TOKEN_IN_QUERY, action_of
from syncapp.domain.principal import NOBODY, Principal
from syncapp.errors import SyncError, Unauthorized
from syncapp.metrics import AUTH_REFUSED

if TYPE_CHECKING:
    from syncapp import Services

OPERATOR = Principal(scopes=frozenset({"admin"}))
"""Who has `METRICS_TOKEN`; it is accepted for the actions that concern the service, and for nothing else."""
_NEEDED = "this needs a token: send the header Authorization: Bearer <token>"
_NOT_BEARER = "the header Authorization must be: Bearer <token>"


def authenticate(this: Request, services: Services) -> Principal:
    """Set the request's principal, with `AUTH=required`, and return it.

    Unknown paths are answered as before, and routes that need no token are open. Raises `Unauthorized`, and
    `ValidationFailed` for two tokens.
    """
    current = g._get_current_object()  # each access through the proxy would search for the context
    current.principal = NOBODY
    endpoint = this.endpoint
    if endpoint in OPEN or this.method == "OPTIONS" or isinstance(this.routing_exception, NotFound):
        return NOBODY
    if endpoint in OPEN_IN_PART:
        with suppress(SyncError):
            current.principal = _principal(this, services)
        found: Principal = current.principal
        return found
    try:
        found = current.principal = _principal(this, services)
    except Unauthorized as refusal:
        AUTH_REFUSED.labels(refusal.details["reason"]).inc()
        raise
    return found


def _principal(this: Request, services: Services) -> Principal:
    endpoint = this.endpoint
    in_query = this.args.getlist("token") if endpoint in TOKEN_IN_QUERY else ()
    header = this.environ.get("HTTP_AUTHORIZATION")
    token = bearer_token(header, in_query)
    if token is None:
        raise Unauthorized(_NOT_BEARER if header else _NEEDED, {"reason": "missing_token"})
    action = action_of(endpoint)
    concerns_service = endpoint in OPEN_IN_PART or (action is not None and action.reach is Reach.SERVICE)
    if concerns_service and services.authenticator.is_metrics_token(token):
        return OPERATOR
    return services.authenticator.principal(token)
