"""Erasures: remove private parts from the audit log (docs/audit.md, "Erase personal data").

migrations/005_erasures.sql has the functions, which are the only ones that may change or delete rows of the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from msgspec import Struct
from msgspec.json import Decoder

from syncapp.domain.principal import DEFAULT_TENANT
from syncapp.postgres.database import Cursor, Database

ENTRY_PREFIX = b'{"erase":'
"""How the outbox entries begin that ask for an erasure; the delete script writes them."""
_ERASE_SESSION = "SELECT sync_erase_session(%s, %s, %s)"
_ERASE_PRINCIPAL = "SELECT sync_erase_principal(%s, %s, %s)"
_CREATED = "SELECT count(*) FROM sync_sessions WHERE tenant = %s AND principal = %s"
_REPEAT = "SELECT sync_repeat_erasures()"


class _Named(Struct):
    session_id: str
    tenant: str = DEFAULT_TENANT


class _Entry(Struct):
    erase: _Named
    before: int


_read = Decoder(_Entry).decode


@dataclass(frozen=True, slots=True)
class SessionErasure:
    """The erasure of a session in the log, in its epochs up to an instant (ms)."""

    tenant: str
    log_id: str
    before_ms: int

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Parse an outbox entry. Raises what its parsing raises."""
        entry = _read(raw)
        return cls(entry.erase.tenant, entry.erase.session_id, entry.before)

    def apply(self, cursor: Cursor) -> int:
        """Erase; return the number of changed rows. It may be applied again."""
        return _number(cursor, _ERASE_SESSION, self.tenant, self.log_id, self.before_ms)


def erase_principal(database: Database, tenant: str, sub: str, until_ms: int) -> tuple[int, int]:
    """Erase a principal, and the reasons and results that it gave, in commits up to an instant (ms).

    Returns the number of changed rows, and the number of sessions that it created, whose metadata stay. Raises what
    psycopg2 raises.
    """
    with database.transaction() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        created = _number(cursor, _CREATED, tenant, sub)
        return _number(cursor, _ERASE_PRINCIPAL, tenant, sub, until_ms), created


def repeat_erasures(database: Database) -> int:
    """Repeat the erasures of the last day, for events that were stored after them; return how many rows changed."""
    with database.transaction() as cursor:
        return _number(cursor, _REPEAT)


def _number(cursor: Cursor, query: str, *arguments: str | int) -> int:
    cursor.execute(query, arguments)
    ((number,),) = cursor.fetchall()
    return int(number)
