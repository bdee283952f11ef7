"""Random commands with private parts: the history has what was published, until it is erased."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any

import orjson
import redis as redis_py
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from syncapp.audit.verify import VerifyResult, verify
from syncapp.domain.patches import add_completion, public_patch
from syncapp.domain.principal import SCOPES, Principal
from syncapp.domain.results import Claim
from syncapp.errors import SyncError
from syncapp.history.query_params import AtQuery, EventsQuery
from syncapp.history.recovery import Outcome
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import AuditServices
from tests.support.outboxes import KEYS
from tests.support.store import ManualClock, chess_request

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
values = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(-1e9, 1e9), texts)
documents = st.dictionaries(texts, values | st.lists(values, max_size=2), max_size=3)
claims = st.one_of(st.none(), texts).map(
    lambda sub: Claim(principal=Principal(sub=sub or "", scopes=frozenset(SCOPES), jti=f'j"{sub}' if sub else ""))
)
steps = st.one_of(
    st.tuples(st.just("update"), documents),
    st.tuples(st.just("adjust"), st.none() | texts),
    st.tuples(st.just("complete"), st.tuples(st.none() | texts, values | documents)),
    st.tuples(st.just("cancel"), st.none() | texts),
    st.tuples(st.sampled_from(["switch", "pause", "resume", "lose", "create"]), documents),
)


def run(store: SessionStore, session_id: str, claim: Claim, command: str, told: Any) -> None:
    """Run one command; what is not allowed now is refused."""
    with suppress(SyncError):
        if command == "create":
            store.delete(session_id, claim)
            store.create(chess_request(session_id=session_id, metadata=told), claim)
            store.start(session_id, claim)
        elif command == "update":
            store.update(session_id, told, claim)
        elif command == "adjust":
            store.adjust(session_id, claim, op="add", ms=1, reason=told)
        elif command == "complete":
            store.complete(session_id, claim, reason=told[0], result=told[1])
        elif command == "cancel":
            store.cancel(session_id, claim, reason=told)
        else:
            getattr(store, command)(session_id, claim)


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(first=documents, moves=st.lists(st.tuples(steps, claims), max_size=12), owner=claims)
def test_the_history_has_what_was_published_and_after_an_erasure_what_is_left(
    first: Any, moves: list[Any], owner: Claim, store: SessionStore, clock: ManualClock, log: AuditServices,
    redis: redis_py.Redis,
) -> None:  # fmt: skip
    session_id = str(uuid.uuid4())
    listener: Any = redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py has no types here
    listener.subscribe(KEYS.channel(session_id))
    listener.get_message(timeout=60)
    run(store, session_id, owner, "create", first)
    for (command, told), claim in moves:
        clock.advance_ms(10)
        if command == "lose":
            log.store()
            redis.delete(KEYS.session(session_id))
            assert log.recoveries["run"].recover(session_id) in (Outcome.RESTORED, Outcome.GONE)
        else:
            run(store, session_id, claim, command, told)
    log.store()
    events = log.history.events(session_id, EventsQuery(limit=1000)).rows
    published = [orjson.loads(listener.get_message(timeout=60)["data"]) for _ in events]
    listener.close()
    for event, message in zip(events, published, strict=True):
        assert (event["epoch"], event["version"]) == (message["epoch"], message["version"])
        assert event["event"] == message["event"]
        patch = add_completion(message["patch"], message.get("completion"))
        assert event["patch"] == public_patch({**patch, "idle_ms": message.get("idle_ms")})
    if found := store.position(session_id):
        query = AtQuery(version=found.version, epoch=found.epoch)
        assert log.history.state_at(session_id, query).session == store.get(session_id).found
    assert list(verify(log.url, VerifyResult(), session_id)) == []

    store.delete(session_id, owner, erases=True)
    log.store()
    result = VerifyResult()
    assert list(verify(log.url, result, session_id)) == []
    erased = log.history.events(session_id, EventsQuery(limit=1000)).rows
    assert result.erased_parts == sum(len(event.get("erased", ())) for event in erased)
    for event in erased:
        assert "principal" not in event
        assert event["patch"].get("metadata", {}) == {}
        assert "completion" not in event["patch"]
        assert event["actor"] == "system" or not {"reason", "result"} & event["event"].keys()
