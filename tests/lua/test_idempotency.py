"""Idempotency keys: answers of replays, contents of records, and their size."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import orjson
import pytest
import redis as redis_py

from syncapp.domain.results import Claim, Result
from syncapp.domain.schemas import CreateSession
from syncapp.errors import IdempotencyMismatch, SessionNotFound, ValidationFailed
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.store import ManualClock, chess_request, crowd_request, dump_session, make_store, outbox_messages

MOST_RECORD_BYTES = 1024
KEY = "k"
CLAIM = Claim(idempotency_key=KEY)
LONG_REASON = 'é\\"\n' * 125  # 500 characters, 1,000 bytes as JSON


@pytest.fixture
def running(store: SessionStore) -> str:
    session_id = store.create(chess_request()).found.session_id
    store.start(session_id)
    return session_id


def record(redis: redis_py.Redis, session_id: str, key: str = KEY) -> bytes:
    found: Any = redis.get(Keyspace().idempotency(session_id, key))
    assert found is not None
    return bytes(found)


def previous_record(redis: redis_py.Redis, session_id: str, first: Result, key: str = KEY) -> None:
    """Write a record as the previous release did; the fingerprint is the same in both."""
    name = Keyspace().idempotency(session_id, key)
    fingerprint = record(redis, session_id, key).split(b"\n", 1)[0].decode()
    state: list[str] = []
    if first.session:
        hashed: Any = redis.hgetall(Keyspace().session(session_id))
        state = [hashed[name].decode() for name in (b"scalars", b"metadata")] + ["", "", hashed[b"p:0"].decode()]
    head = [fingerprint, str(first.now_ms), first.expired_participant_id or "", first.event_json, first.patch_json]
    redis.set(name, orjson.dumps(head + state), px=3_600_000)


# Answers of replays.


def test_a_replay_answers_with_the_present_state_and_the_first_event_and_commits_nothing(
    store: SessionStore, clock: ManualClock, redis: redis_py.Redis, running: str
) -> None:
    clock.advance_ms(1000)
    first = store.switch(running, CLAIM)
    clock.advance_ms(1000)
    present = store.switch(running)
    before = dump_session(redis, running)
    clock.advance_ms(50)
    again = store.switch(running, CLAIM)
    assert (again.replayed, again.found, again.now_ms) == (True, present.found, clock.now_ms)
    assert (again.event, again.patch, again.order) == (first.event, first.patch, (first.found.epoch, 3))
    assert dump_session(redis, running) == before


def test_a_replay_settles_what_is_due_as_a_read_does(store: SessionStore, clock: ManualClock, running: str) -> None:
    first = store.switch(running, CLAIM)
    clock.advance_ms(400_000)
    again = store.switch(running, CLAIM)
    assert (again.found.status, again.found.version, again.event) == ("expired", 4, first.event)
    assert again.expired_participant_id is None  # in the first result, no participant had expired
    assert again.found == store.get(running).found


def test_a_replay_settles_more_than_one_call_may_apply(store: SessionStore, clock: ManualClock) -> None:
    rounds = {"sync_mode": "per_cycle", "time_per_cycle_ms": 1000, "idle_timeout_s": 86_400}
    session_id = store.create(CreateSession.parse(rounds)).found.session_id
    store.start(session_id, CLAIM)
    clock.advance_ms(200_000)
    again = store.start(session_id, CLAIM)
    assert (again.replayed, again.found.cycle_count) == (True, 200)


def test_a_replay_does_not_count_as_a_command_of_somebody_who_is_there(
    store: SessionStore, clock: ManualClock, redis: redis_py.Redis
) -> None:
    session_id = store.create(chess_request(idle_timeout_s=10), CLAIM_OF_ID).found.session_id
    before = redis.hget(Keyspace().session(session_id), "scalars")
    clock.advance_ms(5000)
    assert store.create(chess_request(idle_timeout_s=10), CLAIM_OF_ID).replayed
    assert redis.hget(Keyspace().session(session_id), "scalars") == before


CLAIM_OF_ID = Claim(idempotency_key="1b4e28ba-2fa1-41d2-883f-0016d3cca427")


def test_an_answer_that_made_something_due_is_replayed_with_who_ran_out_of_time(
    store: SessionStore, clock: ManualClock
) -> None:
    session_id = store.create(chess_request(action_on_timeout={"type": "skip_cycle"})).found.session_id
    store.start(session_id)
    store.adjust(session_id, op="set", ms=0, participant_id="black")
    first, again = store.switch(session_id, CLAIM), store.switch(session_id, CLAIM)
    assert (again.replayed, again.found, again.patch, again.expired_participant_id) == (
        True,
        first.found,
        first.patch,
        "black",
    )
    assert again.order == first.order == first.found.order


def test_updates_with_a_key_are_replayed_though_the_metadata_moved_on(store: SessionStore, running: str) -> None:
    store.update(running, {"a": 1}, CLAIM)
    store.update(running, {"a": 2})
    again = store.update(running, {"a": 1}, CLAIM)
    assert (again.replayed, again.found.metadata) == (True, {"a": 2})


def test_a_key_belongs_to_its_command_arguments_and_expected_version(store: SessionStore, running: str) -> None:
    store.switch(running, CLAIM, participant_id="white")
    attempts: list[Callable[[], Result]] = [
        lambda: store.switch(running, CLAIM, participant_id="black"),
        lambda: store.switch(running, Claim(expected_version=2, idempotency_key=KEY), participant_id="white"),
        lambda: store.pause(running, CLAIM),
    ]
    for attempt in attempts:
        with pytest.raises(IdempotencyMismatch):
            attempt()


# Deleted sessions.


def test_a_replay_for_a_session_that_was_deleted_says_that_it_took_effect_and_the_session_is_gone(
    store: SessionStore, redis_url: str, running: str
) -> None:
    store.switch(running, CLAIM)
    store.delete(running)
    for each in (store, make_store(redis_url)):
        with pytest.raises(SessionNotFound, match=r"took effect .* its session is gone") as refused:
            each.switch(running, CLAIM)
        assert refused.value.details == {"replayed": True}


def test_a_replay_for_a_session_that_was_made_again_does_not_touch_the_new_one(
    store: SessionStore, redis: redis_py.Redis, redis_url: str, running: str
) -> None:
    store.switch(running, CLAIM)
    store.delete(running)
    store.create(chess_request(session_id=running))
    store.start(running)
    before = dump_session(redis, running)
    for each in (store, make_store(redis_url)):
        with pytest.raises(SessionNotFound, match="its session is gone"):
            each.switch(running, CLAIM)
    assert dump_session(redis, running) == before


def test_a_replayed_create_does_not_make_a_deleted_session_again(store: SessionStore, redis: redis_py.Redis) -> None:
    session_id = store.create(chess_request(), CLAIM_OF_ID).found.session_id
    store.delete(session_id)
    before = dump_session(redis, session_id)
    with pytest.raises(SessionNotFound, match="its session is gone"):
        store.create(chess_request(), CLAIM_OF_ID)
    assert dump_session(redis, session_id) == before


def test_deleting_again_with_the_same_key_is_a_replay(store: SessionStore, running: str) -> None:
    first, again = store.delete(running, CLAIM), store.delete(running, CLAIM)
    assert (first.replayed, again.replayed, again.order, again.event) == (False, True, None, first.event)


def test_deleting_what_is_gone_with_a_key_does_not_delete_what_comes_later(store: SessionStore, running: str) -> None:
    store.delete(running)
    store.delete(running, CLAIM)
    store.create(chess_request(session_id=running))
    assert store.delete(running, CLAIM).replayed
    assert store.get(running).found.version == 1


def test_a_deleted_session_leaves_a_tombstone_without_its_definition(
    store: SessionStore, redis: redis_py.Redis
) -> None:
    session_id = store.create(crowd_request(1000)).found.session_id
    store.delete(session_id)
    key = Keyspace().session(session_id)
    assert set(redis.hkeys(key)) == {b"epoch", b"updated_ms", b"chain"}
    assert (redis.memory_usage(key, samples=0) or 0) < 300


# The size of records.


def keyed_commands(store: SessionStore, session_id: str, count: int) -> dict[str, Callable[[Claim], Result]]:
    """Every command, in an order in which all succeed."""
    document = {"notes": None, **{f"part {n}": "x" * 4000 for n in range(4)}}
    return {
        "start": lambda claim: store.start(session_id, claim, participant_id="p0"),
        "switch": lambda claim: store.switch(session_id, claim, next_participant_id=f"p{count - 1}"),
        "adjust": lambda claim: store.adjust(session_id, claim, op="add", ms=1000, reason=LONG_REASON),
        "update": lambda claim: store.update(session_id, document, claim),
        "pause": lambda claim: store.pause(session_id, claim),
        "resume": lambda claim: store.resume(session_id, claim),
        "cancel": lambda claim: store.cancel(session_id, claim, reason=LONG_REASON),
        "delete": lambda claim: store.delete(session_id, claim),
    }


@pytest.mark.parametrize("count", [2, 128, 129, 1000])
def test_a_record_is_at_most_a_kilobyte_whatever_the_session_and_the_command(
    store: SessionStore, clock: ManualClock, redis: redis_py.Redis, redis_url: str, count: int
) -> None:
    other = make_store(redis_url)
    new = crowd_request(count, metadata={"notes": "é" * 8000}, session_id=str(uuid.uuid4()))
    made = store.create(new, Claim(idempotency_key="create"))
    session_id = made.found.session_id
    assert len(record(redis, session_id, "create")) <= MOST_RECORD_BYTES
    assert other.create(new, Claim(idempotency_key="create")).found == made.found
    for name, command in keyed_commands(store, session_id, count).items():
        clock.advance_ms(10)
        claim = Claim(idempotency_key=name)
        first = command(claim)
        kept = record(redis, session_id, name)
        assert len(kept) <= MOST_RECORD_BYTES, name
        before = dump_session(redis, session_id)
        for each in (store, other):
            again = keyed_commands(each, session_id, count)[name](claim)
            assert (again.replayed, again.session, again.order) == (True, first.session, first.order), name
            assert again.event_json in (first.event_json, ""), name
            assert again.patch_json in (first.patch_json, ""), name
            assert (again.event is None) == (name in ("adjust", "cancel")), name  # their reasons are long
        assert dump_session(redis, session_id) == before, name


@pytest.mark.parametrize("count", [2, 1000])
def test_the_record_of_a_switch_has_its_patch_and_takes_less_than_a_kilobyte_of_memory(
    store: SessionStore, redis: redis_py.Redis, count: int
) -> None:
    session_id = store.create(crowd_request(count)).found.session_id
    store.start(session_id)
    key = str(uuid.uuid4())
    first = store.switch(session_id, Claim(idempotency_key=key))
    again = store.switch(session_id, Claim(idempotency_key=key))
    assert (again.event, again.patch) == (first.event, first.patch)
    assert (redis.memory_usage(Keyspace().idempotency(session_id, key), samples=0) or 0) <= MOST_RECORD_BYTES


@pytest.mark.parametrize("length", range(0, 500, 23))
def test_a_record_is_never_cut_but_leaves_out_what_does_not_fit(
    store: SessionStore, redis: redis_py.Redis, running: str, length: int
) -> None:
    first = store.adjust(running, CLAIM, op="add", ms=1, reason="é" * length or None)
    again = store.adjust(running, CLAIM, op="add", ms=1, reason="é" * length or None)
    kept = record(redis, running)
    assert len(kept) <= MOST_RECORD_BYTES
    assert again.event in (first.event, None)
    assert again.patch in (first.patch, None)
    lines = kept.count(b"\n")
    assert lines == 4
    whole = len(kept) + (len(first.patch_json) if not again.patch_json else 0)
    whole += len(first.event_json.encode()) if not again.event_json else 0
    assert (again.patch is not None) == (whole <= MOST_RECORD_BYTES)


# Records of the previous release.


def test_records_of_the_previous_release_are_replayed(
    store: SessionStore, clock: ManualClock, redis: redis_py.Redis, running: str, redis_url: str
) -> None:
    clock.advance_ms(1000)
    first = store.switch(running, CLAIM)
    previous_record(redis, running, first)
    store.pause(running)
    for each in (store, make_store(redis_url)):
        again = each.switch(running, CLAIM)
        assert (again.replayed, again.found.status, again.found.version) == (True, "paused", 4)
        assert (again.event, again.patch, again.order) == (first.event, first.patch, first.order)
    with pytest.raises(IdempotencyMismatch):
        store.resume(running, CLAIM)
    store.delete(running)
    with pytest.raises(SessionNotFound, match="its session is gone"):
        store.switch(running, CLAIM)
    store.create(chess_request(session_id=running))
    with pytest.raises(SessionNotFound, match="its session is gone"):
        store.switch(running, CLAIM)


def test_a_delete_that_the_previous_release_recorded_is_not_done_to_a_later_session(
    store: SessionStore, redis: redis_py.Redis, running: str
) -> None:
    first = store.delete(running, CLAIM)
    previous_record(redis, running, first)
    store.create(chess_request(session_id=running))
    assert store.delete(running, CLAIM).replayed
    assert store.get(running).found.version == 1


# Ids from keys.

RANDOM = "5d1f3c0e-9a44-4b7e-8c21-6f0a7b3d9e58"


@pytest.mark.parametrize(
    "key",
    [
        "1",
        "game-1",
        RANDOM.replace("-", ""),  # not the canonical form
        f"{{{RANDOM}}}",
        f"urn:uuid:{RANDOM}",
        str(uuid.UUID(int=0)),
        "3b8f5a52-cc7e-11f0-9a2b-0242ac120002",  # version 1
        str(uuid.uuid5(uuid.NAMESPACE_URL, "https://example.org/")),
        "3e1f8e1a-3f44-4c55-cd0b-0f6f2b8f5a10",  # another variant
        f"{RANDOM}x",
    ],
)
def test_a_key_that_others_could_name_makes_no_id(store: SessionStore, redis: redis_py.Redis, key: str) -> None:
    keys = redis.dbsize()
    with pytest.raises(ValidationFailed, match="session_id") as refused:
        store.create(chess_request(), Claim(idempotency_key=key))
    assert refused.value.details[0]["field"] == "Idempotency-Key"
    assert redis.dbsize() == keys
    own = str(uuid.uuid4())
    assert store.create(chess_request(session_id=own), Claim(idempotency_key=key)).found.session_id == own


@pytest.mark.parametrize("key", [RANDOM, RANDOM.upper(), "01976a3c-8f2e-7c1b-9d3a-5e7f1a2b3c4d"])
def test_a_create_with_a_random_uuid_as_key_and_no_id_finds_its_first_session_again(
    store: SessionStore, redis_url: str, key: str
) -> None:
    claim = Claim(idempotency_key=key)
    first = store.create(chess_request(), claim)
    again = make_store(redis_url).create(chess_request(), claim)
    assert (again.replayed, again.found) == (True, first.found)
    assert first.found.session_id != key.lower()  # watchers of the session do not learn the key
    with pytest.raises(IdempotencyMismatch):
        store.create(chess_request(increment_ms=1), claim)


def test_the_outbox_has_one_message_for_a_command_that_was_sent_many_times(
    store: SessionStore, redis: redis_py.Redis, running: str
) -> None:
    for _ in range(5):
        store.switch(running, CLAIM)
    assert [message["version"] for message in outbox_messages(redis, running)] == [1, 2, 3]
