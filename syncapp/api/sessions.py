"""`/v1/sessions`: create, read and command sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, current_app, request

from syncapp.access.permissions import check_scope, narrowed
from syncapp.api import rate_limit_headers, requests, responses
from syncapp.api.etags import ANY
from syncapp.api.reference.parameters import CommandHeaders, CreateHeaders, DeleteQuery, ReadHeaders, ReadQuery
from syncapp.api.reference.schemas import (
    CommandAnswer,
    ErrorAnswer,
    StateAnswer,
    answers,
    documented,
)
from syncapp.domain import commands
from syncapp.domain.commands import Body, SessionCommand
from syncapp.domain.results import Result
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session_ids import public_id
from syncapp.domain.version_order import Order
from syncapp.errors import Conflict, PreconditionFailed
from syncapp.server.admission import only_parameters
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

    session: None to create one. Raises `Forbidden`, and `PreconditionFailed` for a stale `If-Match`.
    """
    caller, name = requests.principal(), ""
    if session is None:
        check_scope(caller, command.name)
    else:
        name = requests.permitted(command.name, session)
    body = narrowed(caller, command.name, command.body.parse(requests.body()))
    claim, services = requests.claim(body), _services()
    try:
        with services.limits.charge(request.remote_addr or "", command.name, name, body, claim) as charge:
            return charge.settle(command.run(services.store, name, body, charge.claim))
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

    The session is `pending` until it is started. Each example is a complete body. Without `session_id`, the server
    generates an id.
    """
    result = run(commands.CREATE, None)
    return responses.result(result, 201, {"Location": f"/v1/sessions/{public_id(result.found.session_id)}"})


@blueprint.get("/<session>")
@documented(
    query=ReadQuery,
    headers=ReadHeaders,
    resp=answers(HTTP_200=StateAnswer, HTTP_304=None, HTTP_404=ErrorAnswer),
    tags=["sessions"],
)
def read(session: str) -> Response:
    """Return the current state of a session, or wait for a version other than the one that the client has.

    The clock is as of `server_time_ms`. With `wait_ms` and `If-None-Match`, the response comes as soon as there is
    another version; if there is none within `wait_ms`, the status is 304.
    """
    name = requests.permitted("read", session)
    only_parameters("wait_ms")
    wait_ms = requests.wait_ms()
    known = None if wait_ms is None else requests.known_version()
    if wait_ms and isinstance(known, tuple):
        return wait(name, known, wait_ms)
    result = store().get(name, requests.principal())
    if known is None:  # browsers send `If-None-Match` by themselves, but the clock has moved since
        return responses.state(result)
    current = (result.found.epoch, result.found.version)
    if wait_ms:
        return wait(name, current, wait_ms)
    return responses.empty({"ETag": result.found.etag}, 304) if known in (current, ANY) else responses.state(result)


def wait(session: str, known: Order, wait_ms: int) -> Response:
    """Return the next version, or 304 if there is none in time. The hub notices it, without reads of the store."""
    services = current_app.extensions["syncapp"]
    guards, poll = services.guards, LongPoll(known, services.gate.granted(requests.principal()))
    guards.shutdown.check()
    disconnect = guards.watchdog.notify_disconnect(request.environ.get("gunicorn.socket"), poll.stop)
    with guards.quotas.hold(session, request.remote_addr or ""), guards.shutdown.notify(poll), disconnect:
        found = poll.wait(services.hub, session, wait_ms / 1000)
    if found is None:
        return responses.empty({"ETag": f'"{known[0]}-{known[1]}"'}, 304)
    return responses.state(Result(found.session, found.at_ms))


@blueprint.post("/<session>/start")
@documented(json=commands.START.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def start(session: str) -> Response:
    """Start the clock of a pending session.

    The first participant in rotation begins, unless `participant_id` names another one.
    """
    return responses.result(run(commands.START, session))


@blueprint.post("/<session>/switch")
@documented(json=commands.SWITCH.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def switch(session: str) -> Response:
    """End the active participant's cycle and pass the turn on.

    The participant that ends the cycle is credited the increment. If `participant_id` names that participant, pressing
    a clock button twice switches only once.
    """
    return responses.result(run(commands.SWITCH, session))


@blueprint.post("/<session>/pause")
@documented(json=commands.PAUSE.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def pause(session: str) -> Response:
    """Stop the clock.

    Elapsed time is charged; `resume` continues the cycle.
    """
    return responses.result(run(commands.PAUSE, session))


@blueprint.post("/<session>/resume")
@documented(json=commands.RESUME.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def resume(session: str) -> Response:
    """Resume the paused cycle.

    The same participant is active, with the same remaining time.
    """
    return responses.result(run(commands.RESUME, session))


@blueprint.post("/<session>/adjust")
@documented(json=commands.ADJUST.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def adjust(session: str) -> Response:
    """Change the remaining time of one or more budgets, in one commit.

    The budgets are those of `targets`, or the one of `participant_id` or `group_id`; by default, the one that runs or
    would run. An adjustment takes no budget below zero. With a time control, it can also change the stage, the periods
    or the block.
    """
    return responses.result(run(commands.ADJUST, session))


@blueprint.post("/<session>/takeback")
@documented(json=commands.TAKEBACK.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def takeback(session: str) -> Response:
    """Take back the last cycles.

    Turn, clocks, increments and stages become as they were when the first of them began; the time since then is charged
    to nobody. A clock that runs runs on. Only in a session that was created with `takeback_cycles`.
    """
    return responses.result(run(commands.TAKEBACK, session))


@blueprint.post("/<session>/reopen")
@documented(json=commands.REOPEN.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def reopen(session: str) -> Response:
    """Reopen a session that ended by mistake.

    The session becomes `paused`, or `pending` if it was never started, with the clocks as they were at its end.
    """
    return responses.result(run(commands.REOPEN, session))


@blueprint.post("/<session>/complete")
@documented(json=commands.COMPLETE.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def complete(session: str) -> Response:
    """Complete a session.

    The session becomes `completed`, and stays readable for a while. Only `reopen` can undo that.
    """
    return responses.result(run(commands.COMPLETE, session))


@blueprint.post("/<session>/cancel")
@documented(json=commands.CANCEL.body, headers=CommandHeaders, resp=COMMAND, tags=["commands"])
def cancel(session: str) -> Response:
    """Cancel a session.

    The session becomes `cancelled`, and stays readable for a while. Only `reopen` can undo that.
    """
    return responses.result(run(commands.CANCEL, session))


@blueprint.patch("/<session>")
@documented(json=commands.UPDATE.body, headers=CommandHeaders, resp=COMMAND, tags=["sessions"])
def update(session: str) -> Response:
    """Merge a patch (RFC 7396) into the metadata.

    Members that are null are removed, all others are set. Clocks are not affected.
    """
    return responses.result(run(commands.UPDATE, session))


@blueprint.delete("/<session>")
@documented(
    json=commands.DELETE.body,
    query=DeleteQuery,
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

    Its clients are notified, and its id can be used again. Its history stays in the audit log; `erase` removes what may
    be personal data from there.
    """
    name = requests.permitted("delete", session)  # before the query: who may not delete learns nothing of it
    erases = requests.erases()
    result = run(commands.ERASE if erases else commands.DELETE, session)
    if erases:
        _services().links.forget(name)
    replayed = {"Idempotency-Replayed": "true"} if result.replayed else {}
    return responses.empty(replayed | rate_limit_headers.of(result.allowances))
