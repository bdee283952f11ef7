"""The table of commands: what each takes, and how it is called; REST and WebSockets both go by it."""

from __future__ import annotations

from typing import Any

from syncapp.domain.results import Claim, Result
from syncapp.domain.schemas import Adjust, Cancel, CommandBody, Complete, CreateSession, Start, Switch, Update
from syncapp.domain.validation import Request

COMMANDS: dict[str, type[Request]] = {
    "create": CreateSession,
    "start": Start,
    "switch": Switch,
    "pause": CommandBody,
    "resume": CommandBody,
    "adjust": Adjust,
    "complete": Complete,
    "cancel": Cancel,
    "update": Update,
    "delete": CommandBody,
}
"""By name, which is also the name of the store's method: the model of its arguments."""

_ARGUMENTS = {
    model: tuple(name for name in model.model_fields if name not in CommandBody.model_fields)
    for model in COMMANDS.values()
}


def call(store: Any, command: str, session_id: str, asked: Request, claim: Claim) -> Result:
    """Run a command that was parsed by its model; raises what the method of `SessionStore` raises."""
    if isinstance(asked, CreateSession):
        created: Result = store.create(asked, claim)
        return created
    arguments = {name: getattr(asked, name) for name in _ARGUMENTS[type(asked)]}
    result: Result = getattr(store, command)(session_id, claim=claim, **arguments)
    return result
