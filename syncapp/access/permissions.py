"""Who may do what: the one table of actions, and the checks that REST, WebSockets, streams and batches share.

docs/security.md shows the table; a test compares it, and tries every action with every scope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from syncapp.domain.principal import Principal
from syncapp.domain.schemas import Adjust, Start, Switch
from syncapp.domain.validation import Request
from syncapp.errors import Forbidden


class Reach(StrEnum):
    """What an action concerns."""

    SESSION = "session"  # one session: a token for one session must be for this one
    TENANT = "tenant"  # sessions of the tenant: not with a token for one session
    SERVICE = "service"  # the whole service: also with METRICS_TOKEN


@dataclass(frozen=True, slots=True)
class Action:
    """What may be done: the scope that it needs, what it concerns, and whether a link's token may do it."""

    scope: str
    reach: Reach = Reach.SESSION
    by_link: bool = True


ACTIONS: Mapping[str, Action] = {
    "create": Action("session:create"),
    "read": Action("session:watch"),
    "watch": Action("session:watch"),
    "list": Action("session:watch", Reach.TENANT),
    "start": Action("session:control"),
    "switch": Action("session:act"),
    "pause": Action("session:control"),
    "resume": Action("session:control"),
    "adjust": Action("session:control"),
    "complete": Action("session:control"),
    "cancel": Action("session:control"),
    "update": Action("session:control"),
    "delete": Action("session:delete"),
    "erase": Action("session:delete"),
    "events": Action("history:read"),
    "at": Action("history:read"),
    "statistics": Action("history:read"),
    "export": Action("history:read"),
    "history": Action("history:read", Reach.TENANT),
    # A link must not make further links, which would outlive it.
    "create_link": Action("session:control", by_link=False),
    "list_links": Action("session:control", by_link=False),
    "revoke_link": Action("session:control", by_link=False),
    "metrics": Action("admin", Reach.SERVICE),
    "audit_queue": Action("admin", Reach.SERVICE),
    "readiness": Action("admin", Reach.SERVICE),
}
"""Every action by name; commands have the names of `syncapp.domain.commands.COMMANDS`."""


def check(principal: Principal, action: str, session_id: str | None = None) -> None:
    """Raise `Forbidden` unless the principal may do this.

    session_id: the session as clients write it, in lower case; None if there is none yet, or if the action concerns the
    whole tenant.
    """
    needed = ACTIONS[action]
    if needed.scope not in principal.scopes:
        raise Forbidden(f"this needs the scope {needed.scope}", {"missing_scope": needed.scope})
    if principal.session_id is not None and principal.session_id != session_id:
        raise Forbidden("this token is for one session only, and not for this", {"reason": "session_id"})
    if principal.is_link and not needed.by_link:
        raise Forbidden("this token is a link's, which may not manage links", {"reason": "link"})


def narrowed(principal: Principal, command: str, body: Request) -> Request:
    """Return a command's body as the principal may send it.

    A token for one participant acts as this one: a `switch` then names it, and succeeds only in its turn. Raises
    `Forbidden` if the body names another one, or names who is next without `session:control`.
    """
    if not isinstance(body, Switch | Start | Adjust):
        return body
    if isinstance(body, Switch) and body.next_participant_id is not None and "session:control" not in principal.scopes:
        message = "next_participant_id needs the scope session:control: who acts does not choose who is next"
        raise Forbidden(message, {"missing_scope": "session:control"})
    own = principal.participant_id
    if own is None or body.participant_id == own:
        return body
    if body.participant_id is not None:
        raise Forbidden("this token acts as one participant only, and not as this one", {"reason": "participant_id"})
    return body.model_copy(update={"participant_id": own}) if command == "switch" else body
