"""`GET /ws`: what is checked before a WebSocket opens, while an HTTP status can still answer (DESIGN §8)."""

from __future__ import annotations

import base64
import binascii
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NoReturn

import structlog
from flask import Flask, Response, g, request
from flask_sock import Sock

from syncapp.api import responses
from syncapp.config import Settings
from syncapp.connection import Connection
from syncapp.errors import RateLimited, SyncError, ValidationFailed
from syncapp.hub import Hub
from syncapp.metrics import SOCKETS, WS_REFUSED
from syncapp.models import session_id
from syncapp.sockets import Reader, Watchdog, Wire

log = structlog.get_logger(__name__)

PATH = "/ws"
RETRY_AFTER_S = 5
_SOCKETS = ("gunicorn.socket", "werkzeug.socket")


class Refused(SyncError):
    """A handshake that is refused with headers of its own."""

    headers: ClassVar[Mapping[str, str]] = {}


class UpgradeRequired(Refused):
    """A request that does not ask for a WebSocket, or not for version 13 of the protocol."""

    status, code = 426, "UPGRADE_REQUIRED"
    headers: ClassVar[Mapping[str, str]] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
    }


class OriginRefused(Refused):
    """An origin that may not open WebSockets."""

    status, code = 403, "ORIGIN_NOT_ALLOWED"


class TooManyConnections(Refused):
    """No room for another connection; details: limit, retry_after_s."""

    status, code = 503, "TOO_MANY_CONNECTIONS"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": str(RETRY_AFTER_S)}


class Quotas:
    """Counts the connections of this process, by session and by address."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._open: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def hold(self, session: str, address: str) -> Iterator[None]:
        """Count a connection in while it lasts. Raises `TooManyConnections`, `RateLimited`."""
        keys = [("process", ""), ("session", session), ("address", address)]
        with self._lock:
            self._check(keys)
            self._open.update(keys)
        SOCKETS.inc()
        try:
            yield
        finally:
            SOCKETS.dec()
            with self._lock:
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
            WS_REFUSED.labels(f"{scope}_quota").inc()
            details = {"limit": limit, "retry_after_s": RETRY_AFTER_S}
            message = f"this {scope} has {limit} connections, as many as it may"
            raise (RateLimited if scope == "address" else TooManyConnections)(message, details)


def register(app: Flask, hub: Hub, settings: Settings) -> None:
    """Add the route. flask-sock opens the WebSocket, once the checks of the view around its own have passed."""
    watchdog = Watchdog()
    quotas = Quotas(settings)
    origins = {origin.strip().lower().rstrip("/") for origin in settings.ws_allowed_origins.split(",")}
    app.config["SOCK_SERVER_OPTIONS"] = {
        "max_message_size": settings.ws_max_message_bytes,
        "thread_class": Reader,
    }
    app.register_error_handler(Refused, _refused)

    def serve(ws: Any) -> None:
        Connection(ws, g.wire, hub, settings, g.session_id).run()

    Sock(app).route(PATH, endpoint="ws")(serve)
    upgrade = app.view_functions["ws"]

    def view() -> Response:
        _check_upgrade()
        _check_origin(origins)
        g.session_id = _session_id()
        with quotas.hold(g.session_id, request.remote_addr or ""):
            g.wire = _prepare(request.environ, watchdog, settings)
            log.info("websocket opened", session_id=g.session_id, address=request.remote_addr)
            answer: Response = upgrade()  # type: ignore[assignment]  # flask-sock's, once the WebSocket has ended
        answer.status_code = 101  # what the client was answered, for whoever counts answers
        return answer

    app.view_functions["ws"] = view
    # Requests that are no upgrade do not match a route for WebSockets.
    app.add_url_rule(PATH, "ws_plain", _refuse_plain, methods=["GET"])


def _refuse_plain() -> NoReturn:
    raise _counted("no_upgrade", UpgradeRequired("this path speaks WebSocket; ask for an upgrade"))


def _check_upgrade() -> None:
    """Refuse what is not a whole opening handshake of RFC 6455."""
    environ = request.environ
    wanted = {part.strip().lower() for part in environ.get("HTTP_CONNECTION", "").split(",")}
    if environ.get("HTTP_UPGRADE", "").lower() != "websocket" or "upgrade" not in wanted:
        _refuse_plain()
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        raise _counted("version", UpgradeRequired("this server speaks version 13 of the WebSocket protocol"))
    if not any(name in environ for name in _SOCKETS):
        raise _counted("no_socket", UpgradeRequired("this web server can't open WebSockets"))
    if request.method != "GET" or environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        raise _counted("method", ValidationFailed.of("method", "must be GET of HTTP/1.1", "method"))
    if environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        raise _counted("body", ValidationFailed.of("body", "must be absent", "unexpected"))
    try:
        key = base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        fault = ValidationFailed.of("Sec-WebSocket-Key", "must be 16 bytes in base64", "websocket_key")
        raise _counted("key", fault)


def _check_origin(origins: set[str]) -> None:
    """Refuse a browser's page of another origin; what is no browser names none."""
    origin = request.environ.get("HTTP_ORIGIN")
    if origin is not None and "*" not in origins and origin.lower() not in origins:
        raise _counted("origin", OriginRefused("this origin may not open WebSockets"))


def _session_id() -> str:
    given = request.args.getlist("sessionId")
    if len(given) != 1:
        code = "missing" if not given else "repeated"
        raise _counted("session_id", ValidationFailed.of("sessionId", "must be given once", code))
    try:
        return session_id(given[0])
    except ValidationFailed as fault:
        detail = fault.details[0]
        raise _counted("session_id", ValidationFailed.of("sessionId", detail["message"], detail["code"])) from None


def _prepare(environ: dict[str, Any], watchdog: Watchdog, settings: Settings) -> Wire:
    """Leave of a request what simple_websocket needs, and put a `Wire` in the place of its socket.

    It writes all headers into a request of its own and parses that: an odd one must not be able to break it. It
    accepts every extension that is asked for; compressed frames could not be shared.
    """
    for name in [name for name in environ if name.startswith("HTTP_")]:
        if name not in ("HTTP_UPGRADE", "HTTP_SEC_WEBSOCKET_KEY", "HTTP_SEC_WEBSOCKET_VERSION"):
            del environ[name]
    environ |= {"HTTP_HOST": "localhost", "HTTP_CONNECTION": "Upgrade"}
    name = next(name for name in _SOCKETS if name in environ)
    wire = Wire(environ[name], watchdog, settings.ws_slow_close_s)
    environ[name] = wire
    return wire


def _counted(reason: str, fault: SyncError) -> SyncError:
    WS_REFUSED.labels(reason).inc()
    return fault


def _refused(fault: Refused) -> Response:
    answer = responses.error(fault)
    answer.headers.update(fault.headers)
    return answer
