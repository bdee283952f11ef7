"""What each route does, in the words of `syncapp.access.permissions.ACTIONS`, and the table of who may do what.

A route without a row here is open to every token, so a test fails for it (tests/api/test_permissions.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flask import Flask

from syncapp.access.permissions import ACTIONS, Action, Reach
from syncapp.api.pages import SESSION_PAGES
from syncapp.domain.commands import COMMANDS

EACH_COMMAND = "each command"
"""The action of a batch: that of its command, checked for each session."""
ROUTE_ACTIONS: Mapping[str, str] = {
    "sessions.create": "create",
    "sessions.read": "read",
    "sessions.start": "start",
    "sessions.switch": "switch",
    "sessions.pause": "pause",
    "sessions.resume": "resume",
    "sessions.adjust": "adjust",
    "sessions.takeback": "takeback",
    "sessions.reopen": "reopen",
    "sessions.complete": "complete",
    "sessions.cancel": "cancel",
    "sessions.update": "update",
    "sessions.delete": "delete",
    "listing.list_sessions": "list",
    "batches.batch": EACH_COMMAND,
    "texts.text": "read",
    "streams.stream": "watch",
    "links.create_link": "create_link",
    "links.list_links": "list_links",
    "links.revoke_link": "revoke_link",
    "links.revoke_links": "revoke_link",
    "history.events": "events",
    "history.at": "at",
    "history.statistics": "statistics",
    "history.export": "export",
    "history.sessions": "history",
    "system.audit_queue": "audit_queue",
    "system.audit_verification": "audit_verification",
    "system.show_metrics": "metrics",
}
"""The action of each route that needs a token, by endpoint."""
OPEN = frozenset({
    "system.health",
    "system.time",
    "system.api_document",
    "asyncapi.asyncapi",
    "swagger_ui.show",
    "pages.home",
    "pages.console",
    "pages.watch",
    *(f"pages.{name}" for name in SESSION_PAGES),
    "pages.file",
    "pages.sdk",
    "ws",  # checks tokens itself, because a token may come in a message
    "ws_plain",
})  # fmt: skip
"""Endpoints that need no token."""
OPEN_IN_PART = frozenset({"system.ready"})
"""Endpoints that need no token, and say more to one that is allowed more. A bad token is the same as none."""
TOKEN_IN_QUERY = frozenset({"streams.stream", "history.export"})
"""Endpoints that accept `?token=`, because a page opens them without being able to set headers."""
_REACHES = {
    Reach.SESSION: "one session",
    Reach.TENANT: "the tenant's sessions",
    Reach.SERVICE: "the service",
}


def action_of(endpoint: str | None) -> Action | None:
    """Return the action of a route; None if it needs no scope, or different ones."""
    return ACTIONS.get(ROUTE_ACTIONS.get(endpoint or "", ""))


def permissions_table(app: Flask) -> str:
    """Return the Markdown table of who may do what, made from the routes and the actions."""
    lines = ["| request | needs the scope | concerns | possible with a link |", "| --- | --- | --- | --- |"]
    return "\n".join([*lines, *(row for _, row in sorted(_rest_rows(app))), *_message_rows()])


def _rest_rows(app: Flask) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield a row for each path and method, after what the rows are sorted by."""
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<session>", "{id}").replace("<jti>", "{jti}").replace("<path:path>", "…")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            if rule.endpoint not in ("ws", "ws_plain"):
                yield (path, method), _row(f"`{method} {path}`", rule.endpoint)


def _row(request: str, endpoint: str) -> str:
    name = ROUTE_ACTIONS.get(endpoint)
    if name == EACH_COMMAND:
        return f"| {request} | that of the command | each session by itself | yes |"
    if endpoint in OPEN_IN_PART:
        return f"| {request} | none; for details `admin`, or `METRICS_TOKEN` | {_REACHES[Reach.SERVICE]} | yes |"
    return _cells(request, ACTIONS[name]) if name else f"| {request} | none, and no token | | yes |"


def _message_rows() -> Iterator[str]:
    yield _cells("WebSocket: watch a session, `SUBSCRIBE`", ACTIONS["watch"])
    for name in COMMANDS:
        yield _cells(f"WebSocket: `COMMAND` with `{name}`", ACTIONS[name])


def _cells(request: str, action: Action) -> str:
    scope = f"`{action.scope}`"
    if action.reach is Reach.SERVICE:
        scope += ", or `METRICS_TOKEN`"
    return f"| {request} | {scope} | {_REACHES[action.reach]} | {'yes' if action.by_link else 'no'} |"
