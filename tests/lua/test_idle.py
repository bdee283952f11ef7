"""Abandoned sessions: when idle time counts, how watchers stop it, and unattended cycles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from msgspec.structs import replace
from redis.exceptions import ResponseError

from syncapp.domain.instants import iso
from syncapp.domain.patches import public_patch
from syncapp.domain.results import Claim, ExpiryResult
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session import Session
from syncapp.domain.session_layout import SCALARS
from syncapp.errors import SessionNotFound, ValidationFailed
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.topic import Topic
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.patches import apply_patch
from tests.support.store import NOON_MS, ManualClock, dump_session, make_store, outbox_messages
from tests.support.store_sessions import (
    END,
    NOTIFY,
    SKIP,
    create_pending,
    create_running,
    current_state,
    session_body,
    state_of,
)
from tests.support.types import Redis

DAY_MS = 86_400_000


def idle_at(store: SessionStore, session_id: str) -> int | None:
    """Return when the session becomes idle, in ms since NOON_MS."""
    idle_ms = store.get(session_id).found.idle_ms
    return None if idle_ms is None else idle_ms - NOON_MS


def kinds(client: Redis, session_id: str) -> list[str]:
    return [message["event"]["type"] for message in outbox_messages(client, session_id)]


def score(client: Redis, session_id: str) -> int | None:
    found = client.zscore(Keyspace().deadlines(Keyspace().bucket(session_id)), session_id)
    return None if found is None else int(found) - NOON_MS


# Length.


def test_a_session_lives_for_a_day_when_nobody_comes_whatever_its_lifetime_afterwards(
    redis_url: str, clock: ManualClock
) -> None:
    store = make_store(redis_url, session_ttl_s=1)
    session_id = create_pending(store)
    shown = current_state(store, session_id)
    assert (shown["idle_timeout_s"], shown["idle_at"]) == (86_400, "2100-01-02T12:00:00.000Z")
    clock.advance_ms(DAY_MS - 1)
    assert current_state(store, session_id)["status"] == "pending"
    clock.advance_ms(1)
    shown = current_state(store, session_id)
    assert (shown["status"], shown["idle_at"], shown["idle_timeout_s"]) == ("cancelled", None, 86_400)


def test_the_default_is_a_setting_and_a_create_may_ask_for_up_to_thirty_days(
    redis_url: str, clock: ManualClock
) -> None:
    store = make_store(redis_url, idle_timeout_s=7)
    assert idle_at(store, create_pending(store)) == 7000
    assert idle_at(store, create_pending(store, idle_timeout_s=2_592_000)) == 30 * DAY_MS
    with pytest.raises(ValidationFailed) as refused:
        CreateSession.parse(session_body(idle_timeout_s=2_592_001))
    assert refused.value.details[0]["field"] == "idle_timeout_s"


# When idle time counts.

ROUNDS = {"mode": "per_cycle", "action_on_timeout": SKIP}


@pytest.mark.parametrize(
    ("made", "counts"),
    [
        ({"mode": "per_participant", "action_on_timeout": END}, False),
        ({"mode": "per_participant", "action_on_timeout": SKIP}, False),
        ({"mode": "per_participant", "action_on_timeout": NOTIFY}, False),
        ({"mode": "per_group", "action_on_timeout": END}, False),
        ({"mode": "per_group", "action_on_timeout": SKIP}, False),
        ({"mode": "per_group", "action_on_timeout": NOTIFY}, False),
        ({"mode": "per_cycle", "action_on_timeout": END}, False),
        (ROUNDS, True),
        (ROUNDS | {"max_cycles": 5}, False),
        ({"mode": "per_cycle", "action_on_timeout": NOTIFY}, False),
        ({"mode": "global", "action_on_timeout": END}, False),
        ({"mode": "global", "action_on_timeout": SKIP}, False),
        ({"mode": "global", "action_on_timeout": NOTIFY}, False),
        ({"mode": "count_up"}, False),
        ({"mode": "count_up", "budget_ms": None}, True),
        ({"mode": "count_up", "budget_ms": None, "max_cycles": 5}, True),
    ],
    ids=lambda made: " ".join(map(str, made.values())) if isinstance(made, dict) else "",
)
def test_idle_time_counts_while_nothing_runs_towards_an_end(
    store: SessionStore, clock: ManualClock, redis: Redis, made: dict[str, Any], counts: bool
) -> None:
    session_id = create_pending(store, **made, idle_timeout_s=60)
    assert idle_at(store, session_id) == 60_000
    clock.advance_ms(1000)
    store.start(session_id)
    assert idle_at(store, session_id) == (61_000 if counts else None)
    assert score(redis, session_id) == (11_000 if made.get("budget_ms", 0) is not None else 61_000)
    clock.advance_ms(1000)
    store.pause(session_id)
    assert idle_at(store, session_id) == 62_000
    clock.advance_ms(1000)
    store.complete(session_id)
    assert idle_at(store, session_id) is None


@pytest.mark.parametrize("mode", ["per_participant", "per_cycle", "per_group", "global", "count_up"])
def test_in_overtime_it_counts_from_zero_on(store: SessionStore, clock: ManualClock, redis: Redis, mode: str) -> None:
    session_id = create_running(store, mode, action_on_timeout=NOTIFY, idle_timeout_s=60)
    assert idle_at(store, session_id) is None
    clock.advance_ms(10_500)
    assert idle_at(store, session_id) == 70_000
    if mode not in ("global", "count_up"):
        store.switch(session_id)
        assert idle_at(store, session_id) is None
        clock.advance_ms(10_000)
        assert idle_at(store, session_id) == 80_500
    store.adjust(session_id, op="set", ms=5000)  # out of overtime
    assert idle_at(store, session_id) is None
    clock.advance_ms(5000 + 59_999)
    assert store.get(session_id).found.status == "running"
    clock.advance_ms(1)
    assert store.get(session_id).found.status == "cancelled"
    assert outbox_messages(redis, session_id)[-1]["event"]["reason"] == "idle"


def test_a_game_that_runs_is_cancelled_by_nobody_and_ends_by_its_own_deadline(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, budget_ms=DAY_MS, action_on_timeout=SKIP, idle_timeout_s=1)
    for _ in range(5):
        clock.advance_ms(DAY_MS)
        store.expire([session_id])
    assert kinds(redis, session_id)[2:] == ["participant_expired"] * 2
    assert (store.get(session_id).found.status, clock.now_ms) == ("expired", NOON_MS + 5 * DAY_MS)


def test_patches_tell_when_a_session_will_be_idle(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_pending(store, idle_timeout_s=60, warn_at_ms=[9000], action_on_timeout=NOTIFY)
    topic = Topic(session_id, "")
    topic.mark_subscribed()
    topic.current = True
    client = current_state(store, session_id)
    topic.apply_read(store.get(session_id).found, topic.order, clock.now_ms)
    steps: list[Callable[[], Any]] = [
        lambda: store.start(session_id),
        lambda: store.get(session_id),
        lambda: store.pause(session_id),
        lambda: store.update(session_id, {"a": 1}),
        lambda: store.resume(session_id),
        lambda: store.get(session_id),
        lambda: store.get(session_id),
        lambda: store.cancel(session_id),
    ]
    seen = []
    for step in steps:
        clock.advance_ms(4000)
        told = len(outbox_messages(redis, session_id))
        step()
        for message in outbox_messages(redis, session_id)[told:]:
            assert "idle_ms" not in message["patch"]  # an earlier release could not apply it
            update = topic.apply(message, clock.now_ms)
            assert update
            assert update.session
            client = apply_patch(client, orjson.loads(update.payload(Outgoing.STATE_PATCH)))
            assert client == update.session.state(update.at_ms)
            seen.append(client["idle_at"])
    assert topic.session == store.get(session_id).found
    assert seen == [iso(at_s and NOON_MS + at_s * 1000) for at_s in (None, None, 72, 76, None, 82, None)]


def test_the_patch_of_an_answer_tells_it_too(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_pending(store, idle_timeout_s=60)
    told = [getattr(store, step)(session_id).patch for step in ("start", "switch", "pause", "resume", "complete")]
    assert [public_patch(patch).get("idle_at", "absent") for patch in told] == [
        *[None, "absent", "2100-01-01T12:01:00.000Z", None, "absent"]
    ]


# Watchers.


def test_a_watcher_puts_the_idle_end_off_and_commits_nothing(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_pending(store, idle_timeout_s=60)
    before = store.get(session_id)
    chain = redis.hget(Keyspace().session(session_id), "chain")
    with redis.pubsub() as listener:  # type: ignore[no-untyped-call]  # it has no types
        listener.subscribe(Keyspace().channel(session_id))
        assert listener.get_message(timeout=60)
        clock.advance_ms(59_999)
        assert store.attend([session_id]) == [None]
        after = store.get(session_id)
        assert listener.get_message(timeout=0.1) is None
    assert after.found == replace(before.found, idle_ms=NOON_MS + 119_999)
    assert (kinds(redis, session_id), score(redis, session_id)) == (["session_created"], 119_999)
    assert redis.hget(Keyspace().session(session_id), "chain") == chain
    assert redis.ttl(Keyspace().session(session_id)) == -1
    clock.advance_ms(60_000)
    assert store.get(session_id).found.session_completed_ms == NOON_MS + 119_999


def test_a_watcher_changes_nothing_of_a_session_whose_idle_time_does_not_count(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    game, over, gone = create_running(store, action_on_timeout=SKIP), create_pending(store), create_running(store)
    store.complete(over)
    store.delete(gone)
    clock.advance_ms(15_000)
    assert store.get(game).found.status == "running"
    before = [dump_session(redis, each) for each in (game, over, gone)]
    assert store.attend([game, over, gone, "nobody"]) == [None] * 4
    assert [dump_session(redis, each) for each in (game, over, gone)] == before


def test_an_idle_end_that_has_come_is_not_undone_by_a_late_watcher(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_pending(store, idle_timeout_s=60)
    clock.advance_ms(60_000)
    before = dump_session(redis, session_id)
    store.attend([session_id])
    assert dump_session(redis, session_id) == before
    assert store.get(session_id).found.session_completed_ms == NOON_MS + 60_000


def test_a_clock_that_was_set_back_takes_nothing_from_a_watched_session(
    store: SessionStore, clock: ManualClock
) -> None:
    session_id = create_pending(store, idle_timeout_s=60)
    clock.advance_ms(-10_000)
    store.attend([session_id])
    assert idle_at(store, session_id) == 60_000


def test_one_session_that_cannot_be_read_keeps_no_other_from_being_put_off(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    good, bad = create_pending(store, idle_timeout_s=60), create_pending(store, idle_timeout_s=60)
    redis.delete(Keyspace().session(bad))
    redis.set(Keyspace().session(bad), "no hash")
    clock.advance_ms(1000)
    answers = store.attend([bad, good])
    assert (type(answers[0]), answers[1]) == (ResponseError, None)
    assert idle_at(store, good) == 61_000


# Unattended cycles.


@pytest.mark.parametrize("how", ["at once", "a cycle at a time", "swept"])
def test_rounds_go_on_by_themselves_for_just_so_many_cycles(
    redis_url: str, clock: ManualClock, redis: Redis, how: str
) -> None:
    store = make_store(redis_url, max_unattended_cycles=150)
    session_id = create_running(store, "per_cycle", budget_ms=1000, people="abc", action_on_timeout=SKIP)
    instants: list[int] = []
    for _ in range(1 if how == "at once" else 200):
        clock.advance_ms(200_000 if how == "at once" else 1000)
        if how == "swept":
            (swept,) = store.expire([session_id])
            assert isinstance(swept, ExpiryResult)
            instants += swept.instants_ms
        else:
            store.get(session_id)
    assert kinds(redis, session_id)[2:] == ["cycle_timed_out"] * 150 + ["session_paused"]
    if how == "swept":
        assert instants == [message["event"]["at_ms"] for message in outbox_messages(redis, session_id)[2:]]
    event = outbox_messages(redis, session_id)[-1]
    assert event["actor"] == "system"
    assert event["elapsed_ms"] == 0  # charged by the last timeout
    assert event["event"] == {
        "type": "session_paused",
        "at_ms": NOON_MS + 150_000,
        "participant_id": "a",
        "remaining_ms": 1000,
        "reason": "unattended",
    }
    shown = current_state(store, session_id)
    assert (shown["status"], shown["cycle_count"], shown["active_participant_id"]) == ("paused", 150, "a")
    assert shown["clock"] | {"scope": "cycle"} == shown["clock"]
    assert (shown["clock"]["running"], shown["clock"]["remaining_ms"], shown["clock"]["elapsed_ms"]) == (False, 1000, 0)
    assert [person["time_used_ms"] for person in shown["participants"]] == [50_000] * 3
    assert shown["idle_at"] == iso(NOON_MS + DAY_MS)  # counting since the start


def test_a_client_undoes_it_by_a_resume_and_the_count_begins_anew(
    redis_url: str, clock: ManualClock, redis: Redis
) -> None:
    store = make_store(redis_url, max_unattended_cycles=3)
    session_id = create_running(store, "per_cycle", budget_ms=1000, action_on_timeout=SKIP)
    clock.advance_ms(60_000)
    assert store.get(session_id).found.status == "paused"
    resumed = store.resume(session_id)
    assert state_of(resumed)["clock"]["deadline_ms"] == clock.now_ms + 1000
    clock.advance_ms(2999)
    assert store.get(session_id).found.status == "running"
    clock.advance_ms(1)
    assert store.get(session_id).found.status == "paused"
    assert kinds(redis, session_id)[2:] == [
        *["cycle_timed_out"] * 3, "session_paused", "session_resumed", *["cycle_timed_out"] * 3, "session_paused",
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["switch", "adjust", "update", "pause"])
def test_any_command_begins_the_count_anew_and_watching_or_reading_or_a_refusal_does_not(
    redis_url: str, clock: ManualClock, redis: Redis, command: str
) -> None:
    store = make_store(redis_url, max_unattended_cycles=3)
    arguments: dict[str, dict[str, Any]] = {"adjust": {"op": "add", "ms": 1}, "update": {"metadata": {"a": 1}}}
    args = arguments.get(command, {})
    session_id = create_running(store, "per_cycle", budget_ms=1000, action_on_timeout=SKIP)
    clock.advance_ms(2500)
    store.attend([session_id])
    store.get(session_id)
    with pytest.raises(ValidationFailed):
        store.switch(session_id, next_participant_id="nobody")
    getattr(store, command)(session_id, **args)
    if command == "pause":
        store.resume(session_id)
    clock.advance_ms(10_000)
    store.get(session_id)
    assert kinds(redis, session_id).count("cycle_timed_out") == 5
    assert kinds(redis, session_id)[-1] == "session_paused"
    again = store.resume(session_id, Claim(idempotency_key="k"))
    clock.advance_ms(2500)
    store.attend([session_id])
    repeated = store.resume(session_id, Claim(idempotency_key="k"))  # is no command
    assert (repeated.replayed, repeated.order) == (True, again.order)
    clock.advance_ms(500)
    assert store.get(session_id).found.status == "paused"


@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
def test_the_bound_holds_for_timeouts_of_any_mode_and_idle_time_counts_from_the_pause_on(
    redis_url: str, clock: ManualClock, redis: Redis, mode: str
) -> None:
    store = make_store(redis_url, max_unattended_cycles=3)
    session_id = create_running(store, mode, people="abcdef", action_on_timeout=SKIP, idle_timeout_s=1)
    clock.advance_ms(30_999)
    shown = current_state(store, session_id)
    assert (shown["status"], shown["cycle_count"], shown["active_participant_id"]) == ("paused", 3, "d")
    assert (shown["clock"]["remaining_ms"], shown["idle_at"]) == (10_000, iso(NOON_MS + 31_000))
    clock.advance_ms(1)
    shown = current_state(store, session_id)
    assert (shown["status"], shown["participants"][3]["time_used_ms"]) == ("cancelled", 0)


def test_a_last_cycle_ends_the_session_before_the_bound_pauses_it(redis_url: str, clock: ManualClock) -> None:
    store = make_store(redis_url, max_unattended_cycles=3)
    session_id = create_running(store, "per_cycle", budget_ms=1000, action_on_timeout=SKIP, max_cycles=3)
    clock.advance_ms(60_000)
    assert store.get(session_id).found.status == "completed"


# Sessions of an earlier release.


def as_an_earlier_release_writes_it(client: Redis, session_id: str) -> None:
    key = Keyspace().session(session_id)
    scalars = (client.hget(key, "scalars") or b"").decode()  # type: ignore[union-attr]  # its types cover every protocol
    client.hset(key, "scalars", " ".join(scalars.split(" ")[:25]))


def test_a_session_of_an_earlier_release_is_played_watched_and_idle_as_any(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    played, watched, left = (create_pending(store, idle_timeout_s=60) for _ in range(3))
    for each in (played, watched, left):
        as_an_earlier_release_writes_it(redis, each)
    assert idle_at(store, left) is None  # not known before its next commit
    clock.advance_ms(30_000)
    store.attend([watched])
    assert idle_at(store, watched) == 90_000
    store.start(played)
    as_an_earlier_release_writes_it(redis, played)
    clock.advance_ms(1000)
    store.pause(played)
    assert idle_at(store, played) == 91_000
    clock.advance_ms(29_000)
    assert [store.get(each).found.status for each in (played, watched, left)] == ["paused", "pending", "cancelled"]


def test_overtime_that_an_earlier_release_saw_begin_is_idle_at_the_same_instant(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, action_on_timeout=NOTIFY, idle_timeout_s=60)
    clock.advance_ms(20_000)
    store.get(session_id)
    as_an_earlier_release_writes_it(redis, session_id)
    clock.advance_ms(49_999)
    assert store.get(session_id).found.status == "running"
    clock.advance_ms(1)
    assert store.get(session_id).found.session_completed_ms == NOON_MS + 70_000


def test_a_look_that_an_earlier_release_planned_by_its_own_rule_is_put_right(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, action_on_timeout=SKIP, idle_timeout_s=1)
    key, early_ms = Keyspace().session(session_id), NOON_MS + 1000
    words = (redis.hget(key, "scalars") or b"").decode().split(" ")  # type: ignore[union-attr]  # its types cover every protocol
    words[SCALARS.index("look_ms")] = str(early_ms)
    redis.hset(key, "scalars", " ".join(words))
    redis.zadd(Keyspace().deadlines(Keyspace().bucket(session_id)), {session_id: early_ms})
    clock.advance_ms(1000)
    assert store.expire([session_id])[0].instants_ms == ()  # type: ignore[union-attr]  # no error is expected
    assert score(redis, session_id) == 10_000


def test_an_entry_that_is_too_early_is_put_right_for_a_session_of_an_earlier_release_too(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_pending(store, idle_timeout_s=60)
    as_an_earlier_release_writes_it(redis, session_id)
    redis.zadd(Keyspace().deadlines(Keyspace().bucket(session_id)), {session_id: NOON_MS})
    clock.advance_ms(1000)
    assert store.expire([session_id])[0].instants_ms == ()  # type: ignore[union-attr]  # no error is expected
    assert score(redis, session_id) == 60_000


def test_a_session_that_is_gone_is_no_trouble_to_its_watchers(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_pending(store)
    store.delete(session_id)
    assert store.attend([session_id]) == [None]
    with pytest.raises(SessionNotFound):
        store.get(session_id)


def test_an_earlier_release_finds_all_that_it_knows_of_a_snapshot_in_its_place(
    redis_url: str, clock: ManualClock, redis: Redis
) -> None:
    store = make_store(redis_url, max_unattended_cycles=300)
    people = [{"participant_id": f"p{i}"} for i in range(200)]
    new = {"sync_mode": "per_cycle", "time_per_cycle_ms": 1000, "participants": people, "metadata": {"a": 1}}
    session_id = store.create(CreateSession.parse(new)).found.session_id
    store.start(session_id)
    clock.advance_ms(98_000)
    found = store.get(session_id).found
    snapshot = outbox_messages(redis, session_id)[-1]["snapshot"]
    assert (found.version, snapshot[1], snapshot[25]) == (100, "100", '{"a":1}')
    assert orjson.loads(snapshot[26])["participant_ids"][199] == "p199"
    assert snapshot[27] == "idling=1 unattended=98"
    assert [len(block) // 34 for block in snapshot[28:]] == [128, 72]
    assert Session.from_snapshot(session_id, snapshot) == found
    # Such a release keeps the blocks' tags there.
    written_before = [*snapshot[:27], "100.4102488000000 99.4102488000000", *snapshot[28:]]
    assert Session.from_snapshot(session_id, written_before) == replace(found, idle_ms=None)
