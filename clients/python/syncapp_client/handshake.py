"""Opening the WebSocket of a session, and what its end means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.http11 import Response
from websockets.sync.client import ClientConnection, connect

from syncapp_client.errors import OFFLINE, SyncAppError
from syncapp_client.rest import error_of, refusal
from syncapp_client.timeline import Order
from syncapp_client.tls import client_context
from syncapp_client.values import Reason
from syncapp_client.watched import Lost, Watched

OPEN_S = 5.0
CLOSE_S = 2.0
FINAL_REFUSALS = frozenset({"FORBIDDEN", "ORIGIN_NOT_ALLOWED", "VALIDATION_ERROR"})
_FINAL_CLOSES = frozenset({1000, 1002, 1003, 1007, 1009, 4403})
_CLOSE_CODES = {1000: "CLOSED", 1008: "RATE_LIMITED", 4401: "UNAUTHORIZED", 4403: "FORBIDDEN"}
_TOO_MANY_MESSAGES_S = 60.0
_LOST = 1006


@contextmanager
def opened(base: str, watched: Watched, known: Order | None) -> Iterator[tuple[ClientConnection, str | None]]:
    """Open the WebSocket of a session, and close it in the end; yield it with the token that it was opened with.

    known: the (epoch, version) that the client has. Raises `Lost`, also for the `ConnectionClosed` of the block.
    """
    token = token_of(watched)
    query = {"sessionId": watched.session_id, "format": "patch"}
    if known is not None:
        query |= {"epoch": str(known[0]), "version": str(known[1])}
    try:
        with connect(
            f"{base.replace('http', 'ws', 1)}/ws?{urlencode(query)}",
            ssl=client_context() if base.startswith("https:") else None,
            additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
            compression=None,  # the server has no extensions
            open_timeout=OPEN_S,
            close_timeout=CLOSE_S,
            ping_interval=None,  # PING messages also measure the clock
            max_size=None,
        ) as socket:
            watched.tokens.accept()
            yield socket, token
    except ConnectionClosed as closed:
        raise closed_by_server(closed, watched, token) from closed
    except InvalidStatus as refused:
        raise refused_by_server(refused.response, watched, token) from refused
    except (InvalidHandshake, OSError) as error:
        raise Lost(Reason(OFFLINE, f"no WebSocket to {base}: {error}"), blocked=True) from error


def token_of(watched: Watched) -> str | None:
    """Return the token to connect with. Raises `Lost`, which is final only if there is none to be had."""
    try:
        return watched.tokens.current()
    except SyncAppError as error:
        raise Lost(Reason(error.code, error.message, final=True)) from error
    except Exception as error:  # whatever the caller's function raises
        raise Lost(Reason("UNAUTHORIZED", f"no token could be got: {error!r}")) from error


def refused_by_server(response: Response, watched: Watched, token: str | None) -> Lost:
    """Return what a refused handshake means. What does not come from the service comes from a proxy."""
    body = bytes(response.body or b"")
    error = refusal(response.status_code, response.headers, body)
    wait_s = error.retry_after_s or 0.0
    if error_of(body) is None or error.code in {"NOT_FOUND", "UPGRADE_REQUIRED"}:
        return Lost(Reason(OFFLINE, error.message), wait_s=wait_s, blocked=True)
    final = error.code in FINAL_REFUSALS or (error.code == "UNAUTHORIZED" and not watched.tokens.refuse(token))
    return Lost(Reason(error.code, error.message, final), wait_s=wait_s)


def closed_by_server(closed: ConnectionClosed, watched: Watched, token: str | None) -> Lost:
    """Return what the end of a connection means."""
    code = _LOST if closed.rcvd is None else closed.rcvd.code
    final = code in _FINAL_CLOSES
    name = _CLOSE_CODES.get(code, "CLOSED" if final else OFFLINE)
    if name == "UNAUTHORIZED":
        final = not watched.tokens.refuse(token)
    said = "" if closed.rcvd is None or not closed.rcvd.reason else f": {closed.rcvd.reason}"
    wait_s = _TOO_MANY_MESSAGES_S if name == "RATE_LIMITED" else 0.0
    return Lost(Reason(name, f"the connection ended with close code {code}{said}", final), wait_s=wait_s)
