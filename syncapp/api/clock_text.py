"""`GET /v1/sessions/<session>/text`: a clock as plain text."""

from __future__ import annotations

import orjson
from flask import Blueprint, Response, current_app, request

from syncapp.api import requests
from syncapp.api.reference.history_schemas import OneText
from syncapp.api.reference.schemas import Body, ErrorAnswer, answers, documented
from syncapp.domain.clock_text import TextQuery, displayed_time, format_time
from syncapp.store.sessions import SessionStore

blueprint = Blueprint("texts", __name__, url_prefix="/v1/sessions")
TEXT: Body = {"text/plain": str, "application/json": OneText}


@blueprint.get("/<session>/text")
@documented(query=TextQuery, resp=answers(HTTP_200=TEXT, HTTP_404=ErrorAnswer), tags=["sessions"])
def text(session: str) -> Response:
    """Return a clock as plain text, or with `as=array` as a list of one string.

    It is the clock that runs, or the one of the participant or group that the query names. A clock that does not run
    shows where it stopped. A clock without an end shows elapsed time.
    """
    store: SessionStore = current_app.extensions["syncapp"].store
    name = requests.permitted("read", session)
    asked = TextQuery.from_args(request.args.to_dict(flat=False))
    found = store.get(name, requests.principal())
    ms, down = displayed_time(found.found, found.now_ms, asked.participant_id, asked.group_id)
    line = format_time(ms, asked.format, down=down)
    headers = {"Cache-Control": "no-store"}
    if asked.form == "array":
        return Response(orjson.dumps([line]), headers=headers, content_type="application/json")
    return Response(line, headers=headers, content_type="text/plain; charset=utf-8")
