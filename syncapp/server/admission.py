"""Who may watch a session, and from where: what is checked before a WebSocket, a stream or a long poll begins."""

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
from syncapp.domain.order import NEVER, Order
from syncapp.domain.validation import refused as refused_query
from syncapp.errors import OriginRefused, SyncError, TooManyConnections, ValidationFailed
from syncapp.loops import Loops
from syncapp.metrics import SOCKETS, WS_REFUSED
from syncapp.server.shutdown import Shutdown
from syncapp.server.transport import Watchdog

RETRY_AFTER_S = 5
FORMATS = ("state", "patch")


class WatchRequest(NamedTuple):
    """What a client wants to watch, '' for nothing yet; claim: the order that it says it knows."""

    session_id: str
    claim: Order
    patches: bool


class ConnectionQuotas:
    """Counts the connections of this process, by session and by address."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._open: Counter[tuple[str, str]] = Counter()

    def add(self, session: str) -> None:
        """Count a connection that watches this session, too. Raises `TooManyConnections`."""
        with self._lock:
            self._check([("session", session)])
            self._open["session", session] += 1

    def remove(self, session: str) -> None:
        """Stop counting a connection that watched this session."""
        with self._lock:
            self._take_out([("session", session)])

    @contextmanager
    def hold(self, session: str, address: str) -> Iterator[None]:
        """Count a connection in while it lasts; session: '' for none. Raises `TooManyConnections`, `RateLimited`."""
        keys = [("process", ""), ("address", group_of(address))]
        if session:
            keys.insert(1, ("session", session))
        with self._lock:
            self._check(keys)
            self._open.update(keys)
        SOCKETS.inc()
        try:
            yield
        finally:
            SOCKETS.dec()
            with self._lock:
                self._take_out(keys)

    def _take_out(self, keys: list[tuple[str, str]]) -> None:
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


class Guards:
    """What every request to watch passes, and what watches over it then."""

    def __init__(self, settings: Settings, loops: Loops | None = None) -> None:
        self.origins = Origins(settings.allowed_origins)
        self.quotas = ConnectionQuotas(settings)
        self.draining = Shutdown(settings.ws_drain_s)
        self.watchdog = Watchdog(loops)

    def check_origin(self) -> None:
        """Refuse a page that may not watch. Raises `OriginRefused`."""
        if not self.origins.admits(request.environ):
            raise counted("origin", OriginRefused("pages of this origin may not watch sessions"))


def session_of_query() -> str:
    """Return the `sessionId` of the query, '' if there is none: sessions are named after connecting."""
    given = _once("sessionId")
    if given is None:
        return ""
    try:
        return schemas.session_id(given)
    except ValidationFailed as fault:
        detail = fault.details[0]
        raise counted("session_id", ValidationFailed.of("sessionId", detail["message"], detail["code"])) from None


def only(*known: str) -> None:
    """Refuse a query with other names than these. Raises `ValidationFailed` that names each."""
    message = f"is not a known parameter; known: {', '.join(known)}"
    unknown = [each for each in request.args if each not in known]
    if unknown:
        raise refused_query([{"field": each, "message": message, "code": "extra_forbidden"} for each in unknown])


def watch_request(session_id: str, *others: str) -> WatchRequest:
    """Return what the query says beside the session: `epoch` and `version`, both or none, and `format`.

    others: names that it may have besides. Raises `ValidationFailed`.
    """
    try:
        only(*others, "epoch", "version", "format")
    except ValidationFailed as unknown:
        raise counted("query", unknown) from None
    numbers = {name: _number(name) for name in ("epoch", "version")}
    known = [number for number in numbers.values() if number is not None]
    if len(known) == 1:
        name = next(name for name, number in numbers.items() if number is None)
        fault = ValidationFailed.of(name, "is required: give both epoch and version, or neither", "missing")
        raise counted("claim", fault)
    if known and not session_id:
        fault = ValidationFailed.of("sessionId", "is required beside epoch and version", "missing")
        raise counted("claim", fault)
    form = _once("format")
    if form not in (None, *FORMATS):
        raise counted("format", ValidationFailed.of("format", f"must be one of {', '.join(FORMATS)}", "unknown"))
    return WatchRequest(session_id, (known[0], known[1]) if known else NEVER, form == "patch")


def counted(reason: str, fault: SyncError) -> SyncError:
    """Count a refusal, and return it."""
    WS_REFUSED.labels(reason).inc()
    return fault


def _once(name: str) -> str | None:
    given = request.args.getlist(name)
    if len(given) > 1:
        raise counted("query", ValidationFailed.of(name, "must be given once", "repeated"))
    return given[0] if given else None


def _number(name: str) -> int | None:
    text = _once(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise counted("claim", ValidationFailed.of(name, "must be a whole number of up to 16 digits", "number"))
    return int(text)
