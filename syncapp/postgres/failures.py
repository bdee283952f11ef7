"""Failures of PostgreSQL by category, each with our own sentence.

The driver's text names hosts, ports, users and databases. It goes to the log and to the output of commands only;
clients and `/ready` get a `Failure`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import psycopg2
import structlog

CONNECTION_ERRORS = (psycopg2.OperationalError, psycopg2.InterfaceError)
"""What psycopg2 raises when the server cannot be reached or the connection is lost."""
_SENTENCES = {
    "unreachable": "cannot be reached",
    "slow": "does not answer in time",
    "refuses_login": "refuses the login",
    "too_many_connections": "has no connection left",
    "starting_up": "is starting up",
    "shutting_down": "is shutting down",
    "standby": "is a standby, not a primary",
    "read_only": "is read-only",
    "disk_full": "is out of disk",
    "out_of_resources": "is out of memory or has reached another limit",
    "not_migrated": "is not migrated: run flask db upgrade",
    "newer_schema": "has a newer schema than this release",
    "lacks_rights": "does not grant the required rights",
    "failing": "fails; see its log",
}
"""The sentence of each category, without its subject, PostgreSQL."""
_BY_STATE = (
    ("57P01", "shutting_down"),
    ("57P02", "shutting_down"),
    ("57P03", "starting_up"),
    ("57014", "slow"),
    ("53100", "disk_full"),
    ("53300", "too_many_connections"),
    ("53", "out_of_resources"),
    ("25006", "read_only"),
    ("42501", "lacks_rights"),
    ("28", "refuses_login"),
    ("3D000", "refuses_login"),
    ("42P01", "not_migrated"),
    ("42703", "not_migrated"),
    ("42704", "not_migrated"),
    ("42883", "not_migrated"),
    ("3F000", "not_migrated"),
    ("08", "unreachable"),
    ("58", "failing"),
    ("XX", "failing"),
)
"""Categories by prefix of the SQLSTATE; the first match counts."""
_BY_TEXT = (
    ("too many connections", "too_many_connections"),
    ("too many clients", "too_many_connections"),
    ("connection slots are reserved", "too_many_connections"),
    ("no more connections allowed", "too_many_connections"),  # PgBouncer
    ("starting up", "starting_up"),
    ("recovery mode", "starting_up"),
    ("not yet accepting", "starting_up"),
    ("not accepting", "starting_up"),
    ("shutting down", "shutting_down"),
    ("administrator command", "shutting_down"),
    ("No space left", "disk_full"),
    ("read-only", "read_only"),
    ("server login", "unreachable"),  # PgBouncer, if its server is down
    ("cannot connect to server", "unreachable"),
    ("FATAL", "refuses_login"),
    ("no password supplied", "refuses_login"),
)
"""Categories by text of a connection error, which has no SQLSTATE from libpq; the first match counts."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is wrong with PostgreSQL: a category, and a sentence that may be shown to clients."""

    category: str
    sentence: str

    @classmethod
    def of(cls, category: str, more: str = "") -> Failure:
        """Return the failure of a category; `more` is appended to its sentence."""
        return cls(category, _SENTENCES[category] + more)

    def __str__(self) -> str:
        return self.sentence


CATEGORIES = frozenset(_SENTENCES)


def failure_of(error: BaseException) -> Failure | None:
    """Return what a psycopg2 error says about the server; None if it is about the query or the data."""
    if not isinstance(error, psycopg2.Error):
        return None
    category = next((word for state, word in _BY_STATE if (error.pgcode or "").startswith(state)), None)
    if category is None and not error.pgcode and isinstance(error, CONNECTION_ERRORS):
        category = next((word for text, word in _BY_TEXT if text in str(error)), "unreachable")
    return Failure.of(category) if category else None


class FailureLog:
    """Logs a failure when it begins, with the driver's whole text, and when it ends."""

    def __init__(self, source: str) -> None:
        self._log = structlog.get_logger(__name__).bind(by=source)
        self._category: str | None = None
        self._lock = threading.Lock()

    def note(self, failure: Failure | None, text: str = "") -> None:
        """Record the current failure, or None; logs changes only."""
        category = failure.category if failure else None
        with self._lock:
            before, self._category = self._category, category
        if category == before:
            return
        if failure:
            self._log.warning("postgresql_trouble", category=category, what=failure.sentence, error=text)
        else:
            self._log.info("postgresql_is_well", was=before)
