"""PostgreSQL for web processes: questions are asked in native threads, over a bounded number of connections.

psycopg2 stops the thread that waits for an answer, and under gevent with it every greenlet. Here only who
asked waits, no longer than a limit; whatever is wrong with PostgreSQL, that is all that comes of it.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import NoReturn, TypeVar

import orjson
import psycopg2
from psycopg2 import extras

from syncapp.errors import AuditUnavailable, one_line
from syncapp.postgres.database import Connection, Cursor, connect
from syncapp.postgres.failures import AWAY, Failure, FailureLog, failure_of
from syncapp.postgres.idle_connections import IDLE_S, IdleCloser
from syncapp.postgres.native_probe import native_threads

_CONNECT_TIMEOUT_S = 2
_WAITING_PER_CONNECTION = 8
_LOOK_S = 0.005
_AWAY_S = 1.0  # after a connection was refused, nobody tries for so long
_T = TypeVar("_T")


class ReadPool:
    """Runs read-only queries; each sees one state of the database.

    Nothing connects before the first query, and a connection unused for 5 s is closed.
    """

    def __init__(self, database_url: str, *, connections: int = 4, timeout_s: float = 5.0) -> None:
        self._url = database_url
        self._connections = connections
        self._timeout_s = timeout_s
        self._executor: Executor | None = None
        self._waiting = 0
        # Native threads put in and take out, greenlets too: no locks here, for gevent's are no use to both.
        self._permits: deque[None] = deque([None] * connections)
        self._idle: deque[tuple[float, Connection]] = deque()  # the one used last is at the end, and is used next
        self._away: tuple[float, Failure] | None = None
        self._closer = IdleCloser(self.close_idle)
        self._streak = FailureLog("history")

    def ask(self, question: Callable[[Cursor], _T]) -> _T:
        """Call `question` in a native thread with a cursor, and return what it returns.

        Raises `AuditUnavailable` when PostgreSQL is away, too slow, or asked by too many at once already; its reason is
        in our words; the driver's text is in the log.
        """
        if (away := self._away) and time.monotonic() < away[0]:
            raise _unavailable(away[1].sentence)
        if self._waiting >= self._connections * _WAITING_PER_CONNECTION:
            raise _unavailable("too many questions at once")
        end_s = time.monotonic() + self._timeout_s
        self._waiting += 1
        try:
            # Here, because gevent's executor lets who submits wait for a thread, for ever if need be.
            self._wait_for_permit(end_s)
        finally:
            self._waiting -= 1
        self._executor = self._executor or native_threads(self._connections)
        self._closer.start()
        try:
            future = self._executor.submit(self._answer, question)
        except BaseException:
            self._permits.append(None)
            raise
        try:
            answer = future.result(max(0.0, end_s - time.monotonic()))()
        except (FutureTimeoutError, psycopg2.errors.QueryCanceled):
            raise _unavailable(f"no answer within {self._timeout_s:g} s") from None
        except psycopg2.errors.ReadOnlySqlTransaction:
            raise  # the query is wrong, not the server
        except psycopg2.Error as error:
            trouble = failure_of(error)
            if trouble is None:
                raise
            self._streak.note(trouble, one_line(error))
            raise _unavailable(trouble.sentence) from error
        self._streak.note(None)
        return answer

    def close(self) -> None:
        """Close the connections that nobody uses now."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop()[1].close()

    def close_idle(self, idle_s: float = IDLE_S) -> None:
        """Close the connections that have been idle for too long."""
        latest = time.monotonic() - idle_s
        while True:
            # Holds a permit meanwhile, so that a caller who finds no idle connection does not exceed the limit.
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
        """Take a permit, looking for one now and then: a native thread that gives one back can wake no greenlet."""
        while True:
            with contextlib.suppress(IndexError):
                return self._permits.pop()
            if time.monotonic() >= end_s:
                raise _unavailable(f"no connection was free within {self._timeout_s:g} s")
            time.sleep(_LOOK_S)

    # In a native thread.

    def _answer(self, question: Callable[[Cursor], _T]) -> Callable[[], _T]:
        """Return what returns the answer, or raises: gevent would print an exception that leaves its thread."""
        try:
            found = self._found(question)
        except Exception as error:  # noqa: BLE001  # whoever asked gets it
            return partial(_raise, error)
        else:
            return lambda: found
        finally:
            self._permits.append(None)

    def _found(self, question: Callable[[Cursor], _T]) -> _T:
        with contextlib.suppress(IndexError):
            _, connection = self._idle.pop()
            try:
                return self._put(connection, question)
            except psycopg2.errors.QueryCanceled:
                raise
            except AWAY:  # it broke while nobody used it; nothing was changed, so the question is asked again
                self.close()
        return self._put(self._connect(), question)

    def _put(self, connection: Connection, question: Callable[[Cursor], _T]) -> _T:
        try:
            with connection.cursor() as cursor:
                # Set here, because a pooler may refuse it at the start.
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{self._timeout_s}s"])
                return question(cursor)
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
            self._away = (time.monotonic() + _AWAY_S, failure_of(error) or Failure.of("failing"))
            raise
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        for register in (extras.register_default_json, extras.register_default_jsonb):
            register(connection, loads=orjson.loads)
        return connection


def _raise(error: Exception) -> NoReturn:
    raise error


def _unavailable(reason: str) -> AuditUnavailable:
    return AuditUnavailable("the audit log does not answer; try again", {"retry_after_s": 1, "reason": reason})
