"""Long polls over REST, for networks that WebSockets do not get through."""

from __future__ import annotations

import time

from syncapp_client.errors import SyncAppError
from syncapp_client.handshake import FINAL_REFUSALS, token_of
from syncapp_client.offset import FIRST_PINGS, PING_EVERY_S
from syncapp_client.rest import TRY_S, Answer, Rest, path_part
from syncapp_client.timeline import order_of
from syncapp_client.values import Reason
from syncapp_client.watched import Lost, Watched

WAIT_MS = 5000
"""A poll cannot be interrupted, so this is also how long closing a session may take."""
POLL_FOR_S = 60.0
"""Then a WebSocket is tried again."""
_ABSENT_S = 1.0


class Polling:
    """Polls one session."""

    def __init__(self, rest: Rest, watched: Watched) -> None:
        self._rest = rest
        self._watched = watched
        self._base = watched.timeline.state
        self._measured_s = 0.0

    def run(self, for_s: float = POLL_FOR_S) -> None:
        """Poll for so long, or until the session is not wanted any more. Raises `Lost`."""
        self._watched.clock.discard()
        end_s = time.monotonic() + for_s
        while time.monotonic() < end_s and not self._watched.stopped.is_set():
            self._watched.clock.has_slept()
            self._poll()
            if not self._watched.clock.known or time.monotonic() > self._measured_s + PING_EVERY_S:
                self._measure()
            if self._base is not None:
                self._watched.report(True, None)

    def _poll(self) -> None:
        headers, params = {}, {}
        if self._base is not None and self._watched.clock.known:  # else there is more to do than to wait
            headers = {"If-None-Match": f'"{self._base["epoch"]}-{self._base["version"]}"'}
            params = {"wait_ms": WAIT_MS}
        try:
            answer = self._get(f"/v1/sessions/{path_part(self._watched.session_id)}", headers, params)
        except SyncAppError as error:
            if error.code != "SESSION_NOT_FOUND":
                raise _lost(error) from error
            self._watched.absent()
            self._watched.stopped.wait(_ABSENT_S)
            return
        if answer.data is not None:
            rolled_back = self._base is not None and order_of(answer.data) < order_of(self._base)
            self._base = answer.data
            self._watched.timeline.offer(answer.data, None, rolled_back=rolled_back)

    def _measure(self) -> None:
        for _ in range(1 if self._watched.clock.known else FIRST_PINGS):
            t0_ms = self._watched.clock.local_ms()
            try:
                answer = self._get("/v1/time", {}, {})
            except SyncAppError as error:
                raise _lost(error) from error
            self._watched.clock.add(t0_ms, answer.data["timestamp_ms"])
        self._measured_s = time.monotonic()

    def _get(self, path: str, headers: dict[str, str], params: dict[str, int]) -> Answer:
        token_of(self._watched)
        return self._rest.attempt("GET", path, headers=headers, params=params, timeout_s=WAIT_MS / 1000 + TRY_S)


def _lost(error: SyncAppError) -> Lost:
    # For UNAUTHORIZED, another token was tried already.
    final = error.code in FINAL_REFUSALS or error.code == "UNAUTHORIZED"
    return Lost(Reason(error.code, error.message, final), wait_s=error.retry_after_s or 0.0)
