"""One WebSocket of a session: it reads messages, measures the clock, renews the token and sends commands."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from syncapp_client.commands import Command
from syncapp_client.errors import OFFLINE, SyncAppError
from syncapp_client.offset import BURST_S, FIRST_PINGS, PING_EVERY_S
from syncapp_client.patches import apply_patch
from syncapp_client.timeline import order_of
from syncapp_client.values import Done, Event, Reason, State
from syncapp_client.watched import Lost, Watched

log = logging.getLogger(__name__)
SILENT_S = 5.0
"""A PING without a PONG for so long means that the connection is dead."""
REPLY_S = 5.0
"""A command that is not answered for so long is sent again over REST, with its key."""
_TICK_S = 1.0
_MESSAGES_PER_S, _BURST = 40, 150  # a little less than the server's defaults


class Connection:
    """One open WebSocket. `run` reads it in one thread; any thread may `ask`.

    token, known: the token and the state that it was opened with.
    """

    def __init__(self, socket: ClientConnection, watched: Watched, token: str | None, known: State | None) -> None:
        self._socket = socket
        self._watched = watched
        self._token = token
        self._base = known  # what the next patch applies to; only a store that has lost versions sends an older state
        self._is_current = False
        self._is_deleted = False
        self._has_asked = False
        self._ids = itertools.count(1)
        self._replies: dict[str, _Reply] = {}
        self._lock = threading.Lock()
        self._has_ended = False
        self._allowance = _Allowance()
        self._pings_left = FIRST_PINGS
        self._ping_s: float | None = None  # after the first message: until then, the server answers nothing
        self._silent_s: float | None = None
        watched.clock.discard()

    def run(self) -> None:
        """Read until the connection ends. Raises `ConnectionClosed` or `Lost`."""
        try:
            while True:
                self._do_what_is_due()
                try:
                    text = self._socket.recv(timeout=self._wait_s())
                except TimeoutError:
                    self._check_silence()
                else:
                    self._read(json.loads(text))
        except ConnectionClosed:
            if self._is_deleted:
                self._watched.absent()
            raise
        finally:
            with self._lock:
                self._has_ended = True
                replies = list(self._replies.values())
            for reply in replies:
                reply.fail(SyncAppError(OFFLINE, "the connection was lost", outcome_unknown=True))

    def ask(self, command: Command, timeout_s: float) -> Done:
        """Send a command, and return what it has done. Raises `SyncAppError`, `OFFLINE` if there is no reply."""
        self._allowance.take()
        message_id, reply = f"c{next(self._ids)}", _Reply()
        with self._lock:
            if self._has_ended:
                raise SyncAppError(OFFLINE, "the connection was lost")
            self._replies[message_id] = reply
        try:
            self._send(command.message(message_id))
            return reply.wait(min(timeout_s, REPLY_S))
        except ConnectionClosed:
            raise SyncAppError(OFFLINE, "the connection was lost", outcome_unknown=True) from None
        except TimeoutError:
            self._ping_s = 0.0  # whether the connection is dead
            raise SyncAppError(OFFLINE, "the command was not answered", outcome_unknown=True) from None
        finally:
            with self._lock:
                del self._replies[message_id]

    def close(self) -> None:
        """Close the connection; `run` then ends."""
        self._socket.close()

    # What is due

    def _wait_s(self) -> float:
        dues = [due for due in (self._ping_s, self._silent_s) if due is not None]
        return max(0.001, min(_TICK_S, *(due - time.monotonic() for due in dues)) if dues else _TICK_S)

    def _do_what_is_due(self) -> None:
        if self._watched.clock.has_slept():
            self._pings_left, self._ping_s = FIRST_PINGS, 0.0
            if self._base is not None:
                order = order_of(self._base)
                self._send({"type": "RECONNECT", "epoch": order[0], "version": order[1]})
            self._report()
        now_s = time.monotonic()
        if self._ping_s is not None and now_s >= self._ping_s:
            self._pings_left = max(0, self._pings_left - 1)
            self._ping_s = now_s + (BURST_S if self._pings_left else PING_EVERY_S)
            self._silent_s = self._silent_s or now_s + SILENT_S
            self._send({"type": "PING", "t0": self._watched.clock.local_ms()})
        renews_in_s = self._watched.tokens.renews_in_s
        if renews_in_s is not None and renews_in_s <= 0 and self._ping_s is not None:
            self._renew()

    def _renew(self) -> None:
        try:
            token = self._watched.tokens.current()
        except Exception:  # whatever the caller's function raises; the server ends the connection with its token
            log.warning("no new token could be got", exc_info=True)
            return
        if token != self._token:
            self._token = token
            self._send({"type": "AUTH", "id": "auth", "token": token})

    def _check_silence(self) -> None:
        if self._silent_s is not None and time.monotonic() >= self._silent_s:
            if self._is_deleted:
                self._watched.absent()
            raise Lost(Reason(OFFLINE, f"the server has not answered a PING for {SILENT_S:g} s"))

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.send(json.dumps(message))

    # What comes

    def _read(self, message: dict[str, Any]) -> None:
        if self._ping_s is None and not self._is_deleted:
            self._ping_s = 0.0
        kind = message["type"]
        if kind == "CONNECTED":
            self._connected(message)
        elif kind in ("STATE_SYNC", "STATE_UPDATE"):
            self._enter(message["state"], message.get("event"))
        elif kind == "STATE_PATCH":
            self._patch(message)
        elif kind == "PONG":
            self._silent_s = None
            self._watched.clock.add(message["t0"], message["timestamp"])
            self._report()
        elif kind == "ACK":
            done = Done(
                message.get("version"),
                message.get("epoch"),
                message.get("replayed", False),
                self._watched.timeline.state if "version" in message else None,
            )
            self._answer(message["id"], done)
        elif kind == "SESSION_DELETED":
            self._is_deleted = True  # an ACK may follow
            self._ping_s, self._silent_s = None, time.monotonic() + SILENT_S
        elif kind == "ERROR":
            self._error(message)

    def _connected(self, message: dict[str, Any]) -> None:
        if message["epoch"] is None:
            if self._token is None and not self._has_asked:
                self._has_asked = True  # a server that wants a token says the same at first, and refuses this
                self._send({"type": "RECONNECT"})
            else:
                self._watched.absent()
        elif self._base is not None and order_of(self._base) == (message["epoch"], message["version"]):
            self._is_current = True
            self._report()

    def _enter(self, state: State, event: Event | None) -> None:
        rolled_back = self._base is not None and order_of(state) < order_of(self._base)
        self._base, self._is_current = state, True
        self._watched.timeline.offer(state, event, rolled_back=rolled_back)
        self._report()

    def _patch(self, message: dict[str, Any]) -> None:
        if self._base is None or order_of(self._base) != (message["epoch"], message["version"] - 1):
            raise ValueError("a patch does not follow the last state")
        self._enter(apply_patch(self._base, message), message["event"])

    def _error(self, message: dict[str, Any]) -> None:
        error = SyncAppError.of_document(message)
        if "id" in message:
            self._answer(message["id"], error)
        elif error.code == "SESSION_NOT_FOUND":
            self._watched.absent()
        elif error.code == "UNAUTHORIZED":
            raise Lost(Reason(error.code, error.message, final=not self._watched.tokens.refuse(self._token)))
        elif error.code in ("STORE_UNAVAILABLE", "INTERNAL_ERROR"):
            self._is_current = False
            self._watched.report(False, Reason(error.code, error.message))
        else:
            log.warning("the server refused a message: %s", error)

    def _answer(self, message_id: str, found: Done | SyncAppError) -> None:
        with self._lock:
            reply = self._replies.get(message_id)
        if reply is not None:
            reply.give(found)
        elif isinstance(found, SyncAppError):
            log.warning("the server refused %s: %s", message_id, found)

    def _report(self) -> None:
        if self._is_current:
            self._watched.report(True, None)


class _Reply:
    """The reply to one command."""

    def __init__(self) -> None:
        self._given = threading.Event()
        self._found: Done | SyncAppError | None = None

    def give(self, found: Done | SyncAppError) -> None:
        self._found = self._found or found
        self._given.set()

    fail = give

    def wait(self, timeout_s: float) -> Done:
        if not self._given.wait(timeout_s):
            raise TimeoutError
        if isinstance(self._found, Done):
            return self._found
        raise self._found or TimeoutError


class _Allowance:
    """Keeps commands below the number of messages that the server accepts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = float(_BURST)
        self._since_s = time.monotonic()

    def take(self) -> None:
        """Take one, and wait until it is allowed."""
        with self._lock:
            now_s = time.monotonic()
            self._left = min(_BURST, self._left + (now_s - self._since_s) * _MESSAGES_PER_S) - 1
            self._since_s = now_s
            wait_s = -self._left / _MESSAGES_PER_S
        if wait_s > 0:
            time.sleep(wait_s)
