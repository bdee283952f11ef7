"""Running scripts: forgotten scripts, unavailable servers, and refused writes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from syncapp.config import Settings
from syncapp.domain.results import Claim, Result
from syncapp.errors import StoreUnavailable
from syncapp.store.sessions import SessionStore
from tests.support.store import chess_request, dump_session, make_store
from tests.support.types import Redis


def test_scripts_that_the_server_forgot_are_sent_again(store: SessionStore, redis: Redis, running: str) -> None:
    redis.script_flush()
    assert store.switch(running).found.version == 3


def test_a_server_may_be_reached_by_a_socket(redis: Redis, tmp_path: Path) -> None:
    from redis.exceptions import ConnectionError as RedisConnectionError

    from syncapp.store.client import connect, pubsub_connection

    chosen = Settings(redis_url=f"unix://{tmp_path}/none")
    for connect_now in (connect(chosen).ping, pubsub_connection(chosen).connect):
        with pytest.raises(RedisConnectionError):  # there is no server; the argument is accepted
            connect_now()


def test_a_server_that_is_away_is_an_error_with_a_reason(redis_url: str) -> None:
    store = make_store("redis://127.0.0.1:1/0", redis_timeout_s=0.2)
    with pytest.raises(StoreUnavailable) as refused:
        store.get(str(uuid.uuid4()))
    assert refused.value.details["retry_after_s"] == 1
    with pytest.raises(StoreUnavailable):
        store.time_ms()


def lasting_keys(redis: Redis) -> set[bytes]:
    """Names of all keys but those that a nudge leaves for half a second."""
    names: list[bytes] = redis.keys("*")  # type: ignore[assignment]  # redis-py's types allow for asyncio
    return {name for name in names if b"nudge" not in name}


@pytest.mark.parametrize("config", [("maxmemory", 1, 0), ("min-replicas-to-write", 1, 0)], ids=lambda each: each[0])
def test_a_server_that_takes_no_writes_refuses_every_command_before_anything_is_written(
    store: SessionStore, redis: Redis, running: str, config: tuple[str, int, int]
) -> None:
    deleted = store.create(chess_request()).found.session_id
    store.delete(deleted)
    commands: list[Callable[[], Result]] = [
        lambda: store.create(chess_request()),
        lambda: store.create(chess_request(session_id=deleted)),
        lambda: store.switch(running),
        lambda: store.pause(running, Claim(idempotency_key="k")),
        lambda: store.update(running, {"a": 1}),
        lambda: store.adjust(running, op="add", ms=1),
    ]
    if config[0] != "maxmemory":  # a full server accepts commands that free memory (test_full_store.py)
        commands += [lambda: store.cancel(running), lambda: store.complete(running), lambda: store.delete(running)]
    before = dump_session(redis, running), dump_session(redis, deleted), lasting_keys(redis)
    redis.config_set(config[0], config[1])
    try:
        for command in commands:
            with pytest.raises(StoreUnavailable, match="nothing was changed"):
                command()
    finally:
        redis.config_set(config[0], config[2])
    assert (dump_session(redis, running), dump_session(redis, deleted), lasting_keys(redis)) == before


def test_a_server_that_lets_nobody_publish_is_unavailable_and_a_retry_is_the_first_that_counts(
    redis: Redis, redis_url: str, store: SessionStore, running: str
) -> None:
    redis.acl_setuser("mute", enabled=True, nopass=True, keys=["*"], commands=["+@all"], reset_channels=True)
    mute = make_store(redis_url.replace("redis://", "redis://mute:x@"))
    claim = Claim(idempotency_key="k")
    try:
        with pytest.raises(StoreUnavailable):
            mute.switch(running, claim)
    finally:
        redis.acl_deluser("mute")
    assert store.get(running).found.version == 2
    again = store.switch(running, claim)
    assert (again.replayed, again.found.version) == (False, 3)
