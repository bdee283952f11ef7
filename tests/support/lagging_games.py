"""Games with lag compensation, in a store."""

from __future__ import annotations

from typing import Any

from syncapp.domain.results import Claim
from syncapp.store.sessions import SessionStore
from tests.support.store_sessions import controlled_body, create_running, current_state

PLAIN = {"time_ms": 10_000}
BYO_YOMI = {"time_ms": 1000, "periods": 3, "period_ms": 1000}
CANADIAN = {"time_ms": 1000, "period_moves": 2, "period_ms": 3000}
UNLIMITED = 10_000
QUOTA_MS = 500


def lagging(store: SessionStore, stage: dict[str, Any] = PLAIN, per_move_ms: int = 0, **more: Any) -> str:
    """Return a running session of a and b whose lag is compensated."""
    quota = {"per_move_ms": per_move_ms, "quota_ms": more.pop("quota_ms", QUOTA_MS)}
    return create_running(store, controlled_body({"stages": [stage]}, lag_compensation=quota) | more)


def switch(store: SessionStore, session_id: str, limit_ms: int | None = UNLIMITED, **more: Any) -> dict[str, Any]:
    """Switch over a connection whose lag may be at most limit_ms; return the event."""
    event = store.switch(session_id, Claim(lag_limit_ms=limit_ms), **more).event
    assert event
    return dict(event)


def quotas(store: SessionStore, session_id: str) -> list[int]:
    return [person["lag_left_ms"] for person in current_state(store, session_id)["participants"]]
