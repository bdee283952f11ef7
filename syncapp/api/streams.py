"""`/v1/sessions/<session>/stream`: what a WebSocket tells, as server-sent events (docs/protocol.md)."""

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
from syncapp.domain.schemas import session_id
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

    Each event's `data` is one of the WebSocket's messages, as `/asyncapi.json` describes them. The stream does not end
    by itself before the session is deleted. A session that is not there yet is waited for.
    """
    services = current_app.extensions["syncapp"]
    guards = services.guards
    guards.check_origin()
    wish = admission.watch_request(session_id(session))
    wish = wish._replace(claim=requests.last_event() or wish.claim)
    guards.draining.check()
    raw = request.environ.get("gunicorn.socket")
    with ExitStack() as stack:
        stack.enter_context(guards.quotas.hold(wish.session_id, request.remote_addr or ""))
        told = EventStream(
            services.hub, services.settings, guards.watchdog, wish, raw if request.method == "GET" else None
        )
        stack.enter_context(guards.draining.told(told.leave))
        headers = {"X-Accel-Buffering": "no"}
        answer = Response(told.chunks(), content_type="text/event-stream", headers=headers)
        answer.call_on_close(stack.pop_all().close)
    return answer
