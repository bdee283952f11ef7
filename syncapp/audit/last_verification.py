"""The outcome of the last `flask audit verify` of the whole log, kept in Redis, so that web processes can show it.

Only counts are kept: the findings name sessions of every tenant, and `flask audit verify` prints them.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import redis

from syncapp.store.keys import Keyspace

Outcome = Literal["as_committed", "faults", "incomplete"]
_FIELD = "verified"


class Verification(msgspec.Struct, frozen=True):
    """What one run found.

    outcome: `as_committed`; `faults`: some sessions are not as committed; `incomplete`: the run could not read
    everything. started_ms, finished_ms: by the clock of the machine that ran it. sessions, events: how many were read.
    faulty_sessions: sessions that are not as committed. forks: forks that dead letters explain. erased_parts: private
    parts that were erased, which is no fault.
    """

    outcome: Outcome
    started_ms: int
    finished_ms: int
    sessions: int
    events: int
    faulty_sessions: int
    forks: int
    erased_parts: int


class LastVerification:
    """Records and returns the outcome of the last run."""

    def __init__(self, client: redis.Redis, keyspace: Keyspace) -> None:
        self._client = client
        self._key = keyspace.audit_counts()

    def record(self, verification: Verification) -> None:
        """Replace the outcome. Raises what redis raises."""
        self._client.hset(self._key, _FIELD, msgspec.json.encode(verification))

    def read(self) -> Verification | None:
        """Return the last outcome; None if no run has left one. Raises what redis raises."""
        value: Any = self._client.hget(self._key, _FIELD)
        if value is None:
            return None
        try:
            return msgspec.json.decode(value, type=Verification)
        except msgspec.DecodeError:  # another release wrote it
            return None
