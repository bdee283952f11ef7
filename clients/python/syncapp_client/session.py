"""One session that is watched and controlled, over a connection that renews itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from syncapp_client import clock as clocks
from syncapp_client import commands
from syncapp_client.errors import TIMEOUT, SyncAppError
from syncapp_client.feeds import Feed, Feeds
from syncapp_client.listeners import Listeners
from syncapp_client.offset import ServerClock
from syncapp_client.rest import Rest
from syncapp_client.retries import Retries
from syncapp_client.supervisor import Supervisor
from syncapp_client.timeline import Timeline
from syncapp_client.tokens import Tokens, TokenSource
from syncapp_client.values import Change, Done, Reading, Reason, State, Status, StatusChange
from syncapp_client.watched import Watched

CONNECT_S = 30.0
COMMAND_S = 15.0


def connect(
    base: str,
    session_id: str,
    *,
    token: TokenSource = None,
    wait: bool = False,
    timeout_s: float = CONNECT_S,
    command_timeout_s: float = COMMAND_S,
) -> Game:
    """Return a session, connected and with its first state. Use it in a `with` block, or `close` it.

    base: the server, as `https://host`. wait: wait for a session that does not exist yet, up to the timeout. Raises
    `SyncAppError`: `SESSION_NOT_FOUND`, `UNAUTHORIZED`, `FORBIDDEN`, …; `TIMEOUT` if there is no connection in time.
    """
    game = Game(base, session_id, token=token, wait=wait, command_timeout_s=command_timeout_s)
    try:
        game.wait_until_live(timeout_s)
    except BaseException:
        game.close()
        raise
    return game


class Game:
    """A session that stays connected until it is deleted or closed. All methods may be called from any thread."""

    def __init__(
        self,
        base: str,
        session_id: str,
        *,
        token: TokenSource = None,
        wait: bool = False,
        command_timeout_s: float = COMMAND_S,
    ) -> None:
        """Begin to connect, without waiting; `connect` waits. Raises `ValueError` if base is not an HTTP address."""
        self.id = session_id
        self.base = base.rstrip("/")
        tokens = Tokens(token)
        self._rest = Rest(base, tokens, Retries(command_timeout_s))
        self._watched = Watched(session_id, tokens, wait, self._report)
        self._timeline: Timeline = self._watched.timeline
        self._status: Status = "connecting"
        self._reason: Reason | None = None
        self._changed = threading.Condition()
        self._status_feeds: Feeds[StatusChange] = Feeds()
        self._listeners = Listeners()
        self._supervisor = Supervisor(self._rest, self._watched, self._finish)
        self._supervisor.start()

    # What is known

    @property
    def state(self) -> State | None:
        """The newest state, settled as of its `server_time_ms`; None before the first. Do not change it."""
        return self._timeline.state

    @property
    def status(self) -> Status:
        """How current the state is."""
        return self._status

    @property
    def reason(self) -> Reason | None:
        """Why the session is not `live`; None if it is."""
        return self._reason

    @property
    def clock(self) -> ServerClock:
        """The server's clock: `now()` and `stats()`."""
        return self._watched.clock

    def remaining(self, owner: str | None = None) -> int | None:
        """Return the time left now, in ms, as `reading` does; None if the clock has no end, or cannot be known now."""
        found = self.reading(owner)
        return None if found is None else found.ms

    def reading(self, owner: str | None = None) -> Reading | None:
        """Return what a clock shows now; None if there is no state, or it runs and the server's time is not known.

        owner: a participant or group; by default the clock that runs or would run. Raises `KeyError` if it is unknown.
        """
        state, now_ms = self._at()
        return None if state is None or now_ms is None else clocks.reading(state, now_ms, owner)

    def elapsed(self) -> int | None:
        """Return how long the running cycle or the stopwatch has run, in ms; None as with `reading`."""
        state, now_ms = self._at()
        return None if state is None or now_ms is None else clocks.elapsed_ms(state, now_ms)

    def _at(self) -> tuple[State | None, float | None]:
        state = self.state
        if state is None or state["status"] == "running":
            return state, self.clock.now()
        return state, state["server_time_ms"]

    def wait_until_live(self, timeout_s: float = CONNECT_S) -> None:
        """Wait until the state is current and the server's clock is known. Raises `SyncAppError`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._status in ("live", "closed"), timeout_s):
                said = "" if self._reason is None else f"; {self._reason.code}: {self._reason.message}"
                raise SyncAppError(TIMEOUT, f"there was no connection within {timeout_s:g} s{said}")
            if self._status == "closed":
                reason = self._reason or Reason("CLOSED", "the session was closed", final=True)
                raise SyncAppError(reason.code, reason.message)

    # Changes

    def watch(self, timeout: float | None = None) -> Feed[Change]:
        """Return an iterator over every version once, in order, beginning with the present state.

        It waits for the next version: for ever, or `timeout` s and then raises `TimeoutError`; it may be used again
        after that. It ends when the session is deleted or closed. Each iterator gets every version.
        """
        return self._timeline.watch(timeout)

    @overload
    def on(self, name: Literal["change"], callback: Callable[[Change], object]) -> Callable[[], None]: ...
    @overload
    def on(self, name: Literal["status"], callback: Callable[[StatusChange], object]) -> Callable[[], None]: ...
    def on(self, name: Literal["change", "status"], callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call a function with each change, or each change of the status; return a function that ends that.

        Each callback has a thread of its own, which may send commands. What it raises is logged.
        """
        if name == "change":
            feed = self._timeline.watch(None)
            return self._listeners.add(feed, callback, lambda: self._timeline.leave(feed))
        if name == "status":
            statuses: Feed[StatusChange] = Feed()
            with self._changed:
                statuses.put(StatusChange(self._status, self._reason))
                self._status_feeds.add(statuses)
            return self._listeners.add(statuses, callback, lambda: self._status_feeds.remove(statuses))
        raise ValueError(f"there is no {name!r} to listen to")

    # Commands. Each returns what it has done, and raises `SyncAppError`.

    def start(self, **fields: Unpack[commands.Start]) -> Done:
        """Start the clock."""
        return self.command("start", **fields)

    def switch(self, **fields: Unpack[commands.Switch]) -> Done:
        """End the active participant's cycle; name it, so that a double press switches once."""
        return self.command("switch", **fields)

    def pause(self, **fields: Unpack[commands.Options]) -> Done:
        """Stop the clock."""
        return self.command("pause", **fields)

    def resume(self, **fields: Unpack[commands.Options]) -> Done:
        """Continue the paused cycle."""
        return self.command("resume", **fields)

    def adjust(self, **fields: Unpack[commands.Adjust]) -> Done:
        """Change what is left on clocks."""
        return self.command("adjust", **fields)

    def takeback(self, **fields: Unpack[commands.Takeback]) -> Done:
        """Take the last cycles back."""
        return self.command("takeback", **fields)

    def reopen(self, **fields: Unpack[commands.Reasoned]) -> Done:
        """Reopen a session that ended by mistake."""
        return self.command("reopen", **fields)

    def complete(self, **fields: Unpack[commands.Complete]) -> Done:
        """Complete the session."""
        return self.command("complete", **fields)

    def cancel(self, **fields: Unpack[commands.Reasoned]) -> Done:
        """Cancel the session."""
        return self.command("cancel", **fields)

    def update(self, metadata: Mapping[str, Any], **fields: Unpack[commands.Options]) -> Done:
        """Merge a patch into the metadata; None removes a member."""
        return self.command("update", metadata=dict(metadata), **fields)

    def delete(self, **fields: Unpack[commands.Options]) -> Done:
        """Delete the session; it is then closed."""
        return self.command("delete", **fields)

    def command(self, name: commands.CommandName, **fields: Any) -> Done:
        """Run a command by its name: over the WebSocket while that is live, else over REST, with one key in all tries.

        Afterwards the effect is in `state`. Raises `SyncAppError`, `TIMEOUT` if there was no answer in time; then
        `outcome_unknown` is true.
        """
        command, tries_rest = commands.Command(name, fields), threading.Event()

        def attempt(left_s: float) -> Done:
            if self._watched.stopped.is_set():
                raise SyncAppError("CLOSED", "the session was closed here")
            connection = self._supervisor.connection
            if connection is not None and self._status == "live" and not tries_rest.is_set():
                try:
                    return connection.ask(command, left_s)
                except SyncAppError as error:
                    if error.code != "OFFLINE":
                        raise
                    tries_rest.set()
            done = self._rest.command(self.id, command, left_s)
            if done.state is not None:
                self._timeline.offer(done.state, None)
            return done

        return self._rest.retries.run(attempt, repeatable=True, changes=True)

    # The end

    def close(self) -> None:
        """End the connection and all threads; `watch` ends. It takes up to some seconds."""
        self._finish(Reason("CLOSED", "the session was closed here", final=True))
        self._supervisor.stop()
        self._listeners.stop()
        self._rest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _finish(self, reason: Reason) -> None:
        self._show("closed", reason)
        self._timeline.end()
        self._status_feeds.end()

    def _report(self, is_current: bool, reason: Reason | None) -> None:
        if is_current and self.clock.known:
            self._show("live", None)
        else:
            self._show("connecting" if self.state is None else "stale", reason)

    def _show(self, status: Status, reason: Reason | None) -> None:
        with self._changed:
            if self._status == "closed" or (status, reason) == (self._status, self._reason):
                return
            self._status, self._reason = status, reason
            self._status_feeds.put(StatusChange(status, reason))
            self._changed.notify_all()
