"""Libraries of other releases are removed, also those that come back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from syncapp.store import library_upkeep
from syncapp.store.client import connect
from syncapp.store.library_upkeep import LibraryUpkeep
from syncapp.store.sessions import SessionStore
from tests.support.function_libraries import forget, libraries
from tests.support.step_clock import StepClock
from tests.support.store import ManualClock, chess_request, make_settings, make_store
from tests.support.types import Redis


@pytest.fixture
def session_id(redis: Redis) -> Iterator[str]:
    """A session on a server that has forgotten all functions except one of somebody else."""
    forget(redis)
    redis.function_load("#!lua name=somebody_else\nredis.register_function('f', function() return 1 end)")
    yield "00000000-0000-4000-8000-000000000001"
    redis.function_delete("somebody_else")


@pytest.fixture
def older(redis_url: str, session_id: str, clock: ManualClock) -> SessionStore:
    """A process of another release: its clock is another one, so its texts are."""
    older = make_store(redis_url)
    older.create(chess_request(session_id=session_id))
    return older


def test_a_library_of_another_release_is_removed_whenever_it_comes_back(
    redis: Redis, redis_url: str, session_id: str, clock: ManualClock, older: SessionStore, minutes: StepClock
) -> None:
    make_store(redis_url, set_clock=False).get(session_id)
    (own,) = {each for each in libraries(redis) if each != older._runner._scripts.functions.library}
    with connect(make_settings(redis_url)) as client:
        upkeep = LibraryUpkeep(client, minutes)

        def left_after(wait_s: float) -> int:
            minutes.now_s += wait_s
            assert upkeep.turn() < 30  # a loop that has no turn for longer looks stuck
            return len(libraries(redis))

        assert left_after(0) == 2  # seen for the first time: its processes may still serve
        assert left_after(library_upkeep.SECOND_LOOK_S - 1) == 2
        assert left_after(1) == 1
        clock.advance_ms(1)
        assert older.get(session_id).found.version == 1  # one of the last requests of a process that then ends
        assert left_after(0) == 2
        assert left_after(library_upkeep.LOOK_S) == 1
        assert libraries(redis) == {own}
    assert redis.function_list(library="somebody_else")


def test_a_user_who_may_not_list_libraries_removes_none(
    redis: Redis, redis_url: str, older: SessionStore, minutes: StepClock
) -> None:
    everything: Any = {"keys": ["*"], "channels": ["*"], "commands": ["+@all", "-function|list"]}
    redis.acl_setuser("app", enabled=True, reset=True, passwords=["+secret"], **everything)
    with connect(make_settings(redis_url.replace("//", "//app:secret@", 1))) as client:
        upkeep = LibraryUpkeep(client, minutes)
        for _ in range(3):
            upkeep.turn()
            minutes.now_s += library_upkeep.LOOK_S
    redis.acl_deluser("app")
    assert libraries(redis) == {older._runner._scripts.functions.library}
