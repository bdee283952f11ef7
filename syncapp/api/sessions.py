"""`/v1/sessions`: create, read and command sessions (DESIGN §7)."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, current_app

from syncapp.api import requests, responses
from syncapp.api.schema import (
    CommandAnswer,
    CommandHeaders,
    CreateHeaders,
    ErrorAnswer,
    ReadHeaders,
    StateAnswer,
    answers,
    documented,
)
from syncapp.commands import Result
from syncapp.errors import Conflict, PreconditionFailed
from syncapp.models import Adjust, Cancel, CommandBody, CreateSession, Start, Switch, Update, session_id
from syncapp.sessions import SessionStore

blueprint = Blueprint("sessions", __name__, url_prefix="/v1/sessions")

COMMAND = answers(
    HTTP_200=CommandAnswer,
    HTTP_404=ErrorAnswer,
    HTTP_409=ErrorAnswer,
    HTTP_412=ErrorAnswer,
    HTTP_413=ErrorAnswer,
    HTTP_415=ErrorAnswer,
    HTTP_422=ErrorAnswer,
)


def store() -> SessionStore:
    """Return the application's store."""
    found: SessionStore = current_app.extensions["syncapp"].store
    return found


def command(name: str, session: str, asked: CommandBody, **arguments: Any) -> Result:
    """Call one command of the store as this request claims."""
    try:
        result: Result = getattr(store(), name)(session_id(session), claim=requests.claim(asked), **arguments)
    except Conflict as conflict:
        if requests.claims_by_header():
            raise PreconditionFailed(conflict.message, conflict.details) from None
        raise
    return result


@blueprint.post("")
@documented(
    json=CreateSession,
    headers=CreateHeaders,
    resp=answers(
        HTTP_201=CommandAnswer,
        HTTP_409=ErrorAnswer,
        HTTP_413=ErrorAnswer,
        HTTP_415=ErrorAnswer,
        HTTP_422=ErrorAnswer,
    ),
    tags=["sessions"],
)
def create() -> Response:
    """Create a session."""
    result = store().create(CreateSession.parse(requests.body()), requests.claim())
    return responses.result(result, 201, {"Location": f"/v1/sessions/{result.found.session_id}"})


@blueprint.get("/<session>")
@documented(
    headers=ReadHeaders,
    resp=answers(HTTP_200=StateAnswer, HTTP_304=None, HTTP_404=ErrorAnswer),
    tags=["sessions"],
)
def read(session: str) -> Response:
    """Return a session as it is now."""
    result = store().get(session_id(session))
    if requests.is_current(result.found.etag):
        return responses.empty({"ETag": result.found.etag}, 304)
    return responses.result(result)


@blueprint.post("/<session>/start")
@documented(json=Start, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def start(session: str) -> Response:
    """Start the clock of a pending session."""
    asked = Start.parse(requests.body())
    return responses.result(command("start", session, asked, participant_id=asked.participant_id))


@blueprint.post("/<session>/switch")
@documented(json=Switch, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def switch(session: str) -> Response:
    """End the active participant's cycle and hand the turn on."""
    asked = Switch.parse(requests.body())
    arguments = {"participant_id": asked.participant_id, "next_participant_id": asked.next_participant_id}
    return responses.result(command("switch", session, asked, **arguments))


@blueprint.post("/<session>/pause")
@documented(json=CommandBody, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def pause(session: str) -> Response:
    """Stop the clock."""
    return responses.result(command("pause", session, CommandBody.parse(requests.body())))


@blueprint.post("/<session>/resume")
@documented(json=CommandBody, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def resume(session: str) -> Response:
    """Go on with the cycle that was paused."""
    return responses.result(command("resume", session, CommandBody.parse(requests.body())))


@blueprint.post("/<session>/adjust")
@documented(json=Adjust, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def adjust(session: str) -> Response:
    """Change what is left of one budget."""
    asked = Adjust.parse(requests.body())
    arguments = asked.model_dump(exclude={"expected_version", "expected_epoch"})
    return responses.result(command("adjust", session, asked, **arguments))


@blueprint.post("/<session>/complete")
@documented(json=CommandBody, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def complete(session: str) -> Response:
    """End a session as intended."""
    return responses.result(command("complete", session, CommandBody.parse(requests.body())))


@blueprint.post("/<session>/cancel")
@documented(json=Cancel, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def cancel(session: str) -> Response:
    """Call a session off."""
    asked = Cancel.parse(requests.body())
    return responses.result(command("cancel", session, asked, reason=asked.reason))


@blueprint.patch("/<session>")
@documented(json=Update, headers=CommandHeaders, resp=COMMAND, tags=["sessions"])
def update(session: str) -> Response:
    """Merge a patch (RFC 7396) into the metadata."""
    asked = Update.parse(requests.body())
    return responses.result(command("update", session, asked, patch=asked.metadata))


@blueprint.delete("/<session>")
@documented(
    headers=CommandHeaders,
    resp=answers(HTTP_204=None, HTTP_409=ErrorAnswer, HTTP_412=ErrorAnswer, HTTP_422=ErrorAnswer),
    tags=["sessions"],
)
def delete(session: str) -> Response:
    """Remove a session; one that is not there is removed already."""
    result = command("delete", session, CommandBody.parse(requests.body()))
    return responses.empty({"Idempotency-Replayed": "true"} if result.replayed else {})
