"""`/v1/sessions`: create, read and command sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, current_app, request

from syncapp.api import requests, responses
from syncapp.api.etags import ANY
from syncapp.api.reference.parameters import CommandHeaders, CreateHeaders, ReadHeaders, ReadQuery
from syncapp.api.reference.schemas import (
    CommandAnswer,
    ErrorAnswer,
    StateAnswer,
    answers,
    documented,
)
from syncapp.domain import commands
from syncapp.domain.commands import Body, SessionCommand
from syncapp.domain.order import Order
from syncapp.domain.results import Result
from syncapp.domain.schemas import CreateSession, session_id
from syncapp.errors import Conflict, PreconditionFailed
from syncapp.server.admission import only
from syncapp.server.sse import LongPoll
from syncapp.store.sessions import SessionStore

if TYPE_CHECKING:
    from syncapp import Services

blueprint = Blueprint("sessions", __name__, url_prefix="/v1/sessions")

COMMAND = answers(
    HTTP_200=CommandAnswer,
    HTTP_403=ErrorAnswer,
    HTTP_404=ErrorAnswer,
    HTTP_409=ErrorAnswer,
    HTTP_412=ErrorAnswer,
    HTTP_413=ErrorAnswer,
    HTTP_415=ErrorAnswer,
    HTTP_422=ErrorAnswer,
)


def store() -> SessionStore:
    """Return the application's store."""
    return _services().store


def _services() -> Services:
    services: Services = current_app.extensions["syncapp"]
    return services


def run(command: SessionCommand[Body], session: str | None) -> Result:
    """Run a command with this request's body on a session, within the rate limits of the client's address.

    session: None to create one. Raises `PreconditionFailed` for a stale `If-Match`.
    """
    body = command.body.parse(requests.body())
    name = "" if session is None else session_id(session)
    claim, services = requests.claim(body), _services()
    try:
        with services.limits.charge(request.remote_addr or "", command.name, name, body, claim) as charge:
            return charge.settle(command.run(services.store, name, body, claim))
    except Conflict as conflict:
        if requests.claims_by_header():
            raise PreconditionFailed(conflict.message, conflict.details) from None
        raise


@blueprint.post("")
@documented(
    json=CreateSession,
    headers=CreateHeaders,
    resp=answers(
        HTTP_201=CommandAnswer,
        HTTP_403=ErrorAnswer,
        HTTP_409=ErrorAnswer,
        HTTP_413=ErrorAnswer,
        HTTP_415=ErrorAnswer,
        HTTP_422=ErrorAnswer,
    ),
    tags=["sessions"],
)
def create() -> Response:
    """Create a session.

    It stays pending until started. Each example is a whole session. If you leave out `session_id`, the server makes
    one.
    """
    result = run(commands.CREATE, None)
    return responses.result(result, 201, {"Location": f"/v1/sessions/{result.found.session_id}"})


@blueprint.get("/<session>")
@documented(
    query=ReadQuery,
    headers=ReadHeaders,
    resp=answers(HTTP_200=StateAnswer, HTTP_304=None, HTTP_404=ErrorAnswer),
    tags=["sessions"],
)
def read(session: str) -> Response:
    """Return a session as it is now, or wait for another version than the one that the client has.

    The clock is true for `server_time_ms`. With `wait_ms` and `If-None-Match` the answer comes when there is another
    version, or as a 304 when there was none in time.
    """
    only("wait_ms")
    wait_ms = requests.wait_ms()
    known = None if wait_ms is None else requests.known_version()
    if wait_ms and isinstance(known, tuple):
        return wait(session_id(session), known, wait_ms)
    result = store().get(session_id(session))
    if known is None:  # browsers send `If-None-Match` by themselves, and the clock has moved since
        return responses.state(result)
    current = (result.found.epoch, result.found.version)
    if wait_ms:
        return wait(session_id(session), current, wait_ms)
    return responses.empty({"ETag": result.found.etag}, 304) if known in (current, ANY) else responses.state(result)


def wait(session: str, known: Order, wait_ms: int) -> Response:
    """Return the next version, or 304 when there is none in time; the hub tells, Redis is not asked again."""
    services = current_app.extensions["syncapp"]
    guards, poll = services.guards, LongPoll(known)
    guards.draining.check()
    told = guards.watchdog.told(request.environ.get("gunicorn.socket"), poll.leave)
    with guards.quotas.hold(session, request.remote_addr or ""), guards.draining.told(poll.leave), told:
        found = poll.wait(services.hub, session, wait_ms / 1000)
    if found is None:
        return responses.empty({"ETag": f'"{known[0]}-{known[1]}"'}, 304)
    return responses.state(Result(found.session, found.at_ms))


@blueprint.post("/<session>/start")
@documented(json=commands.START.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def start(session: str) -> Response:
    """Start the clock of a pending session.

    `participant_id` begins, or the first in rotation.
    """
    return responses.result(run(commands.START, session))


@blueprint.post("/<session>/switch")
@documented(json=commands.SWITCH.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def switch(session: str) -> Response:
    """End the active participant's cycle and hand the turn on.

    The mover is credited the increment. With `participant_id` a double press of a clock button is harmless.
    """
    return responses.result(run(commands.SWITCH, session))


@blueprint.post("/<session>/pause")
@documented(json=commands.PAUSE.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def pause(session: str) -> Response:
    """Stop the clock.

    What has elapsed is charged; the cycle goes on with `resume`.
    """
    return responses.result(run(commands.PAUSE, session))


@blueprint.post("/<session>/resume")
@documented(json=commands.RESUME.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def resume(session: str) -> Response:
    """Resume the paused cycle.

    The same participant is active, with what was left.
    """
    return responses.result(run(commands.RESUME, session))


@blueprint.post("/<session>/adjust")
@documented(json=commands.ADJUST.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def adjust(session: str) -> Response:
    """Change what is left of one budget.

    Of `participant_id`, of `group_id`, or of what runs or would run. A budget is not taken below zero.
    """
    return responses.result(run(commands.ADJUST, session))


@blueprint.post("/<session>/complete")
@documented(json=commands.COMPLETE.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def complete(session: str) -> Response:
    """Complete a session.

    The session becomes `completed`, which is final, and stays readable for a while.
    """
    return responses.result(run(commands.COMPLETE, session))


@blueprint.post("/<session>/cancel")
@documented(json=commands.CANCEL.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def cancel(session: str) -> Response:
    """Cancel a session.

    The session becomes `cancelled`, which is final, and stays readable for a while.
    """
    return responses.result(run(commands.CANCEL, session))


@blueprint.patch("/<session>")
@documented(json=commands.UPDATE.body, headers=CommandHeaders, resp=COMMAND, tags=["sessions"])
def update(session: str) -> Response:
    """Merge a patch (RFC 7396) into the metadata.

    A member that is null is removed, all others are set. No clock is touched.
    """
    return responses.result(run(commands.UPDATE, session))


@blueprint.delete("/<session>")
@documented(
    json=commands.DELETE.body,
    headers=CommandHeaders,
    resp=answers(
        HTTP_204=None,
        HTTP_403=ErrorAnswer,
        HTTP_409=ErrorAnswer,
        HTTP_412=ErrorAnswer,
        HTTP_413=ErrorAnswer,
        HTTP_415=ErrorAnswer,
        HTTP_422=ErrorAnswer,
    ),
    tags=["sessions"],
)
def delete(session: str) -> Response:
    """Delete a session; deleting one that does not exist succeeds.

    Its clients are told, and its id can be used again. The audit log keeps what it was.
    """
    result = run(commands.DELETE, session)
    return responses.empty({"Idempotency-Replayed": "true"} if result.replayed else {})
