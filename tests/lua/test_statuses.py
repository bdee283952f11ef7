"""Which commands each status allows."""

from __future__ import annotations

import pytest

from syncapp.errors import InvalidTransition
from syncapp.store.sessions import SessionStore
from tests.support.store import ManualClock, dump_session
from tests.support.store_sessions import create_pending
from tests.support.types import Redis

FROM = {
    "start": {"pending"},
    "switch": {"running"},
    "pause": {"running"},
    "resume": {"paused"},
    "adjust": {"pending", "running", "paused"},
    "complete": {"pending", "running", "paused", "completed"},
    "cancel": {"pending", "running", "paused", "cancelled"},
}


@pytest.mark.parametrize("status", ["pending", "running", "paused", "completed", "expired", "cancelled"])
@pytest.mark.parametrize("command", FROM)
def test_a_command_out_of_place_is_refused_and_changes_nothing(
    store: SessionStore, clock: ManualClock, redis: Redis, command: str, status: str
) -> None:
    session_id = create_pending(store)
    for step in {"pending": [], "running": ["start"], "paused": ["start", "pause"]}.get(status, ["start"]):
        getattr(store, step)(session_id)
    if status in ("completed", "cancelled"):
        getattr(store, {"completed": "complete", "cancelled": "cancel"}[status])(session_id)
    if status == "expired":
        clock.advance_ms(10_000)
    assert store.get(session_id).found.status == status
    before = dump_session(redis, session_id)
    args = {"op": "add", "ms": 1} if command == "adjust" else {}
    if status in FROM[command]:
        getattr(store, command)(session_id, **args)
        assert (dump_session(redis, session_id) == before) == (status in ("completed", "cancelled"))
        return
    with pytest.raises(InvalidTransition, match=f"cannot {command} a session that is {status}") as refused:
        getattr(store, command)(session_id, **args)
    assert refused.value.details["status"] == status
    assert dump_session(redis, session_id) == before
