"""`/v1/sessions/<session>/stream`: the messages of a WebSocket as server-sent events (docs/protocol.md)."""

from __future__ import annotations

from contextlib import ExitStack

from flask import Blueprint, Response, current_app, request

from syncapp.api import requests
from syncapp.api.reference.parameters import StreamHeaders, StreamQuery
from syncapp.api.reference.schemas import (
    ErrorAnswer,
    answers,
    documented,
)
from syncapp.server import admission
from syncapp.server.sse import EventStream

blueprint = Blueprint("streams", __name__, url_prefix="/v1/sessions")


@blueprint.get("/<session>/stream")
@documented(
    query=StreamQuery,
    headers=StreamHeaders,
    resp=answers(HTTP_200={"text/event-stream": str}, HTTP_403=ErrorAnswer),
    tags=["sessions"],
)
def stream(session: str) -> Response:
    """Stream every change as `text/event-stream`.

    The `data` of each event is one message of the WebSocket protocol, as `/asyncapi.json` describes it. The stream ends
    when the session is deleted. If the session does not exist yet, the stream waits for it.
    """
    services = current_app.extensions["syncapp"]
    guards = services.guards
    name = requests.permitted("watch", session)
    guards.check_origin()
    asked = admission.watch_request(name, "token")
    asked = asked._replace(known=requests.last_event() or asked.known)
    guards.shutdown.check()
    raw = request.environ.get("gunicorn.socket")
    with ExitStack() as stack:
        stack.enter_context(guards.quotas.hold(asked.session_id, request.remote_addr or ""))
        access = services.gate.granted(requests.principal())
        socket = raw if request.method == "GET" else None
        events = EventStream(services.hub, services.settings, guards.watchdog, access, asked, socket)
        stack.enter_context(guards.shutdown.notify(events))
        headers = {"X-Accel-Buffering": "no"}
        answer = Response(events.chunks(), content_type="text/event-stream", headers=headers)
        answer.call_on_close(stack.pop_all().close)
    return answer
