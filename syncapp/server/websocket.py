"""`GET /ws`: what is checked before a WebSocket opens, while an HTTP status can still answer (docs/protocol.md)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NoReturn

from flask import Flask, Response, g, request
from flask_sock import Sock

from syncapp.config import Settings
from syncapp.errors import SyncError, ValidationFailed
from syncapp.server.admission import Guards, counted, session_of_query, watch_request
from syncapp.server.command_runner import Backend
from syncapp.server.connection import Connection
from syncapp.server.reader import Reader
from syncapp.server.transport import Transport, Watchdog

PATH = "/ws"
_SOCKETS = ("gunicorn.socket", "werkzeug.socket")


class UpgradeRequired(SyncError):
    """A request that does not ask for a WebSocket, or not for version 13 of the protocol."""

    status, code = 426, "UPGRADE_REQUIRED"

    @property
    def headers(self) -> Mapping[str, str]:
        """What RFC 6455 and RFC 9110 require with this status."""
        return {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}


def register(app: Flask, backend: Backend, guards: Guards) -> None:
    """Add the route. flask-sock opens the WebSocket, once the checks of the view around its own have passed."""
    app.config["SOCK_SERVER_OPTIONS"] = {
        "max_message_size": backend.settings.ws_max_message_bytes,
        "thread_class": Reader,
    }

    def serve(ws: Any) -> None:
        watch_request = g.wish
        connection = Connection(
            ws, g.wire, backend, watch_request.session_id, watch_request.claim, patches=watch_request.patches
        )
        address = request.remote_addr or ""
        request.environ.clear()  # nobody needs it any more, and it is kilobytes for as long as the connection lasts
        with guards.draining.told(connection.leave):
            connection.run(address, watch_request.claim)

    Sock(app).route(PATH, endpoint="ws")(serve)
    upgrade = app.view_functions["ws"]

    def view() -> Response:
        _check_upgrade()
        guards.check_origin()
        g.wish = watch_request(session_of_query(), "sessionId")
        guards.draining.check()
        with guards.quotas.hold(g.wish.session_id, request.remote_addr or ""):
            g.wire = _prepare(request.environ, guards.watchdog, backend.settings)
            answer: Response = upgrade()  # type: ignore[assignment]  # flask-sock's, once the WebSocket has ended
        answer.status_code = 101  # what the client was answered, for whoever counts answers
        return answer

    app.view_functions["ws"] = view
    # Requests that are no upgrade do not match a route for WebSockets.
    app.add_url_rule(PATH, "ws_plain", _refuse_plain, methods=["GET"])


def _refuse_plain() -> NoReturn:
    raise counted("no_upgrade", UpgradeRequired("this path speaks WebSocket; ask for an upgrade"))


def _check_upgrade() -> None:
    """Refuse what is not a whole opening handshake of RFC 6455."""
    environ = request.environ
    wanted = {part.strip().lower() for part in environ.get("HTTP_CONNECTION", "").split(",")}
    if environ.get("HTTP_UPGRADE", "").lower() != "websocket" or "upgrade" not in wanted:
        _refuse_plain()
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        raise counted("version", UpgradeRequired("this server speaks version 13 of the WebSocket protocol"))
    if not any(name in environ for name in _SOCKETS):
        raise counted("no_socket", UpgradeRequired("this web server can't open WebSockets"))
    if request.method != "GET" or environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        raise counted("method", ValidationFailed.of("method", "must be GET of HTTP/1.1", "method"))
    if environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        raise counted("body", ValidationFailed.of("body", "must be absent", "unexpected"))
    try:
        key = base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        fault = ValidationFailed.of("Sec-WebSocket-Key", "must be 16 bytes in base64", "websocket_key")
        raise counted("key", fault)


def _prepare(environ: dict[str, Any], watchdog: Watchdog, settings: Settings) -> Transport:
    """Leave of a request what simple_websocket needs, and put a `Transport` in the place of its socket.

    It writes all headers into a request of its own and parses that: an odd one must not be able to break it. It
    accepts every extension that is asked for; compressed frames could not be shared.
    """
    for name in [name for name in environ if name.startswith("HTTP_")]:
        if name not in ("HTTP_UPGRADE", "HTTP_SEC_WEBSOCKET_KEY", "HTTP_SEC_WEBSOCKET_VERSION"):
            del environ[name]
    environ |= {"HTTP_HOST": "localhost", "HTTP_CONNECTION": "Upgrade"}
    name = next(name for name in _SOCKETS if name in environ)
    wire = Transport(environ[name], watchdog, settings.ws_slow_close_s, _early(environ))
    environ[name] = wire
    return wire


def _early(environ: dict[str, Any]) -> bytes:
    """Return what came in one packet with the handshake: gunicorn has read it, and simple_websocket would not."""
    reader = getattr(environ.get("wsgi.input"), "reader", None)
    unreader = getattr(reader, "unreader", None)
    early: bytes = unreader.take_buffered() if unreader else b""
    return early
