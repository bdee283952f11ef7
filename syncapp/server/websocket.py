"""`GET /ws`: the checks before a WebSocket opens, while they can still be answered with an HTTP status."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from flask import Flask, Request, Response, request
from flask_sock import Sock
from websockets.utils import accept_key

from syncapp.domain.session_ids import qualified
from syncapp.domain.version_order import NEVER
from syncapp.errors import Forbidden, SyncError, Unauthorized, ValidationFailed
from syncapp.server.admission import Guards, WatchRequest, counted, session_of_query, watch_request
from syncapp.server.authentication import Access
from syncapp.server.command_runner import Backend
from syncapp.server.connection import Connection
from syncapp.server.hand_over import HAND_OVER

PATH = "/ws"
_SOCKET = "gunicorn.socket"
_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
"""The answer to a handshake (RFC 6455, section 4.2.2). No extension is accepted: frames are shared between clients."""


class UpgradeRequired(SyncError):
    """The request does not ask for a WebSocket, or asks for another version of the protocol than 13."""

    status, code = 426, "UPGRADE_REQUIRED"

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that RFC 6455 and RFC 9110 require with this status."""
        return {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}


class _Upgraded(Response):
    """The response to a handshake, for the hooks: it was sent already."""

    def __call__(self, environ: Any, start_response: Any) -> NoReturn:
        """End the request, in the way in which flask-sock ends a WebSocket of gunicorn's."""
        raise StopIteration


def register(app: Flask, backend: Backend, guards: Guards) -> None:
    """Add the route. flask-sock declares it; the view in its place opens the WebSocket after the checks."""
    Sock(app).route(PATH, endpoint="ws")(lambda _: None)

    def view() -> Response:
        this: Request = request._get_current_object()  # type: ignore[attr-defined]  # werkzeug's proxy
        environ = this.environ
        _check_upgrade(environ)
        guards.check_origin()
        asked = watch_request(session_of_query(), "sessionId", "token")
        access = _access(backend, asked)
        asked = _qualified(asked, access)
        guards.shutdown.check()
        address, raw = this.remote_addr or "", environ[_SOCKET]
        guards.quotas.take(asked.session_id, address)

        def begin(raw: Any, received: bytes, on_over: Callable[[], None]) -> None:
            try:
                connection = Connection(backend, access, asked, address, raw, on_over)
            except OSError:  # the client has disconnected
                guards.quotas.give_back(asked.session_id, address)
                on_over()
            else:
                connection.begin(asked, received)

        with suppress(OSError):  # that the client has disconnected is noticed by reading
            raw.sendall(_SWITCHING % accept_key(environ["HTTP_SEC_WEBSOCKET_KEY"]).encode())
        guards.watchdog.start()
        environ[HAND_OVER](raw, begin)
        return _Upgraded(status=101)  # the client's answer, for the metrics

    app.view_functions["ws"] = view
    # Requests that do not ask for an upgrade do not match a WebSocket route.
    app.add_url_rule(PATH, "ws_plain", _refuse_plain, methods=["GET"])


def _access(backend: Backend, asked: WatchRequest) -> Access:
    try:
        return backend.gate.access(asked)
    except Unauthorized as fault:
        raise counted("token", fault) from None
    except Forbidden as fault:
        raise counted("forbidden", fault) from None
    except ValidationFailed as fault:
        raise counted("query", fault) from None


def _qualified(asked: WatchRequest, access: Access) -> WatchRequest:
    """Return what to watch at once: with the qualified id, and no session until a token has come."""
    if access.principal is None:
        return asked._replace(session_id="", known=NEVER)
    return asked._replace(session_id=asked.session_id and qualified(access.principal.tenant, asked.session_id))


def _refuse_plain() -> NoReturn:
    raise counted("no_upgrade", UpgradeRequired("this is a WebSocket endpoint; request an upgrade"))


def _check_upgrade(environ: Mapping[str, Any]) -> None:
    """Refuse a request that is not a complete opening handshake (RFC 6455, section 4.2.1)."""
    wanted = {part.strip().lower() for part in environ.get("HTTP_CONNECTION", "").split(",")}
    if environ.get("HTTP_UPGRADE", "").lower() != "websocket" or "upgrade" not in wanted:
        _refuse_plain()
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        raise counted("version", UpgradeRequired("this server supports version 13 of the WebSocket protocol only"))
    if HAND_OVER not in environ:
        raise counted("no_socket", UpgradeRequired("this web server does not support WebSockets"))
    if environ["REQUEST_METHOD"] != "GET" or environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        raise counted("method", ValidationFailed.of("method", "must be GET, over HTTP/1.1", "method"))
    if environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        raise counted("body", ValidationFailed.of("body", "must be absent", "unexpected"))
    try:
        key = base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        fault = ValidationFailed.of("Sec-WebSocket-Key", "must be 16 bytes in base64", "websocket_key")
        raise counted("key", fault)
