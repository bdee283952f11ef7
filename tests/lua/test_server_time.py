"""The server's clock may jump, and long gaps are settled cycle by cycle (docs/clock.md)."""

from __future__ import annotations

import pytest

from syncapp.domain.results import Claim
from syncapp.errors import Conflict, StoreUnavailable
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.store import NOON_MS, ManualClock, make_store, outbox_messages
from tests.support.store_sessions import MODES, create_running, current_state, event_instants, state_of
from tests.support.types import Redis

# The server's clock


@pytest.mark.parametrize("mode", MODES)
def test_time_stands_still_while_the_servers_clock_is_behind(
    store: SessionStore, clock: ManualClock, mode: str
) -> None:
    session_id = create_running(store, mode)
    clock.advance_ms(4000)
    store.pause(session_id)
    store.resume(session_id)
    clock.advance_ms(-60_000)
    back = store.get(session_id)
    assert (back.now_ms, state_of(back)["clock"]["remaining_ms"]) == (NOON_MS + 4000, 6000)
    store.switch(session_id)
    shown = state_of(store.switch(session_id))
    assert shown["updated_at"] == "2100-01-01T12:00:04.000Z"
    assert sum(person["time_used_ms"] for person in shown["participants"]) == 4000
    clock.set(NOON_MS + 5000)
    assert current_state(store, session_id)["clock"]["elapsed_ms"] == (5000 if mode == "count_up" else 1000)


def test_a_jump_forward_is_applied_once_at_the_deadlines_own_instants(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, "per_cycle", people="ab", warn_at_ms=[1000])
    clock.advance_ms(25_000)
    store.switch(session_id)
    clock.advance_ms(-20_000)
    for _ in range(3):
        store.get(session_id)
    assert event_instants(redis, session_id) == [
        ("time_warning", 9000),
        ("cycle_timed_out", 10_000),
        ("time_warning", 19_000),
        ("cycle_timed_out", 20_000),
        ("cycle_switched", 25_000),
    ]


# Long gaps


def test_a_long_gap_is_settled_cycle_by_cycle_at_its_own_instants(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, "per_cycle", budget_ms=1000, people="abc")
    clock.advance_ms(200_500)
    switched = store.switch(session_id)
    assert event_instants(redis, session_id) == [("cycle_timed_out", 1000 * n) for n in range(1, 201)] + [
        ("cycle_switched", 200_500)
    ]
    assert (switched.found.version, switched.found.cycle_count) == (203, 201)
    assert [person.time_used_ms for person in switched.found.participants] == [67_000, 67_000, 66_500]
    assert [message["version"] for message in outbox_messages(redis, session_id)] == list(range(1, 204))


def test_one_call_applies_at_most_64_and_says_that_more_is_due(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, "per_cycle", budget_ms=1000)
    clock.advance_ms(100_000)
    first, second = store.expire([session_id])[0], store.expire([session_id])[0]
    assert [(len(each.instants_ms), each.more) for each in (first, second)] == [(64, True), (36, False)]  # type: ignore[union-attr]  # no error is expected


def test_a_command_is_begun_only_when_all_is_applied(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_running(store, "per_cycle", budget_ms=1000)
    clock.advance_ms(100_000)
    reply = store._runner._scripts.call(
        "cancel_session",
        Keyspace().commit(session_id),
        [session_id, *[""] * 6, 1000, 1000, 1000, f'"session_id":"{session_id}"', *[""] * 5],
    )
    assert (reply[0], reply[2]) == ("busy", [])
    assert {kind for kind, _ in event_instants(redis, session_id)} == {"cycle_timed_out"}
    assert store.get(session_id).found.version == 102


def test_a_command_that_finds_too_much_due_says_so_and_the_next_one_goes_on(
    store: SessionStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = create_running(store, "per_cycle", budget_ms=1000)
    clock.advance_ms(200_000)
    monkeypatch.setattr("syncapp.store.script_runner.SETTLE_S", 0)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="try again") as refused:
            store.get(session_id)
        assert refused.value.details == {"retry_after_s": 1}
    assert store.pause(session_id).found.version == 203


def test_an_expected_version_is_compared_with_what_has_happened_by_then(
    store: SessionStore, clock: ManualClock
) -> None:
    for gap_ms in (1000, 30_000, 200_000):
        session_id = create_running(store, "per_cycle", budget_ms=1000)
        clock.advance_ms(gap_ms)
        with pytest.raises(Conflict) as refused:
            store.pause(session_id, Claim(expected_version=2))
        assert (refused.value.details or {})["actual_version"] == 2 + gap_ms // 1000
        done = store.pause(session_id, Claim(expected_version=2 + gap_ms // 1000))
        assert (done.found.status, done.found.version) == ("paused", 3 + gap_ms // 1000)


def test_a_nudge_of_a_call_that_did_not_come_to_the_end_is_passed_on(redis_url: str, clock: ManualClock) -> None:
    nudged: list[int] = []
    store = make_store(redis_url, on_nudge=nudged.append)
    session_id = create_running(store, "per_cycle", budget_ms=1000)
    store._client.delete(Keyspace().nudge(Keyspace().bucket(session_id)))
    nudged.clear()
    clock.advance_ms(100_000)
    store.switch(session_id)
    assert nudged == [Keyspace().bucket(session_id)]
