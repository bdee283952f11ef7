"""`/v1/history`, and the history of one session: events, past states, statistics and export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from typing import TypeVar

from flask import Blueprint, Response, current_app, request

from syncapp.api import requests, responses
from syncapp.api.reference.history_schemas import (
    EventsAnswer,
    ExportAnswer,
    HistoryAnswer,
    PastAnswer,
    StatisticsAnswer,
)
from syncapp.api.reference.schemas import Body, ErrorAnswer, answers, documented
from syncapp.domain.query import Query
from syncapp.domain.session_ids import public_id, qualified
from syncapp.history.export import CONTENT_TYPES, FORMS
from syncapp.history.queries import Cycles, HistoryQueries, Page
from syncapp.history.query_params import AtQuery, EventsQuery, ExportQuery, HistoryQuery
from syncapp.store.sessions import SessionStore

blueprint = Blueprint("history", __name__, url_prefix="/v1")
Asked = TypeVar("Asked", bound=Query)
FILES: Body = {"application/json": ExportAnswer, "application/x-ndjson": str, "text/csv": str}


def history() -> HistoryQueries:
    """Return the application's history queries."""
    found: HistoryQueries = current_app.extensions["syncapp"].history
    return found


def parse_query(kind: type[Asked]) -> Asked:
    """Return the request's query string as a model. Raises `ValidationFailed`."""
    return kind.from_args(request.args.to_dict(flat=False))


@blueprint.before_request
def refuse_old_links() -> None:
    """Answer a link whose session has ended, or was created again, as if there were none. Raises `SessionNotFound`."""
    caller = requests.principal()
    named = (request.view_args or {}).get("session", "").lower()
    if caller.is_link and named == caller.session_id:  # others are refused by the route
        store: SessionStore = current_app.extensions["syncapp"].store
        store.get(qualified(caller.tenant, named), caller)


def page(name: str, found: Page) -> Response:
    """Return a page of rows."""
    return responses.data({name: found.rows, "next_cursor": found.next_cursor})


@blueprint.get("/sessions/<session>/events")
@documented(query=EventsQuery, resp=answers(HTTP_200=EventsAnswer, HTTP_404=ErrorAnswer), tags=["history"])
def events(session: str) -> Response:
    """Return a session's events from the audit log, by default oldest first, in pages.

    An event is in the audit log about half a second after it took effect. `next_cursor` leads to the next page.
    """
    name = requests.permitted("events", session)
    return page("events", history().events(name, parse_query(EventsQuery)))


@blueprint.get("/sessions/<session>/at")
@documented(query=AtQuery, resp=answers(HTTP_200=PastAnswer, HTTP_404=ErrorAnswer), tags=["history"])
def at(session: str) -> Response:
    """Return a session with all its clocks as of a past instant, or after a version.

    Give either `time` or `version`. Deleted and expired sessions are included.
    """
    name = requests.permitted("at", session)
    return responses.data(history().state_at(name, parse_query(AtQuery)).document())


@blueprint.get("/history")
@documented(query=HistoryQuery, resp=answers(HTTP_200=HistoryAnswer), tags=["history"])
def sessions() -> Response:
    """Return sessions from the audit log, the most recently changed first, in pages.

    Deleted and expired sessions are included. `next_cursor` leads to the next page.
    """
    requests.permitted("history")
    return page("sessions", history().sessions(parse_query(HistoryQuery), requests.principal().tenant))


@blueprint.get("/sessions/<session>/statistics")
@documented(resp=answers(HTTP_200=StatisticsAnswer, HTTP_404=ErrorAnswer), tags=["history"])
def statistics(session: str) -> Response:
    """Return the number and lengths of the cycles of each participant, from the audit log.

    Only cycles since the session was last created count; paused time is excluded.
    """
    name = requests.permitted("statistics", session)
    parse_query(Query)
    found = history().statistics(name)
    people = [{"participant_id": name} | _cycles(cycles) for name, cycles in found.participants.items()]
    whole = {"session_id": public_id(name), "epoch": found.epoch} | _cycles(found.whole)
    return responses.data(whole | {"participants": people})


@blueprint.get("/sessions/<session>/export")
@documented(query=ExportQuery, resp=answers(HTTP_200=FILES, HTTP_404=ErrorAnswer), tags=["history"])
def export(session: str) -> tuple[Iterator[bytes], int, dict[str, str]]:
    """Return all events of a session as a file.

    `format` selects one JSON document, one line of JSON for each event (NDJSON), or a table for spreadsheets (CSV). If
    reading the log fails halfway, the connection is closed before the end of the file.
    """
    name, form = requests.permitted("export", session), parse_query(ExportQuery).format
    pages, shown = history().export(name), public_id(name)
    # A failure of the first page is answered as an error. Later failures can only cut the file off.
    body = FORMS[form](shown, chain([next(pages)], pages))
    disposition = f'attachment; filename="session-{shown}.{form}"'
    return body, 200, {"Content-Type": CONTENT_TYPES[form], "Content-Disposition": disposition}


def _cycles(cycles: Cycles) -> dict[str, int | None]:
    return asdict(cycles)
