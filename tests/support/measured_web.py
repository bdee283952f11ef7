"""The application of a web process that measures round trips often, and never pauses a session.

Instead, it answers `pause` with what the command claims.
"""

from __future__ import annotations

from syncapp import create_app
from syncapp.domain.results import Claim, Result
from syncapp.errors import SessionNotFound
from syncapp.server import round_trips
from syncapp.store.sessions import SessionStore


def _pause(_: SessionStore, session_id: str, claim: Claim) -> Result:
    raise SessionNotFound(f"no {session_id} in this test", {"lag_limit_ms": claim.lag_limit_ms})


round_trips.REFRESH_S = 0.05
SessionStore.pause = _pause  # type: ignore[method-assign,assignment]  # this process is for tests only
app = create_app()
