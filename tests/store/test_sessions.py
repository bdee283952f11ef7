"""The store: what each command changes and refuses, with a clock that the test sets."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncapp.domain.patches import patch_of
from syncapp.domain.results import Claim, Result
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session import Session
from syncapp.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidTransition,
    NotActiveParticipant,
    SessionExists,
    SessionNotFound,
    SyncError,
    ValidationFailed,
)
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.store import (
    NOON_MS,
    ManualClock,
    chess_request,
    crowd_request,
    dump_session,
    make_store,
    outbox_messages,
)
from tests.support.types import Redis


def remaining(session: Session) -> list[int]:
    return [person.time_remaining_ms for person in session.participants]


def test_a_new_session_is_pending_at_version_1_and_its_epoch_is_its_instant(store: SessionStore) -> None:
    made = store.create(chess_request(metadata={"round": 1}))
    assert made.event == {"type": "session_created", "at_ms": NOON_MS}
    state = made.found.state(made.now_ms)
    assert (state["status"], state["version"], state["epoch"]) == ("pending", 1, NOON_MS)
    assert state["created_at"] == state["updated_at"] == "2100-01-01T12:00:00.000Z"
    assert state["total_time_ms"] == 600_000
    assert state["metadata"] == {"round": 1}
    assert state["active_participant_id"] is None
    assert state["clock"] == {
        "scope": "participant",
        "direction": "down",
        "running": False,
        "remaining_ms": 300_000,
        "elapsed_ms": 0,
        "deadline_ms": None,
    }


def test_a_switch_charges_the_mover_and_credits_the_increment_to_it(
    store: SessionStore, clock: ManualClock, running: str
) -> None:
    clock.advance_ms(5123)
    result = store.switch(running)
    assert remaining(result.found) == [300_000 - 5123 + 3000, 300_000]
    assert result.found.participants[0].time_used_ms == 5123
    assert [person.cycle_count for person in result.found.participants] == [1, 0]
    assert (result.found.cycle_count, result.found.active_participant_id) == (1, "black")
    assert result.event == {
        "type": "cycle_switched",
        "at_ms": NOON_MS + 5123,
        "participant_id": "white",
        "next_participant_id": "black",
        "remaining_ms": 297_877,
    }


def test_the_live_clock_is_arithmetic_on_the_settled_one(store: SessionStore, clock: ManualClock, running: str) -> None:
    clock.advance_ms(5123)
    result = store.get(running)
    state = result.found.state(result.now_ms)
    assert state["participants"][0]["time_remaining_ms"] == 300_000
    assert state["clock"]["remaining_ms"] == 294_877
    assert state["clock"]["elapsed_ms"] == 5123
    assert state["clock"]["deadline_ms"] == NOON_MS + 300_000


def test_pause_and_resume_neither_lose_nor_gain_a_millisecond(
    store: SessionStore, clock: ManualClock, running: str
) -> None:
    clock.advance_ms(1001)
    paused = store.pause(running)
    assert paused.found.state(paused.now_ms)["cycle_started_at"] is None
    assert remaining(paused.found)[0] == 298_999
    clock.advance_ms(3_000_000)
    assert store.get(running).found.clock(clock.now_ms)["remaining_ms"] == 298_999
    resumed = store.resume(running)
    assert (resumed.found.cycle_count, remaining(resumed.found)[0]) == (0, 298_999)
    clock.advance_ms(999)
    switched = store.switch(running)
    assert switched.found.participants[0].time_used_ms == 2000
    assert remaining(switched.found)[0] == 298_000 + 3000


@pytest.mark.parametrize("after_ms", [0, 1, 1_000_000])
def test_the_timeout_happens_at_its_own_instant_however_late_it_is_noticed(
    store: SessionStore, clock: ManualClock, redis: Redis, running: str, after_ms: int
) -> None:
    clock.advance_ms(300_000 + after_ms)
    found = store.get(running).found
    state = found.state(clock.now_ms)
    assert (state["status"], state["session_completed_at"]) == ("expired", "2100-01-01T12:05:00.000Z")
    assert state["active_participant_id"] is None
    white = found.participants[0]
    assert (white.time_used_ms, white.time_remaining_ms, white.has_expired) == (300_000, 0, True)
    last = outbox_messages(redis, running)[-1]
    assert last["event"] == {
        "type": "participant_expired",
        "at_ms": NOON_MS + 300_000,
        "participant_id": "white",
        "remaining_ms": 0,
        "action_on_timeout": {"type": "end_session"},
    }
    assert last["actor"] == "system"


def test_one_millisecond_before_the_deadline_a_switch_is_in_time(
    store: SessionStore, clock: ManualClock, running: str
) -> None:
    clock.advance_ms(299_999)
    assert remaining(store.switch(running).found)[0] == 1 + 3000


def test_at_the_deadline_a_switch_is_too_late_and_earns_no_increment(
    store: SessionStore, clock: ManualClock, running: str
) -> None:
    clock.advance_ms(300_000)
    with pytest.raises(InvalidTransition, match="cannot switch a session that is expired") as refused:
        store.switch(running)
    assert refused.value.details["expired_participant_id"] == "white"
    assert refused.value.details["current"]["participants"][0]["time_remaining_ms"] == 0
    assert store.get(running).found.version == 3


def test_a_sessions_time_never_runs_backwards(store: SessionStore, clock: ManualClock, running: str) -> None:
    clock.advance_ms(10_000)
    store.switch(running)
    clock.advance_ms(-8000)
    result = store.switch(running)
    assert result.now_ms == NOON_MS + 10_000
    assert result.found.participants[1].time_used_ms == 0
    assert result.found.updated_ms == NOON_MS + 10_000


def test_an_idle_session_is_cancelled_at_its_idle_instant(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = store.create(chess_request(idle_timeout_s=60)).found.session_id
    clock.advance_ms(59_999)
    assert store.get(session_id).found.status == "pending"
    clock.advance_ms(500_000)
    found = store.get(session_id).found
    assert (found.status, found.session_completed_ms) == ("cancelled", NOON_MS + 60_000)
    assert outbox_messages(redis, session_id)[-1]["event"]["reason"] == "idle"


def test_a_running_clock_is_never_idle_before_its_deadline(store: SessionStore, clock: ManualClock) -> None:
    session_id = store.create(chess_request(86_400_000, idle_timeout_s=1)).found.session_id
    store.start(session_id)
    clock.advance_ms(86_399_999)
    assert store.get(session_id).found.status == "running"
    clock.advance_ms(1)
    assert store.get(session_id).found.status == "expired"


def test_a_live_session_has_no_lifetime_and_a_terminal_one_goes_after_the_ttl(
    store: SessionStore, clock: ManualClock, redis: Redis, running: str
) -> None:
    key = Keyspace().session(running)
    bucket = Keyspace().bucket(running)
    assert redis.pexpiretime(key) == -1
    assert redis.zscore(Keyspace().deadlines(bucket), running) == NOON_MS + 300_000
    clock.advance_ms(300_000 + 5000)
    store.get(running)
    assert redis.pexpiretime(key) == clock.now_ms + 3_600_000
    assert redis.zscore(Keyspace().deadlines(bucket), running) is None


def test_start_may_name_who_begins(store: SessionStore) -> None:
    session_id = store.create(chess_request()).found.session_id
    assert store.start(session_id, participant_id="black").found.active_participant_id == "black"


def test_one_participant_alone_hands_the_turn_to_itself(store: SessionStore, clock: ManualClock) -> None:
    session_id = store.create(crowd_request(1, increment_ms=500)).found.session_id
    store.start(session_id)
    clock.advance_ms(1000)
    found = store.switch(session_id).found
    assert (found.active_participant_id, remaining(found)) == ("p0", [299_500])


def test_complete_and_cancel_are_idempotent_and_final(store: SessionStore, running: str) -> None:
    done = store.complete(running)
    again = store.complete(running)
    assert again.event is None
    assert again.found == done.found
    with pytest.raises(InvalidTransition, match="cannot cancel a session that is completed"):
        store.cancel(running)


def test_a_reason_of_any_text_survives(store: SessionStore, redis: Redis, running: str) -> None:
    reason = 'quote " backslash \\ newline \n percent %d snow ☃ slash /'
    result = store.cancel(running, reason=reason)
    assert result.event is not None
    assert result.event["reason"] == reason
    assert outbox_messages(redis, running)[-1]["event"]["reason"] == reason


def test_delete_is_final_and_a_new_session_of_this_id_has_a_later_epoch(
    store: SessionStore, clock: ManualClock
) -> None:
    new = chess_request(session_id=str(uuid.uuid4()))
    first = store.create(new).found
    assert store.delete(first.session_id).event == {"type": "session_deleted", "at_ms": NOON_MS}
    assert store.delete(first.session_id).event is None
    with pytest.raises(SessionNotFound):
        store.get(first.session_id)
    clock.advance_ms(-5000)
    assert store.create(new).found.order > first.order


def test_an_existing_session_is_not_made_again(store: SessionStore) -> None:
    new = chess_request(session_id=str(uuid.uuid4()))
    store.create(new)
    with pytest.raises(SessionExists):
        store.create(new)


@pytest.mark.parametrize("count", [1, 2, 127, 128, 129, 1000])
def test_any_number_of_participants_rotates_in_order(
    store: SessionStore, clock: ManualClock, redis_url: str, count: int
) -> None:
    other = make_store(redis_url)
    session_id = store.create(crowd_request(count)).found.session_id
    store.start(session_id)
    for step in range(count + 2):
        clock.advance_ms(7)
        result = (store, other)[step % 2].switch(session_id)
        assert result.found.active_participant_id == f"p{(step + 1) % count}"
    fresh = make_store(redis_url).get(session_id).found
    assert fresh == store.get(session_id).found == other.get(session_id).found
    assert [person.cycle_count for person in fresh.participants].count(0) == max(0, count - (count + 2))
    assert sum(person.time_used_ms for person in fresh.participants) == 7 * (count + 2)


REFUSALS: dict[str, tuple[type[SyncError], Callable[[SessionStore, str], Result]]] = {
    "not_found": (SessionNotFound, lambda store, _: store.start(str(uuid.uuid4()))),
    "session_exists": (SessionExists, lambda store, sid: store.create(chess_request(session_id=sid))),
    "version_conflict": (Conflict, lambda store, sid: store.switch(sid, Claim(expected_version=1))),
    "version_conflict of the epoch": (Conflict, lambda store, sid: store.switch(sid, Claim(NOON_MS - 1, 2))),
    "invalid_transition": (InvalidTransition, lambda store, sid: store.start(sid)),
    "invalid_transition of resume": (InvalidTransition, lambda store, sid: store.resume(sid)),
    "unknown_participant": (ValidationFailed, lambda store, sid: store.switch(sid, participant_id="nobody")),
    "unknown_next_participant": (ValidationFailed, lambda store, sid: store.switch(sid, next_participant_id="nobody")),
    "not_active_participant": (NotActiveParticipant, lambda store, sid: store.switch(sid, participant_id="black")),
    "idempotency_mismatch": (IdempotencyMismatch, lambda store, sid: store.pause(sid, Claim(idempotency_key="used"))),
}


@pytest.mark.parametrize("word", REFUSALS)
def test_a_refused_command_changes_nothing(store: SessionStore, clock: ManualClock, redis: Redis, word: str) -> None:
    session_id = store.create(chess_request()).found.session_id
    store.start(session_id, Claim(idempotency_key="used"))
    clock.advance_ms(1500)
    before = dump_session(redis, session_id)
    kind, command = REFUSALS[word]
    with pytest.raises(kind):
        command(store, session_id)
    assert dump_session(redis, session_id) == before


def test_a_conflict_carries_both_versions_and_the_current_state(store: SessionStore, running: str) -> None:
    with pytest.raises(Conflict) as refused:
        store.pause(running, Claim(expected_version=1))
    details = refused.value.details
    assert (details["expected_version"], details["actual_version"]) == (1, 2)
    assert details["current"]["status"] == "running"


def test_every_commit_is_one_message_and_patches_fold_to_the_state(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = store.create(crowd_request(3, increment_ms=10)).found.session_id
    steps: list[Callable[[], Result]] = [
        lambda: store.start(session_id),
        lambda: store.switch(session_id),
        lambda: store.pause(session_id),
        lambda: store.update(session_id, {"x": "%s {}"}),
        lambda: store.resume(session_id),
        lambda: store.switch(session_id, next_participant_id="p0"),
        lambda: store.cancel(session_id, reason="done"),
    ]
    after = []
    for step in steps:
        clock.advance_ms(123)
        after.append(step().found)
    log = outbox_messages(redis, session_id)
    assert [message["version"] for message in log] == list(range(1, 9))
    session = Session.from_snapshot(session_id, log[0]["snapshot"])
    for message, expected in zip(log[1:], after, strict=True):
        session = session.fold(*patch_of(message))
        assert session == expected
    assert Session.from_snapshot(session_id, log[-1]["snapshot"]) == after[-1]


def test_every_hundredth_version_carries_the_whole_state(store: SessionStore, redis: Redis) -> None:
    session_id = store.create(chess_request()).found.session_id
    store.start(session_id)
    for _ in range(200):
        store.switch(session_id)
    snapshots = {
        message["version"]: message["snapshot"]
        for message in outbox_messages(redis, session_id)
        if "snapshot" in message
    }
    assert list(snapshots) == [1, 100, 200]
    assert Session.from_snapshot(session_id, snapshots[200]).version == 200


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    count=st.integers(1, 4),
    increment_ms=st.integers(0, 5000),
    budget_ms=st.integers(1000, 6000),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["switch", "pause", "resume", "get", "complete", "cancel", "start"]),
            st.integers(-50, 2500),
        ),
        max_size=25,
    ),
)
def test_time_used_plus_remaining_is_what_was_granted(
    redis_url: str, clock: ManualClock, count: int, increment_ms: int, budget_ms: int, steps: list[tuple[str, int]]
) -> None:
    store = make_store(redis_url)
    session_id = store.create(crowd_request(count, budget_ms, increment_ms=increment_ms)).found.session_id
    store.start(session_id)
    version = 2
    for command, ms in steps:
        clock.advance_ms(ms)
        try:
            found = getattr(store, command)(session_id).found
        except InvalidTransition:
            found = store.get(session_id).found
        assert version <= found.version <= version + 2
        version = found.version
        for person in found.participants:
            credits_ms = person.cycle_count * increment_ms
            assert person.time_used_ms + person.time_remaining_ms == budget_ms + credits_ms
            assert person.has_expired == (person.time_remaining_ms == 0)
        assert sum(person.cycle_count for person in found.participants) == found.cycle_count
        if found.status not in ("running", "paused"):
            assert found.active_participant_id is None


@pytest.mark.parametrize("command", ["complete", "cancel", "delete"])
def test_a_command_that_found_nothing_to_do_keeps_its_key(store: SessionStore, running: str, command: str) -> None:
    claim = Claim(idempotency_key="k")
    getattr(store, command)(running)
    assert getattr(store, command)(running, claim).event is None
    with pytest.raises(IdempotencyMismatch):
        store.update(running, {"a": 1}, claim)
    assert getattr(store, command)(running, claim).replayed


def test_participants_may_be_given_their_places(store: SessionStore) -> None:
    people = [
        {"participant_id": name, "total_time_ms": 1000, "participant_index": i} for name, i in (("b", 1), ("a", 0))
    ]
    new = CreateSession.parse({"sync_mode": "per_participant", "participants": people})
    assert store.create(new).found.definition.participant_ids == ("a", "b")
