"""Admission: the checks of origin, query and quotas before a WebSocket, a stream or a long poll begins."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from flask import request

from syncapp.access.client_address import group_of
from syncapp.access.origins import Origins
from syncapp.access.rate_limits import refused
from syncapp.config import Settings
from syncapp.domain import schemas
from syncapp.domain.validation import validation_failure as refused_query
from syncapp.domain.version_order import NEVER, Order
from syncapp.errors import OriginRefused, SyncError, TooManyConnections, ValidationFailed
from syncapp.loops import Loops
from syncapp.metrics import SOCKETS, WS_REFUSED
from syncapp.realtime.protocol import known_order
from syncapp.server.shutdown import Shutdown
from syncapp.server.transport import Watchdog

RETRY_AFTER_S = 5
FORMATS = ("state", "patch")


class WatchRequest(NamedTuple):
    """What a client asks to watch.

    session_id: '' if the client subscribes later. known: the order that the client says it has. patches: it wants
    patches instead of states.
    """

    session_id: str
    known: Order
    patches: bool


class ConnectionQuotas:
    """Counts the connections of this process: all of them, and those of each session and each address."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._open: Counter[tuple[str, str]] = Counter()

    def add(self, session: str) -> None:
        """Count another session that a connection watches. Raises `TooManyConnections`."""
        with self._lock:
            self._check([("session", session)])
            self._open["session", session] += 1

    def remove(self, session: str) -> None:
        """Stop counting a session that a connection has watched."""
        with self._lock:
            self._release([("session", session)])

    def take(self, session: str, address: str) -> None:
        """Count a connection until `give_back`; session: '' for none. Raises `TooManyConnections` and `RateLimited`."""
        keys = _keys(session, address)
        with self._lock:
            self._check(keys)
            self._open.update(keys)
        SOCKETS.inc()

    def give_back(self, session: str, address: str) -> None:
        """Count a connection no longer."""
        SOCKETS.dec()
        with self._lock:
            self._release(_keys(session, address))

    @contextmanager
    def hold(self, session: str, address: str) -> Iterator[None]:
        """Count a connection while the context lasts; raises as `take`."""
        self.take(session, address)
        try:
            yield
        finally:
            self.give_back(session, address)

    def _release(self, keys: list[tuple[str, str]]) -> None:
        for key in keys:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]

    def _check(self, keys: list[tuple[str, str]]) -> None:
        limits = {
            "process": self._settings.ws_max_connections,
            "session": self._settings.ws_max_connections_per_session,
            "address": self._settings.ws_max_connections_per_address,
        }
        for key in keys:
            scope, limit = key[0], limits[key[0]]
            if self._open[key] < limit:
                continue
            message = f"this {scope} already has {limit} connections, the maximum"
            fault: SyncError = TooManyConnections(message, {"limit": limit, "retry_after_s": RETRY_AFTER_S})
            if scope == "address":
                fault = refused("ws_max_connections_per_address", limit, RETRY_AFTER_S, message)
            raise counted(f"{scope}_quota", fault)


def _keys(session: str, address: str) -> list[tuple[str, str]]:
    own = [("session", session)] if session else []
    return [("process", ""), *own, ("address", group_of(address))]


class Guards:
    """The checks that every request to watch a session must pass, and the services that its connection uses."""

    def __init__(self, settings: Settings, loops: Loops | None = None) -> None:
        self.origins = Origins(settings.allowed_origins)
        self.quotas = ConnectionQuotas(settings)
        self.shutdown = Shutdown(settings.ws_drain_s)
        self.watchdog = Watchdog(loops)

    def check_origin(self) -> None:
        """Refuse pages of origins that are not allowed. Raises `OriginRefused`."""
        if not self.origins.admits(request.environ):
            raise counted("origin", OriginRefused("pages of this origin may not watch sessions"))


def session_of_query() -> str:
    """Return the `sessionId` of the query, '' if there is none. Raises `ValidationFailed`."""
    given = _parameter("sessionId")
    if given is None:
        return ""
    try:
        return schemas.session_id(given)
    except ValidationFailed as fault:
        detail = fault.details[0]
        raise counted("session_id", ValidationFailed.of("sessionId", detail["message"], detail["code"])) from None


def only_parameters(*known: str) -> None:
    """Refuse a query with any other parameter. Raises `ValidationFailed`, which names each of them."""
    args = request.args
    unknown = [each for each in args if each not in known] if args else ()
    if unknown:
        message = f"is not a known parameter; known: {', '.join(known)}"
        raise refused_query([{"field": each, "message": message, "code": "extra_forbidden"} for each in unknown])


def watch_request(session_id: str, *others: str) -> WatchRequest:
    """Return what a query asks to watch: `epoch` and `version` (`protocol.known_order`), and `format`.

    others: further parameters that the query may have. Raises `ValidationFailed`.
    """
    try:
        only_parameters(*others, "epoch", "version", "format")
    except ValidationFailed as unknown:
        raise counted("query", unknown) from None
    epoch, version = _number("epoch"), _number("version")
    try:
        known = known_order(epoch, version)
    except ValidationFailed as incomplete:
        raise counted("claim", incomplete) from None
    if known and not session_id:
        fault = ValidationFailed.of("sessionId", "is required with epoch and version", "missing")
        raise counted("claim", fault)
    form = _parameter("format")
    if form not in (None, *FORMATS):
        raise counted("format", ValidationFailed.of("format", f"must be one of {', '.join(FORMATS)}", "unknown"))
    return WatchRequest(session_id, known or NEVER, form == "patch")


def counted(reason: str, fault: SyncError) -> SyncError:
    """Count a refusal and return its error; reason: the label of the metric."""
    WS_REFUSED.labels(reason).inc()
    return fault


def _parameter(name: str) -> str | None:
    given = request.args.getlist(name)
    if len(given) > 1:
        raise counted("query", ValidationFailed.of(name, "must be given once", "repeated"))
    return given[0] if given else None


def _number(name: str) -> int | None:
    text = _parameter(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise counted("claim", ValidationFailed.of(name, "must be a whole number of up to 16 digits", "number"))
    return int(text)
