"""Metadata: JSON merge patches, up to a limit."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncapp.domain.command_bodies import merge_patch
from syncapp.errors import ValidationFailed
from syncapp.store.sessions import SessionStore
from tests.support.store import ManualClock, chess_request, dump_session, make_store
from tests.support.types import Redis


def test_metadata_takes_merge_patches_in_any_status(store: SessionStore, clock: ManualClock) -> None:
    session_id = store.create(
        chess_request(metadata={"a": {"b": 1, "c": [1, {}]}, "big": 12345678901234567})
    ).found.session_id
    store.cancel(session_id)
    result = store.update(session_id, {"a": {"b": None, "d": {}}, "e": 1e14})
    assert result.found.metadata == {"a": {"c": [1, {}], "d": {}}, "big": 12345678901234567, "e": 1e14}
    assert result.found.status == "cancelled"


def test_metadata_may_not_grow_past_its_limit_patch_by_patch(store: SessionStore, redis: Redis) -> None:
    session_id = store.create(chess_request(metadata={"a": "x" * 10_000})).found.session_id
    before = dump_session(redis, session_id)
    with pytest.raises(ValidationFailed, match="more than 16384"):
        store.update(session_id, {"b": "x" * 10_000})
    assert dump_session(redis, session_id) == before


def test_concurrent_merge_patches_all_take_effect(redis_url: str, redis: Redis) -> None:
    store = make_store(redis_url, set_clock=False)
    session_id = store.create(chess_request()).found.session_id
    threads = [
        threading.Thread(target=lambda i=i: [store.update(session_id, {f"{i}-{j}": j}) for j in range(10)])
        for i in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.get(session_id).found.metadata) == 50


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    target=st.dictionaries(st.sampled_from("abc"), documents, max_size=3),
    patch=st.dictionaries(st.sampled_from("abc"), documents, max_size=3),
)
def test_a_merge_patch_follows_rfc_7396(target: dict[str, Any], patch: dict[str, Any]) -> None:
    merged = merge_patch(target, patch)
    for name, value in patch.items():
        if value is None:
            assert name not in merged
        elif not isinstance(value, dict):
            assert merged[name] == value
    assert all(merged[name] == value for name, value in target.items() if name not in patch)
