"""Revoked tokens: each process reads them from the store, keeps them, and gives them back if the store loses them."""

from __future__ import annotations

import time

import pytest
from redis.exceptions import RedisError

from syncapp.access.revocations import Revocations
from syncapp.errors import StoreUnavailable
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from syncapp.store.links import PAGE, LinkStore
from tests.support.store import make_settings
from tests.support.types import Redis

SOON_S = time.time() + 3600


@pytest.fixture
def links(redis: Redis, redis_url: str) -> LinkStore:
    return LinkStore(connect(make_settings(redis_url)), Keyspace())


def process(links: LinkStore) -> Revocations:
    made = Revocations(links)
    made.turn()
    return made


def test_every_process_learns_of_a_revocation_with_its_next_turn(links: LinkStore) -> None:
    one, two = process(links), process(links)
    links.add_revoked([("a", SOON_S)])
    assert not one.is_revoked("a")
    for each in (one, two):
        each.turn()
        assert each.is_revoked("a")
        assert not each.is_revoked("b")
    links.add_revoked([("b", SOON_S)])
    one.turn()
    assert one.is_revoked("b")


def test_a_new_process_knows_all_revocations_before_it_checks_the_first_token(links: LinkStore) -> None:
    links.add_revoked((f"j{number}", SOON_S) for number in range(2 * PAGE + 1))
    fresh = Revocations(links)
    assert all(fresh.is_revoked(f"j{number}") for number in range(2 * PAGE + 1))


def test_a_process_that_could_not_read_them_yet_accepts_no_such_token(redis_url: str) -> None:
    away = LinkStore(connect(make_settings("redis://127.0.0.1:1/0")), Keyspace())
    with pytest.raises(StoreUnavailable):
        Revocations(away).is_revoked("a")


def test_a_process_keeps_what_it_knows_while_the_store_is_away(links: LinkStore) -> None:
    one = process(links)
    links.add_revoked([("a", SOON_S)])
    one.turn()
    one._store = LinkStore(connect(make_settings("redis://127.0.0.1:1/0")), Keyspace())
    with pytest.raises((RedisError, StoreUnavailable)):
        one.turn()
    assert one.is_revoked("a")


@pytest.mark.parametrize("newer", [False, True])
def test_what_the_store_has_lost_is_added_again(links: LinkStore, redis: Redis, newer: bool) -> None:
    one, two = process(links), process(links)
    links.add_revoked([("a", SOON_S), ("b", SOON_S), ("old", time.time() - 1)])
    one.turn()
    two.turn()
    redis.flushdb()
    if newer:
        links.add_revoked([("c", SOON_S)])
    for each in (one, two, one):
        each.turn()
    fresh = process(links)
    for each in (fresh, one, two):
        assert {jti for jti in ("a", "b", "c") if each.is_revoked(jti)} == {"a", "b"} | ({"c"} if newer else set())
    assert not fresh.is_revoked("old")


def test_a_failover_that_lost_the_newest_ones_is_noticed(links: LinkStore, redis: Redis) -> None:
    one = process(links)
    links.add_revoked([("a", SOON_S)])
    links.add_revoked([("b", SOON_S)])
    one.turn()
    redis.xdel("sync:revoked", links.revoked_from("")[-1].position)
    one.turn()
    assert [each.jti for each in links.revoked_from("")] == ["a", "b"]
    one.turn()
    assert one.is_revoked("a")


def test_listeners_are_told_once_and_only_of_their_own_token(links: LinkStore) -> None:
    one = process(links)
    told: list[str] = []
    with one.notify("a", lambda: told.append("a")), one.notify("b", lambda: told.append("b")):
        links.add_revoked([("a", SOON_S)])
        for _ in range(3):
            one.turn()
        assert told == ["a"]
    links.add_revoked([("b", SOON_S)])
    one.turn()
    assert told == ["a"]
    assert not one._listeners
    with one.notify("a", lambda: told.append("late")):
        assert told == ["a", "late"]


def test_tokens_that_expired_long_ago_are_forgotten(links: LinkStore) -> None:
    one = process(links)
    links.add_revoked([("old", time.time() - 3600), ("new", SOON_S)])
    one.turn()
    assert one.is_revoked("old")
    one._forgot_s -= 3600
    one.turn()
    assert not one.is_revoked("old")
    assert one.is_revoked("new")
