"""The links of a session in the store."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from syncapp.domain.link_ids import new_link_id
from syncapp.domain.principal import SCOPES, Principal
from syncapp.domain.results import Claim
from syncapp.errors import Conflict, SessionNotFound, TooManyLinks
from syncapp.store import links as link_store
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from syncapp.store.links import Link, LinkStore
from syncapp.store.sessions import SessionStore
from tests.support.store import chess_request, make_settings
from tests.support.types import Redis

UUID = "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"
SESSION = f"acme/{UUID}"
EPOCH = 1_767_268_680_000


@pytest.fixture
def links(redis: Redis, redis_url: str) -> LinkStore:
    return LinkStore(connect(make_settings(redis_url)), Keyspace())


def a_link(expires_in_s: int = 60, epoch: int = EPOCH) -> Link:
    now_s = int(time.time())
    return Link(new_link_id(epoch), "session:watch", now_s, now_s + expires_in_s, "ada", label="x")


def test_links_are_kept_until_the_last_one_expires(links: LinkStore, redis: Redis) -> None:
    first, long, last = a_link(), a_link(3600), a_link(120)
    for link in (first, long, last):
        links.add(SESSION, link)
    assert {each.jti for each in links.links_of(SESSION, EPOCH)} == {first.jti, long.jti, last.jti}
    assert first in links.links_of(SESSION, EPOCH)
    lifetime_ms = redis.pttl(Keyspace().links(SESSION))
    assert 3_500_000 < lifetime_ms <= 3_600_000


def test_links_of_another_life_or_tenant_are_not_listed(links: LinkStore) -> None:
    links.add(SESSION, a_link())
    assert links.links_of(SESSION, EPOCH + 1) == []
    assert links.links_of(UUID, EPOCH) == []


def test_expired_links_make_room_and_revoked_ones_do_not(links: LinkStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_store, "MAX_LINKS", 2)
    links.add(SESSION, a_link(-1))
    kept = a_link()
    links.add(SESSION, kept)
    revoked = a_link()
    links.add(SESSION, revoked)
    links.revoke(SESSION, [revoked])
    assert links.links_of(SESSION, EPOCH) == [kept]
    with pytest.raises(TooManyLinks) as full:
        links.add(SESSION, a_link())
    assert full.value.details == {"limit": 2}
    assert [each.jti for each in links.revoked_from("")] == [revoked.jti]


def test_a_full_store_accepts_a_revocation(links: LinkStore, redis: Redis) -> None:
    link = a_link()
    links.add(SESSION, link)
    redis.config_set("maxmemory", 1)
    try:
        links.revoke(SESSION, [link])
    finally:
        redis.config_set("maxmemory", 0)
    assert links.links_of(SESSION, EPOCH) == []
    assert [each.jti for each in links.revoked_from("")] == [link.jti]


def test_a_links_commands_and_reads_concern_its_own_life_of_the_session_only(store: SessionStore) -> None:
    first = store.create(chess_request(session_id=UUID)).found
    link = Principal("link:x", scopes=frozenset(SCOPES), jti=new_link_id(first.epoch), is_link=True, session_id=UUID)
    claim = Claim(principal=link)
    assert store.get(UUID, link).found.version == 1
    assert store.start(UUID, claim).found.version == 2
    with pytest.raises(Conflict) as stale:
        store.switch(UUID, replace(claim, expected_version=1))
    assert stale.value.details["actual_version"] == 2
    store.delete(UUID)
    second = store.create(chess_request(session_id=UUID)).found
    assert second.epoch > first.epoch
    attempts: list[Callable[[], object]] = [
        lambda: store.get(UUID, link),
        lambda: store.start(UUID, claim),
        lambda: store.start(UUID, replace(claim, expected_version=1)),
        lambda: store.start(UUID, replace(claim, expected_epoch=second.epoch)),
        lambda: store.start(UUID, replace(claim, expected_epoch=second.epoch, expected_version=1)),
        lambda: store.start(UUID, replace(claim, expected_epoch=0)),
        lambda: store.start(UUID, replace(claim, idempotency_key="k")),
        lambda: store.update(UUID, {"a": 1}, claim),
        lambda: store.complete(UUID, claim),
        lambda: store.delete(UUID, claim),
    ]
    for attempt in attempts:
        with pytest.raises(SessionNotFound) as missing:
            attempt()
        assert "current" not in (missing.value.details or {})
    assert store.get(UUID).found == second


def test_an_erased_session_leaves_no_links(links: LinkStore, redis: Redis) -> None:
    links.add(SESSION, a_link())
    links.forget(SESSION)
    assert not redis.exists(Keyspace().links(SESSION))


def test_an_erased_principal_is_removed_from_the_links_of_its_tenant(links: LinkStore, redis: Redis) -> None:
    mine, others = replace(a_link(), created_by="Jane", label="for Carol"), a_link()
    for link in (mine, others):
        links.add(SESSION, link)
    elsewhere = f"blue/{UUID}"
    links.add(elsewhere, replace(a_link(), created_by="Jane"))
    assert links.forget_creator("acme", "Jane") == 1
    held = redis.hvals(Keyspace().links(SESSION))
    assert not any(name in text for text in held for name in (b"Jane", b"Carol"))
    kept = {each.jti: each for each in links.links_of(SESSION, EPOCH)}
    assert kept == {mine.jti: replace(mine, created_by="", label=None), others.jti: others}
    assert [each.created_by for each in links.links_of(elsewhere, EPOCH)] == ["Jane"]
