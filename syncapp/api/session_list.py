"""`GET /v1/sessions`: the sessions that the store holds."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, request

from syncapp.api import requests, responses
from syncapp.api.reference.history_schemas import ListAnswer
from syncapp.api.reference.schemas import answers, documented
from syncapp.store.list_query import SessionsQuery
from syncapp.store.session_list import SessionList

blueprint = Blueprint("listing", __name__, url_prefix="/v1/sessions")


@blueprint.get("")
@documented(query=SessionsQuery, resp=answers(HTTP_200=ListAnswer), tags=["sessions"])
def list_sessions() -> Response:
    """Return the sessions that the store holds, newest first, in pages.

    Finished sessions are listed for as long as they can be read. A page may be shorter than `limit`, or empty: continue
    while `next_cursor` is not null. `id_prefix` selects by the beginning of the id, `metadata.<key>=<value>` by a
    member of the metadata. While `complete` is false, sessions may be missing.
    """
    requests.permitted("list")
    found: SessionList = current_app.extensions["syncapp"].session_list
    page = found.page(SessionsQuery.from_args(request.args.to_dict(flat=False)), requests.principal().tenant)
    document = {
        "sessions": [each.document(page.now_ms) for each in page.sessions],
        "next_cursor": page.next_cursor,
        "complete": page.complete,
        "server_time_ms": page.now_ms,
    }
    return responses.data(document, headers={"Cache-Control": "no-store"})
