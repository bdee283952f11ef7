"""The Python client with tokens: renewed, refused, expired and revoked ones, and links."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from syncapp_client import Client, Game, SyncAppError
from tests.support.cluster import Cluster, MakeCluster
from tests.support.python_client import SOON_S, client_of, connected
from tests.support.tokens import SECRET, token
from tests.support.types import Redis
from tests.support.web_clients import CHESS, wait_until

OTHERS = "a secret that the server does not have: 32 bytes"


@pytest.fixture(scope="module")
def guarded(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False, AUTH="required", AUTH_SECRETS=SECRET, AUTH_LEEWAY_S="0")


@pytest.fixture
def url(guarded: Cluster) -> str:
    return guarded.urls[0]


@pytest.fixture
def admin(url: str) -> Iterator[Client]:
    with client_of(url, token()) as client:
        yield client


@pytest.fixture
def session_id(admin: Client) -> str:
    return admin.create(CHESS)["session_id"]


class Source:
    """Gives tokens in turn, and then the last one again."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = tokens
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return self._tokens[min(self.count, len(self._tokens)) - 1]


def test_a_client_outlives_its_first_token(url: str, session_id: str) -> None:
    ends_s = time.time() + 4
    source = Source(token(expires_in_s=4), token())
    with connected(url, session_id, source) as game:
        wait_until(lambda: time.time() > ends_s + 1 and game.status == "live", SOON_S)
        assert game.start().version == 2
    assert source.count == 2


def test_a_fixed_token_that_expires_is_the_end(url: str, session_id: str) -> None:
    for lives_s in (4, 30):
        with Game(url, session_id, token=token(expires_in_s=lives_s)) as game:
            ended = list(game.watch(SOON_S))
            assert game.reason
            assert (game.status, game.reason.code, game.reason.final) == ("closed", "UNAUTHORIZED", True)
        if ended:
            return  # it was connected before; else the machine stood still until the token's end
    pytest.fail("the first state did not come within 30 s")


def test_a_token_that_is_revoked_is_replaced_by_another(url: str, session_id: str, admin: Client) -> None:
    link = admin.links.create(session_id, "session:watch")
    source = Source(link["token"], token())
    with connected(url, session_id, source) as game:
        watch = game.watch(SOON_S)
        admin.links.revoke(session_id, link["jti"])
        wait_until(lambda: source.count == 2, SOON_S)
        admin.start(session_id)
        assert [next(watch).state["version"] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (None, "UNAUTHORIZED"),
        ("no token at all", "UNAUTHORIZED"),
        (token(secret=OTHERS), "UNAUTHORIZED"),
        (token(expires_in_s=-10), "UNAUTHORIZED"),
        (lambda: token(secret=OTHERS, jti=str(time.monotonic_ns())), "UNAUTHORIZED"),
        (lambda: None, "UNAUTHORIZED"),
        (token(scope="history:read"), "FORBIDDEN"),
        (token(scope="session:watch", session_id="3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"), "FORBIDDEN"),
    ],
)
def test_a_token_that_is_refused_is_not_tried_again(url: str, session_id: str, given: str | None, code: str) -> None:
    with pytest.raises(SyncAppError) as raised:
        connected(url, session_id, given)
    assert raised.value.code == code


def test_a_function_that_first_gives_a_bad_token_is_asked_again(url: str, session_id: str) -> None:
    source = Source(token(secret=OTHERS), token())
    with connected(url, session_id, source) as game:
        assert game.status == "live"
    with client_of(url, Source(token(secret=OTHERS), token())) as client:
        assert client.start(session_id).version == 2


def test_a_function_that_fails_for_a_while_is_asked_again(url: str, session_id: str) -> None:
    asked = []

    def source() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise OSError("the back end is away")
        return token()

    with connected(url, session_id, source) as game:
        assert game.status == "live"


def test_a_command_that_a_token_does_not_allow_is_refused_at_once(url: str, session_id: str) -> None:
    with connected(url, session_id, token(scope="session:watch")) as game:
        with pytest.raises(SyncAppError) as raised:
            game.start()
        assert (raised.value.code, raised.value.details) == ("FORBIDDEN", {"missing_scope": "session:control"})
        assert game.status == "live"


def test_links_are_made_listed_and_revoked(url: str, session_id: str, admin: Client) -> None:
    link = admin.links.create(session_id, "session:act", participant_id="white", expires_in_s=600, label="White")
    assert link["url"].endswith(f"#token={link['token']}")
    assert [each["jti"] for each in admin.links.list(session_id)] == [link["jti"]]
    admin.start(session_id)
    with connected(url, session_id, link["token"]) as game:
        game.switch(participant_id="white")
        with pytest.raises(SyncAppError, match="NOT_ACTIVE_PARTICIPANT"):
            game.switch(participant_id="white")
        admin.links.revoke(session_id)
        wait_until(lambda: game.status == "closed", SOON_S)
    assert admin.links.list(session_id) == []
