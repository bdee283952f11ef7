"""Who may do what: the one table of actions, and the checks that REST, WebSockets, streams and batches share.

docs/security.md shows the table; a test compares it, and tries every action with every scope.

What the table leaves open is decided here:

- A token with `participant_id` may not name another participant, in any command, nor everybody in an adjustment. What
  `session:control` allows on the session as a whole stays allowed: pausing, completing, updating, taking cycles back,
  reopening, and adjusting the budget that runs or a group's.
- A token without `participant_id` acts for every participant. Back ends and devices that players share have such ones.
- A token for one session cannot use what concerns the whole tenant: the list of sessions and `/v1/history`. It can
  create its session, if it has the scope, under this id only.
- An error shows the current state of a session only with `session:watch` (`syncapp.store.reply_errors`): otherwise a
  create with its id, or a delete with an old version, would read it.
- In a batch, each session is checked by itself. A refusal is the result of this session only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from syncapp.domain.command_bodies import Adjust, Start, Switch
from syncapp.domain.principal import Principal
from syncapp.domain.schemas import CreateSession
from syncapp.domain.validation import Request
from syncapp.errors import Forbidden
from syncapp.metrics import AUTH_REFUSED

Body = TypeVar("Body", bound=Request)


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
    "create": Action("session:create", by_link=False),
    "read": Action("session:watch"),
    "watch": Action("session:watch"),
    "list": Action("session:watch", Reach.TENANT, by_link=False),
    "start": Action("session:control"),
    "switch": Action("session:act"),
    "pause": Action("session:control"),
    "resume": Action("session:control"),
    "adjust": Action("session:control"),
    "takeback": Action("session:control"),
    "reopen": Action("session:control"),
    "complete": Action("session:control"),
    "cancel": Action("session:control"),
    "update": Action("session:control"),
    "delete": Action("session:delete", by_link=False),
    "erase": Action("session:delete", by_link=False),
    "events": Action("history:read"),
    "at": Action("history:read"),
    "statistics": Action("history:read"),
    "export": Action("history:read"),
    "history": Action("history:read", Reach.TENANT, by_link=False),
    # A link must not make further links, which would outlive it. Links have no other scopes that allow what is not
    # by_link.
    "create_link": Action("session:control", by_link=False),
    "list_links": Action("session:control", by_link=False),
    "revoke_link": Action("session:control", by_link=False),
    "metrics": Action("admin", Reach.SERVICE, by_link=False),
    "audit_queue": Action("admin", Reach.SERVICE, by_link=False),
    "audit_verification": Action("admin", Reach.SERVICE, by_link=False),
    "readiness": Action("admin", Reach.SERVICE, by_link=False),
}
"""Every action by name; commands have the names of `syncapp.domain.commands.COMMANDS`."""
FIELD_SCOPES: Mapping[str, str] = {"next_participant_id": "session:control", "acted_at_ms": "session:time"}
"""Fields of a switch that need a further scope, and which."""


def check(principal: Principal, action: str, session_id: str | None = None) -> None:
    """Raise `Forbidden` unless the principal may do this.

    session_id: the session as clients write it, in lower case; None if the action concerns the whole tenant.
    """
    check_scope(principal, action)
    if principal.session_id is not None and principal.session_id != session_id:
        message = "this token is for one session only, and the request is not about that session"
        raise _refusal(message, {"reason": "session_id"})
    if principal.is_link and not ACTIONS[action].by_link:
        raise _refusal("this token belongs to a link, and links may not do this", {"reason": "link"})


def check_scope(principal: Principal, action: str) -> None:
    """Raise `Forbidden` unless the principal has the scope for this; the session is checked when it is known."""
    needed = ACTIONS[action].scope
    if needed not in principal.scopes:
        raise _refusal(f"this needs the scope {needed}", {"missing_scope": needed})


def is_allowed(principal: Principal, action: str) -> bool:
    """Tell whether a principal may do what concerns no single session."""
    return ACTIONS[action].scope in principal.scopes and principal.session_id is None


def narrowed(principal: Principal, command: str, body: Body) -> Body:
    """Return a command's body as the principal may send it.

    A token for one participant acts as this one: a `switch` then names it, and succeeds only in its turn. Raises
    `Forbidden` if the body names another one, if it has a field whose scope (`FIELD_SCOPES`) is missing, or if it
    creates another session than the token's.
    """
    asked: Request = body
    if isinstance(asked, CreateSession) and principal.session_id is not None:
        if asked.session_id is None:
            message = "this token may create one session only: send its id as session_id"
            raise _refusal(message, {"reason": "session_id"})
        check(principal, command, asked.session_id)
    if not isinstance(asked, Switch | Start | Adjust):
        return body
    if isinstance(asked, Switch):
        _check_fields(principal, asked)
    own = principal.participant_id
    if own is None:
        return body
    if _names_others(asked, own):
        message = "this token acts as one participant only, and the request names another"
        raise _refusal(message, {"reason": "participant_id"})
    return body.model_copy(update={"participant_id": own}) if command == "switch" else body


def _check_fields(principal: Principal, asked: Switch) -> None:
    """Raise `Forbidden` if a switch has a field whose scope the principal does not have."""
    for field, scope in FIELD_SCOPES.items():
        if getattr(asked, field) is not None and scope not in principal.scopes:
            message = f"{field} needs the scope {scope}: session:act alone does not allow it"
            raise _refusal(message, {"missing_scope": scope})


def _names_others(asked: Switch | Start | Adjust, own: str) -> bool:
    """Return whether a command names a participant other than `own`."""
    if isinstance(asked, Adjust) and asked.targets is not None:
        return set(asked.targets) != {own}  # as it does from `all`
    return asked.participant_id not in (None, own)


def _refusal(message: str, details: dict[str, str]) -> Forbidden:
    """Count a refusal and return its error."""
    AUTH_REFUSED.labels("missing_scope" if "missing_scope" in details else details["reason"]).inc()
    return Forbidden(message, details)
