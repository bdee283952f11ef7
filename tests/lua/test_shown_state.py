"""The state that a session shows, and the patches that lead to it."""

from __future__ import annotations

from typing import Any

import pytest

from syncapp.domain.patches import public_patch
from syncapp.store.sessions import SessionStore
from tests.support.store import NOON_MS, ManualClock, make_store, outbox_messages
from tests.support.store_sessions import (
    MODES,
    SKIP,
    create_pending,
    create_running,
    current_state,
    expired_ids,
    state_of,
)
from tests.support.types import Redis


def shows(found: dict[str, Any]) -> tuple[Any, ...]:
    shown = found["clock"]
    deadline = shown["deadline_ms"] and shown["deadline_ms"] - NOON_MS
    return shown["running"], shown["remaining_ms"], shown["elapsed_ms"], deadline


@pytest.mark.parametrize(
    ("mode", "scope"),
    list(zip(MODES, ["participant", "cycle", "group", "session", "session"], strict=True)),
)
def test_the_clock_is_right_in_every_mode_and_status(
    store: SessionStore, clock: ManualClock, mode: str, scope: str
) -> None:
    up = mode == "count_up"
    shared = mode in ("global", "count_up")
    session_id = create_pending(store, mode)
    clock.advance_ms(1000)
    shown = current_state(store, session_id)
    assert (shown["clock"]["scope"], shown["clock"]["direction"]) == (scope, "up" if up else "down")
    assert shows(shown) == (False, 10_000, 0, None)
    store.start(session_id)
    clock.advance_ms(1500)
    assert shows(current_state(store, session_id)) == (True, 8500, 1500, 11_000)
    store.pause(session_id)
    clock.advance_ms(500)
    assert shows(current_state(store, session_id)) == (False, 8500, 1500 if up else 0, None)
    store.resume(session_id)
    clock.advance_ms(500)
    assert shows(current_state(store, session_id)) == (True, 8000, 2000 if up else 500, 11_500)
    store.switch(session_id)
    clock.advance_ms(1000)
    assert shows(current_state(store, session_id)) == (
        True,
        7000 if shared else 9000,
        3000 if up else 1000,
        11_500 if shared else 13_500,
    )
    assert shows(state_of(store.complete(session_id))) == (False, 7000 if shared else 9000, 3000 if up else 0, None)


def test_an_uncapped_stopwatch_has_neither_remaining_nor_deadline(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, {"sync_mode": "count_up", "participants": [{"participant_id": "a"}]})
    clock.advance_ms(1234)
    shown = current_state(store, session_id)
    assert shows(shown) == (True, None, 1234, None)
    assert shown["time_remaining_ms"] is None
    assert "max_time_ms" not in shown


def test_what_is_not_set_is_null_or_absent(store: SessionStore) -> None:
    shown = current_state(store, create_pending(store))
    assert not {"max_time_ms", "groups", "warn_at_ms", "max_cycles", "time_used_ms"} & set(shown)
    assert "group_id" not in shown["participants"][0]
    for name in ("active_participant_id", "time_per_cycle_ms", "cycle_started_at", "session_started_at"):
        assert shown[name] is None
    assert (shown["session_completed_at"], shown["increment_ms"]) == (None, 0)


@pytest.mark.parametrize("mode", MODES)
def test_public_patches_over_a_public_state_give_every_later_one(
    store: SessionStore, clock: ManualClock, redis: Redis, mode: str
) -> None:
    session_id = create_pending(store, mode, people="abc", action_on_timeout=SKIP, max_cycles=6)
    document, version = current_state(store, session_id), 1
    steps = ["start", "switch", "pause", "adjust", "resume", "get", "switch", "update", "switch", "pause", "complete"]
    for step in steps:
        clock.advance_ms(10_000 if step == "get" and mode not in ("global", "count_up") else 500)
        args = {"op": "add", "ms": -100} if step == "adjust" else {"metadata": {"a": 1}} if step == "update" else {}
        shown = state_of(getattr(store, step)(session_id, **args))
        for message in outbox_messages(redis, session_id)[version:]:
            patch = public_patch({**message["patch"], "idle_ms": message.get("idle_ms")})
            for holders, key in (("participants", "participant_id"), ("groups", "group_id")):
                changed = patch.pop(holders, {})
                for holder in document.get(holders, []):
                    holder.update(changed.get(holder[key], {}))
            document |= patch
            version += 1
            assert document["version"] == version
        assert document | {"clock": shown["clock"], "server_time_ms": shown["server_time_ms"]} == shown
    assert shown["status"] == "completed"


@pytest.mark.parametrize("count", [100, 129, 300])
def test_the_members_of_a_large_group_are_marked_together_and_unmarked(
    store: SessionStore, clock: ManualClock, redis_url: str, count: int
) -> None:
    people = [{"participant_id": f"p{i}", "group_id": "GH"[i % 2], "total_time_ms": 1000} for i in range(count)]
    new = {"sync_mode": "per_group", "participants": people, "action_on_timeout": SKIP}
    session_id = create_running(store, new)
    clock.advance_ms(1000 * ((count + 1) // 2))
    for reader in (store, make_store(redis_url)):
        assert expired_ids(current_state(reader, session_id)) == [f"p{i}" for i in range(0, count, 2)]
    shown = state_of(store.adjust(session_id, op="set", ms=1000, group_id="G"))
    assert expired_ids(shown) == expired_ids(current_state(make_store(redis_url), session_id)) == []
    assert sum(person["time_used_ms"] for person in shown["participants"]) == 1000 * ((count + 1) // 2)
