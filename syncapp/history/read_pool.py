"""Read-only queries for web processes: they run in native threads, over a bounded number of connections.

psycopg2 blocks the thread that waits for a result, and under gevent every greenlet of that thread. Here only the caller
waits, up to a time limit, whatever is wrong with PostgreSQL.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import orjson
import psycopg2
from psycopg2 import extras

from syncapp.errors import AuditUnavailable, one_line
from syncapp.postgres.database import Connection, Cursor, connect
from syncapp.postgres.failures import CONNECTION_ERRORS, Failure, FailureLog, failure_of
from syncapp.postgres.idle_connections import IDLE_S, IdleCloser
from syncapp.postgres.native_threads import NativeThreads

_CONNECT_TIMEOUT_S = 2
_MAX_WAITING_PER_CONNECTION = 8
_POLL_S = 0.005
_PAUSE_S = 1.0  # no new connection is tried for this long after one failed
_T = TypeVar("_T")


class ReadPool:
    """Runs read-only queries, each in one snapshot of the database.

    It does not connect before the first query. A connection unused for 5 s is closed.
    """

    def __init__(self, database_url: str, *, connections: int = 4, timeout_s: float = 5.0) -> None:
        self._url = database_url
        self._connections = connections
        self._timeout_s = timeout_s
        self._threads: NativeThreads | None = None
        self._waiting = 0
        # Native threads and greenlets both use these. Deques need no lock, and gevent's locks cannot serve both.
        self._permits: deque[None] = deque([None] * connections)
        self._idle: deque[tuple[float, Connection]] = deque()  # the last used is at the end, and is used next
        self._paused: tuple[float, Failure] | None = None  # until when, and why
        self._closer = IdleCloser(self.close_idle)
        self._failures = FailureLog("history")

    def ask(self, query: Callable[[Cursor], _T]) -> _T:
        """Call `query` with a cursor in a native thread, and return its result.

        Raises `AuditUnavailable` if PostgreSQL cannot be reached, is too slow, or has too many queries waiting. Its
        reason is our own text; the driver's text goes to the log.
        """
        if (paused := self._paused) and time.monotonic() < paused[0]:
            raise _unavailable(paused[1].sentence)
        if self._waiting >= self._connections * _MAX_WAITING_PER_CONNECTION:
            raise _unavailable("too many queries are waiting")
        end_s = time.monotonic() + self._timeout_s
        self._waiting += 1
        try:
            self._wait_for_permit(end_s)
        finally:
            self._waiting -= 1
        self._threads = self._threads or NativeThreads(self._connections)
        try:
            self._closer.start()
            call = self._threads.submit(partial(self._with_connection, query), partial(self._permits.append, None))
        except BaseException:
            self._permits.append(None)
            raise
        try:
            result = call.result(max(0.0, end_s - time.monotonic()))
        except (TimeoutError, psycopg2.errors.QueryCanceled):
            raise _unavailable(f"no answer within {self._timeout_s:g} s") from None
        except psycopg2.errors.ReadOnlySqlTransaction:
            raise  # the query is wrong, not the server
        except psycopg2.Error as error:
            failure = failure_of(error)
            if failure is None:
                raise
            self._failures.note(failure, one_line(error))
            raise _unavailable(failure.sentence) from error
        self._failures.note(None)
        return result

    def close(self) -> None:
        """Close the connections that are not in use."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop()[1].close()

    def close_idle(self, idle_s: float = IDLE_S) -> None:
        """Close the connections that have been idle for longer than `idle_s`."""
        latest = time.monotonic() - idle_s
        while True:
            # It holds a permit meanwhile, so that a query that finds no idle connection does not exceed the limit.
            try:
                self._permits.pop()
            except IndexError:
                return
            try:
                since, connection = self._idle.popleft()
                if since > latest:
                    self._idle.appendleft((since, connection))
                    return
                connection.close()
            except IndexError:
                return
            finally:
                self._permits.append(None)

    def _wait_for_permit(self, end_s: float) -> None:
        """Take a permit. Polls every 5 ms: a native thread may return one, and cannot wake a greenlet."""
        while True:
            with contextlib.suppress(IndexError):
                return self._permits.pop()
            if time.monotonic() >= end_s:
                raise _unavailable(f"no connection was free within {self._timeout_s:g} s")
            time.sleep(_POLL_S)

    # The following methods run in a native thread.

    def _with_connection(self, query: Callable[[Cursor], _T]) -> _T:
        with contextlib.suppress(IndexError):
            _, connection = self._idle.pop()
            try:
                return self._execute(connection, query)
            except psycopg2.errors.QueryCanceled:
                raise
            except CONNECTION_ERRORS:
                # The connection broke while it was idle. A query changes nothing, so it is repeated.
                self.close()
        return self._execute(self._connect(), query)

    def _execute(self, connection: Connection, query: Callable[[Cursor], _T]) -> _T:
        try:
            with connection.cursor() as cursor:
                # Set here, because a pooler may refuse it at connection.
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{self._timeout_s}s"])
                return query(cursor)
        finally:
            try:
                connection.rollback()
                self._idle.append((time.monotonic(), connection))
            except psycopg2.Error:
                connection.close()

    def _connect(self) -> Connection:
        try:
            connection = connect(self._url, connect_timeout_s=_CONNECT_TIMEOUT_S)
        except psycopg2.Error as error:
            self._paused = (time.monotonic() + _PAUSE_S, failure_of(error) or Failure.of("failing"))
            raise
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        for register in (extras.register_default_json, extras.register_default_jsonb):
            register(connection, loads=orjson.loads)
        return connection


def _unavailable(reason: str) -> AuditUnavailable:
    return AuditUnavailable("the audit log does not answer; try again", {"retry_after_s": 1, "reason": reason})
