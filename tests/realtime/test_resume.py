"""Resuming and patches: nothing older, nothing twice, and applied patches give the store's state."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest

from syncapp.domain.schemas import CreateSession
from syncapp.errors import SessionNotFound, StoreUnavailable
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.send_queue import MAX_FRAMES, SendQueue
from syncapp.realtime.topic import SessionUpdate, Topic
from syncapp.store.sessions import SessionStore
from tests.support.cluster import Cluster
from tests.support.patches import apply_patch
from tests.support.raw_websocket import RawWebSocket
from tests.support.store import ManualClock, chess_request, make_store, outbox_messages
from tests.support.types import Redis
from tests.support.web_clients import OpenWebSocket, RestClient

pytestmark = pytest.mark.usefixtures("no_errors_logged")


def test_who_comes_back_current_is_told_so_and_nothing_more(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    session_id = apis[0].running()
    epoch = apis[0].state(session_id)["epoch"]
    for api in apis:
        one = open_websocket(api.url, session_id, epoch=epoch, version=2)
        connected = one.next()
        assert (connected["type"], connected["epoch"], connected["version"]) == ("CONNECTED", epoch, 2)
        assert one.silent(0.2)
    apis[0].command(session_id, "switch")
    assert (one.next()["type"]) == "STATE_UPDATE"


@pytest.mark.parametrize("claim", [(0, 1), (0, 99), (-1, 2), (-1, 99), (1, 2)])
def test_who_knows_anything_else_is_told_the_state(
    apis: list[RestClient], open_websocket: OpenWebSocket, claim: tuple[int, int]
) -> None:
    session_id = apis[0].running()
    epoch = apis[0].state(session_id)["epoch"]
    one = open_websocket(apis[1].url, session_id, epoch=epoch + claim[0], version=claim[1])
    assert one.next()["type"] == "CONNECTED"
    sync = one.next()
    assert (sync["type"], sync["state"]["epoch"], sync["state"]["version"]) == ("STATE_SYNC", epoch, 2)


@pytest.mark.parametrize(
    "query",
    ["epoch=1", "version=1", "epoch=x&version=1", "epoch=1&version=-1", "epoch=1&epoch=2&version=1", "format=xml"],
)
def test_a_claim_that_is_none_is_refused_before_the_upgrade(apis: list[RestClient], query: str) -> None:
    with RawWebSocket(apis[0].url, f"{uuid.uuid4()}&{query}") as raw:
        assert raw.status == 400


def test_versions_rise_for_a_client_that_comes_back_over_and_over_to_any_process(
    pair: Cluster, apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    session_id = apis[0].running()
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    known = (0, 0)
    seen = 0
    for attempt in range(1000):
        if attempt >= 60 and seen > 30:
            break
        query = {"epoch": known[0], "version": known[1]} if known > (0, 0) else {}
        with RawWebSocket(chance.choice(apis).url, session_id + "".join(f"&{n}={v}" for n, v in query.items())) as raw:
            for _ in range(chance.randrange(3)):
                apis[chance.randrange(2)].command(session_id, "switch")
            if chance.random() < 0.1:
                apis[0].delete(session_id)
                apis[1].running(session_id=session_id)
            within_s = 60.0  # CONNECTED always comes
            try:
                while True:
                    message = raw.message(within_s=within_s)
                    within_s = 0.05
                    if "state" in message:
                        order = (message["state"]["epoch"], message["state"]["version"])
                        assert order > known, f"seed {seed}"
                        known, seen = order, seen + 1
            except Exception as end:  # the connection was closed, or nothing more has come
                if isinstance(end, AssertionError):
                    raise
    assert seen > 30


def test_folded_patches_are_the_states_that_others_are_sent(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    session_id = apis[0].running(metadata={"a": {"b": 1}})
    whole, patched = open_websocket(apis[0].url, session_id), open_websocket(apis[1].url, session_id, format="patch")
    whole.next("STATE_SYNC")
    state = patched.next("STATE_SYNC")["state"]
    steps: list[tuple[str, dict[str, Any]]] = [
        ("switch", {}), ("pause", {}), ("adjust", {"op": "add", "ms": 5000, "participant_id": "white"}), ("resume", {}),
        ("switch", {"next_participant_id": "black"}), ("complete", {}),
    ]  # fmt: skip
    for name, body in steps:
        apis[0].command(session_id, name, **body)
        update, patch = whole.next(), patched.next()
        assert (update["type"], patch["type"]) == ("STATE_UPDATE", "STATE_PATCH")
        for field in ("epoch", "version", "event"):
            assert patch[field] == update[field]
        assert "state" not in patch
        state = apply_patch(state, patch)
        moving = {"server_time_ms": patch["timestamp"], "clock": patch["clock"]}
        assert state == update["state"] | moving
    apis[0].delete(session_id)
    assert patched.next()["type"] == "SESSION_DELETED"


def test_who_waits_for_a_session_with_patches_is_sent_the_state_it_is_made_with(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    session_id = str(uuid.uuid4())
    one = open_websocket(apis[0].url, session_id, format="patch")
    assert one.next()["version"] is None
    apis[1].create(session_id=session_id)
    made = one.next()
    assert (made["type"], made["event"]["type"]) == ("STATE_UPDATE", "session_created")
    apis[1].command(session_id, "start")
    started = one.next()
    assert started["type"] == "STATE_PATCH"
    assert apply_patch(made["state"], started)["status"] == "running"


# Every kind of event, without a network.


def scenario(store: SessionStore, clock: ManualClock, body: dict[str, Any]) -> str:
    """Create a session, make many kinds of events, and return its id."""
    session_id = store.create(CreateSession.parse(body)).found.session_id
    if body["sync_mode"] in ("per_participant", "per_group", "global"):
        store.adjust(session_id, op="add", ms=500)
    store.start(session_id)
    clock.advance_ms(300)
    store.switch(session_id)
    store.pause(session_id)
    clock.advance_ms(300)
    store.update(session_id, {"note": [1, None, {"deep": "ü"}]})
    store.resume(session_id)
    clock.advance_ms(20_000)
    store.get(session_id)
    return session_id


PEOPLE = [{"participant_id": f"p{i}"} for i in range(3)]
TIMED = [person | {"total_time_ms": 2000 + 500 * i} for i, person in enumerate(PEOPLE)]
BODIES: list[dict[str, Any]] = [
    {"sync_mode": "per_participant", "participants": TIMED, "action_on_timeout": {"type": "skip_cycle"}},
    {"sync_mode": "per_participant", "participants": TIMED, "action_on_timeout": {"type": "notify"}},
    {"sync_mode": "per_participant", "participants": TIMED, "increment_ms": 700, "warn_at_ms": [1000, 500]},
    {"sync_mode": "per_cycle", "participants": PEOPLE, "time_per_cycle_ms": 3000, "max_cycles": 4},
    {"sync_mode": "per_cycle", "time_per_cycle_ms": 3000, "action_on_timeout": {"type": "end_session"}},
    {
        "sync_mode": "per_group",
        "participants": [person | {"group_id": f"g{i % 2}"} for i, person in enumerate(TIMED)],
        "action_on_timeout": {"type": "skip_cycle", "action": "fold"},
    },
    {"sync_mode": "global", "participants": PEOPLE, "total_time_ms": 4000, "warn_at_ms": [1000]},
    {"sync_mode": "global", "total_time_ms": 4000, "idle_timeout_s": 1, "action_on_timeout": {"type": "notify"}},
    {"sync_mode": "count_up", "participants": PEOPLE, "idle_timeout_s": 5},
    {"sync_mode": "count_up", "participants": PEOPLE, "max_time_ms": 6000},
]
EVENTS = {
    "session_created", "session_started", "cycle_switched", "session_paused", "session_resumed", "time_adjusted",
    "metadata_updated", "participant_expired", "group_expired", "cycle_timed_out", "session_expired", "time_warning",
    "session_completed", "session_cancelled", "session_deleted",
}  # fmt: skip


def test_folding_gives_exactly_the_state_after_every_kind_of_event(redis: Redis, redis_url: str) -> None:
    clock = ManualClock(redis)
    store = make_store(redis_url)
    seen: set[str] = set()
    for body in BODIES:
        session_id = scenario(store, clock, body)
        if store.get(session_id).found.status in ("running", "paused"):
            store.complete(session_id)
        store.delete(session_id)
        topic = Topic(session_id, "channel")
        topic.mark_subscribed()
        topic.current = True
        state: dict[str, Any] = {}
        known = 0
        for message in outbox_messages(redis, session_id):
            seen.add(message["event"]["type"])
            update = topic.apply(message, clock.now_ms)
            assert update
            if update.session is None:
                continue
            if update.patch and known:
                sent = decoded(update, Outgoing.STATE_PATCH)
                assert (sent["version"], sent["event"]) == (known + 1, message["event"])
                state = apply_patch(state, sent)
            else:
                state = decoded(update, Outgoing.STATE_UPDATE)["state"]
            known = update.order[1]
            assert state == decoded(update, Outgoing.STATE_SYNC)["state"]
    assert seen == EVENTS


def decoded(update: SessionUpdate, kind: Outgoing) -> dict[str, Any]:
    import orjson

    found: dict[str, Any] = orjson.loads(update.payload(kind))
    return found


@pytest.fixture
def many(redis: Redis, redis_url: str) -> list[SessionUpdate]:
    """The updates of a session's first 200 versions."""
    store = make_store(redis_url, set_clock=False)
    session_id = store.create(chess_request()).found.session_id
    results = [store.start(session_id), *[store.switch(session_id) for _ in range(198)]]
    return [
        SessionUpdate(session_id, 0, session=result.found, event=result.event, patch=result.patch) for result in results
    ]


def kinds(backlog: SendQueue) -> list[str]:
    return [item.kind for item in iter(backlog.take, None)]


def test_a_patch_client_that_missed_one_is_sent_the_state_and_then_patches(many: list[SessionUpdate]) -> None:
    backlog = SendQueue(patches=True)
    for update in many[:3]:
        backlog.put(update)
    backlog.put(many[4])
    backlog.put(many[5])
    assert kinds(backlog) == ["CONNECTED", "STATE_SYNC", "STATE_PATCH", "STATE_PATCH", "STATE_SYNC", "STATE_PATCH"]
    for update in many[6 : 8 + MAX_FRAMES]:
        backlog.put(update)
    assert backlog.skipped > 0
    assert kinds(backlog)[0] == "STATE_SYNC"
    frames = {id(update.frame(Outgoing.STATE_PATCH)) for _ in range(3) for update in many[:1]}
    assert len(frames) == 1


def test_who_knows_of_a_later_version_waits_until_the_store_was_asked(many: list[SessionUpdate]) -> None:
    backlog = SendQueue(many[5].order)
    for update in many[:4]:
        backlog.put(update)
    assert not len(backlog)
    backlog.put(many[5])
    backlog.put(many[6])
    assert kinds(backlog) == ["CONNECTED", "STATE_UPDATE"]
    doubter = SendQueue(many[100].order)
    doubter.put(SessionUpdate(many[0].session_id, 0, session=many[3].session, went_back=True))
    assert kinds(doubter) == ["CONNECTED", "STATE_SYNC"]


def test_who_was_told_of_an_outage_is_told_of_its_end_and_the_state_if_it_changed(many: list[SessionUpdate]) -> None:
    session_id = many[0].session_id
    for newest, expected in ((many[1], ["CONNECTED"]), (many[5], ["CONNECTED", "STATE_SYNC"])):
        backlog = SendQueue()
        backlog.put(many[0])
        backlog.put(many[1])
        kinds(backlog)
        for _ in range(3):
            backlog.put(SessionUpdate(session_id, 0, error=StoreUnavailable("away")))
        backlog.put(newest)
        assert kinds(backlog) == ["ERROR", *expected]
    backlog.put(SessionUpdate(session_id, 0, error=StoreUnavailable("away")))
    backlog.put(SessionUpdate(session_id, 0, error=SessionNotFound("gone")))
    assert kinds(backlog) == ["ERROR", "CONNECTED"]
