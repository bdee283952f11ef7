"""Connections to PostgreSQL, and transactions for native threads.

psycopg2 blocks the thread that calls it, and under gevent every greenlet of that thread. `Database` is for native
threads only (the worker, commands); greenlets use `check` and `ReadPool`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg2
import structlog
from psycopg2 import extensions

from syncapp.postgres.failures import CONNECTION_ERRORS
from syncapp.postgres.idle_connections import IDLE_S, IdleCloser

log = structlog.get_logger(__name__)

Connection = extensions.connection
Cursor = extensions.cursor
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 30
_STREAMED_AT_ONCE = 500


def connect(database_url: str, *, connect_timeout_s: int = CONNECT_TIMEOUT_S) -> Connection:
    """Return a new connection that detects a dead server within 30 s; parameters in the URL take precedence.

    Raises `psycopg2.OperationalError`, and `psycopg2.ProgrammingError` for an invalid URL.
    """
    defaults: dict[str, Any] = {
        "application_name": "syncapp",
        "connect_timeout": connect_timeout_s,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    connection: Connection = psycopg2.connect(**(defaults | extensions.parse_dsn(database_url)))
    return connection


def stream(connection: Connection, name: str, query: str, arguments: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield a query's rows through a server-side cursor of this name, 500 at a time. Raises what psycopg2 raises."""
    with connection.cursor(name) as cursor:
        cursor.itersize = _STREAMED_AT_ONCE
        cursor.execute(query, arguments or None)
        yield from cursor


class Database:
    """Transactions for native threads, each on its own connection.

    It holds at most as many connections as threads have used at the same time. A connection unused for 5 s is closed.
    max_transaction_s: the connection of a longer transaction is shut down; None for no limit. libpq has no such limit,
    and the server's own limits do not help when the server hangs.
    """

    def __init__(self, database_url: str, *, max_transaction_s: float | None = None) -> None:
        self._url = database_url
        self._max_transaction_s = max_transaction_s
        self._used: dict[Connection, float] = {}  # since when
        self._idle: list[tuple[float, Connection]] = []  # the last used is at the end, and is used next
        self._lock = threading.Lock()
        self._closer = IdleCloser(self._close_idle_and_hanging)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Yield a cursor in a transaction, which is committed at the end and rolled back by any exception.

        Raises what psycopg2 raises. After one of `CONNECTION_ERRORS`, or if the server has become read-only, the next
        transaction gets a new connection.
        """
        connection = self._begin()
        self._used[connection] = time.monotonic()
        try:
            with connection.cursor() as cursor:
                yield cursor
            connection.commit()
        except BaseException as error:
            # A server that has become read-only may no longer be the primary, and a read-only session stays read-only.
            is_unusable = isinstance(error, (*CONNECTION_ERRORS, psycopg2.errors.ReadOnlySqlTransaction))
            if is_unusable or not _roll_back(connection):
                _close(connection)
                self.close()
            else:
                self._release(connection)
            raise
        finally:
            self._used.pop(connection, None)
        self._release(connection)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.close_idle(0.0)

    def close_idle(self, idle_s: float = IDLE_S) -> None:
        """Close the connections that have been idle for longer than `idle_s`."""
        latest = time.monotonic() - idle_s
        with self._lock:
            old = [connection for since, connection in self._idle if since <= latest]
            self._idle = [(since, connection) for since, connection in self._idle if since > latest]
        for connection in old:
            _close(connection)

    def _close_idle_and_hanging(self) -> None:
        """Close idle connections, and shut down those whose server has stopped responding."""
        self.close_idle()
        now_s = time.monotonic()
        for connection, since_s in list(self._used.items()) if self._max_transaction_s else ():
            if now_s - since_s > (self._max_transaction_s or 0):
                log.warning("postgresql_hangs", for_s=round(now_s - since_s))
                _shut_down(connection)

    def _begin(self) -> Connection:
        self._closer.start()
        while True:
            with self._lock:
                connection = self._idle.pop()[1] if self._idle else None
            if connection is None:
                return _with_limits(connect(self._url))
            try:
                return _with_limits(connection)
            except CONNECTION_ERRORS:
                # It broke while it was idle. The transaction has done nothing yet, so another connection can take it.
                _close(connection)

    def _release(self, connection: Connection) -> None:
        with self._lock:
            self._idle.append((time.monotonic(), connection))


def _roll_back(connection: Connection) -> bool:
    """Roll back; return whether that succeeded."""
    try:
        connection.rollback()
    except psycopg2.Error:
        return False
    return True


def _shut_down(connection: Connection) -> None:
    """Shut the socket of a connection in use; the thread that waits on it gets an `OperationalError`."""
    with contextlib.suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(connection.fileno())) as raw:
        raw.shutdown(socket.SHUT_RDWR)


def _close(connection: Connection) -> None:
    with contextlib.suppress(psycopg2.Error):
        connection.close()


def _with_limits(connection: Connection) -> Connection:
    """Begin a transaction with its time limits. They are set here because a pooler may refuse them at connection."""
    limits = ("statement_timeout", "idle_in_transaction_session_timeout")
    try:
        with connection.cursor() as cursor:
            cursor.execute("; ".join(f"SET LOCAL {name} = '{STATEMENT_TIMEOUT_S}s'" for name in limits))
    except BaseException:
        _close(connection)
        raise
    return connection
