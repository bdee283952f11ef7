"""Keys of a JWKS are fetched, kept while the URL cannot be read, and replaced when they change."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from syncapp.access import jwks
from syncapp.access.jwks import MAX_AGE_S, MIN_PAUSE_S, RETRY_S, JwksKeys
from syncapp.access.tokens import Authenticator
from syncapp.config import Settings
from syncapp.errors import Unauthorized
from tests.support.jwks import EC, ED, PRIVATE, RSA, JwksServer, jwks_server, public_jwk
from tests.support.step_clock import StepClock
from tests.support.tokens import SECRET, token
from tests.support.web_clients import wait_until


@pytest.fixture
def server() -> Iterator[JwksServer]:
    with jwks_server() as made:
        made.publish(public_jwk(RSA, "RS256", "one"))
        yield made


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


@pytest.fixture
def authenticator(server: JwksServer, clock: StepClock) -> Authenticator:
    made = Authenticator(Settings(auth="required", auth_jwks_url=server.url))
    made.keys._jwks = JwksKeys(server.url, clock=clock)
    return made


def signed(kid: str | None, algorithm: str = "RS256", key: Any = None, **claims: Any) -> str:
    given = {"sub": "ada", "exp": int(time.time()) + 3600} | claims
    return jwt.encode(given, key or PRIVATE[algorithm], algorithm, headers={"kid": kid} if kid else {})


def refusal(authenticator: Authenticator, text: str) -> str:
    with pytest.raises(Unauthorized) as refused:
        authenticator.principal(text)
    return refused.value.message


def test_the_first_token_waits_for_the_keys(authenticator: Authenticator, server: JwksServer) -> None:
    assert authenticator.worries()
    assert authenticator.principal(signed("one")).sub == "ada"
    assert (server.count, authenticator.worries()) == (1, [])


def test_a_new_key_is_fetched_when_a_token_names_it(
    authenticator: Authenticator, server: JwksServer, clock: StepClock
) -> None:
    authenticator.principal(signed("one"))
    server.publish(public_jwk(RSA, "RS256", "one"), public_jwk(EC, "ES256", "two"), public_jwk(ED, "EdDSA", "three"))
    clock.now_s += MIN_PAUSE_S
    assert authenticator.principal(signed("two", "ES256")).sub == "ada"
    assert authenticator.principal(signed("three", "EdDSA")).sub == "ada"
    assert authenticator.principal(signed("one")).sub == "ada"
    assert server.count == 2


def test_a_flood_of_unknown_keys_causes_one_fetch(
    authenticator: Authenticator, server: JwksServer, clock: StepClock
) -> None:
    authenticator.principal(signed("one"))
    clock.now_s += MIN_PAUSE_S
    flood = [signed(f"unknown-{number}") for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        said = set(pool.map(lambda text: refusal(authenticator, text), flood))
    assert said == {"the token names no key that is known here (kid in its header)"}
    assert server.count == 2
    clock.now_s += MIN_PAUSE_S
    refusal(authenticator, flood[0])
    assert server.count == 3


def test_tokens_that_no_jwks_can_verify_cause_no_fetch(
    authenticator: Authenticator, server: JwksServer, clock: StepClock
) -> None:
    authenticator.principal(signed("one"))
    clock.now_s += MIN_PAUSE_S
    assert refusal(authenticator, token()) == "the algorithm of the token is not accepted here, only RS256"
    other = rsa.generate_private_key(65_537, 2048)
    assert refusal(authenticator, signed("one", key=other)) == "the signature of the token does not match any key"
    assert server.count == 1


def test_callers_with_an_unknown_key_wait_for_the_same_fetch(authenticator: Authenticator, server: JwksServer) -> None:
    go = threading.Event()
    answer = server.answer

    def slow() -> tuple[int, dict[str, str], bytes]:
        go.wait(30)
        return answer()

    server.answer = slow
    with ThreadPoolExecutor(6) as pool:
        callers = [pool.submit(authenticator.principal, signed("one")) for _ in range(6)]
        wait_until(lambda: server.count == 1)
        go.set()
        assert {caller.result(30).sub for caller in callers} == {"ada"}
    assert server.count == 1


def test_the_last_keys_are_kept_while_the_url_is_away(
    authenticator: Authenticator, server: JwksServer, clock: StepClock
) -> None:
    authenticator.principal(signed("one"))
    server.close()
    clock.now_s += 10 * MAX_AGE_S
    assert authenticator.principal(signed("one", jti="new")).jti == "new"
    keys = authenticator.keys._jwks
    wait_until(lambda: keys is not None and keys._due_s == clock.now_s + RETRY_S)
    assert authenticator.principal(signed("one", jti="newer")).jti == "newer"


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}, b""),
        (302, {"Location": "http://127.0.0.1:1/jwks.json"}, b""),
        (200, {}, b"<html>"),
        (200, {}, b'{"keys": []}'),
        (200, {}, b'{"keys": {"kty": "RSA"}}'),
        (200, {}, b"[]"),
        (200, {}, b'{"keys": [1, null, {"kty": "RSA", "n": 7, "e": []}, {"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}'),
        (200, {}, b" " * 300_000),
        (200, {"Content-Length": "9"}, b"{}"),
        (200, {"Transfer-Encoding": "chunked"}, b"{}"),
    ],
)
def test_a_bad_answer_changes_nothing(
    authenticator: Authenticator, server: JwksServer, clock: StepClock, answer: tuple[int, dict[str, str], bytes]
) -> None:
    authenticator.principal(signed("one"))
    good, server.answer = server.answer, lambda: answer
    clock.now_s += MIN_PAUSE_S
    assert refusal(authenticator, signed("two")) == "the token names no key that is known here (kid in its header)"
    assert server.count == 2
    assert authenticator.principal(signed("one")).sub == "ada"
    server.answer = good


def test_a_redirect_is_not_followed(server: JwksServer) -> None:
    body = server.answer()[2]
    with jwks_server() as other:
        other.answer = lambda: (302, {"Location": server.url}, b"")
        with pytest.raises(OSError, match="302"):
            jwks.fetch(other.url)
    assert server.count == 0
    assert jwks.fetch(server.url) == body


def test_an_answer_that_drips_is_given_up(server: JwksServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "_TIMEOUT_S", 0.2)
    go = threading.Event()

    def never() -> tuple[int, dict[str, str], bytes]:
        go.wait(30)
        return (200, {}, b"{}")

    server.answer = never
    with pytest.raises(OSError, match="timed out"):
        jwks.fetch(server.url)
    go.set()


def test_a_removed_key_ends_the_tokens_that_it_signed_also_cached_ones(
    authenticator: Authenticator, server: JwksServer, clock: StepClock
) -> None:
    old, new = signed("one"), signed("two", "ES256")
    authenticator.principal(old)  # fetches the keys
    assert authenticator.principal(old) is authenticator.principal(old)
    server.publish(public_jwk(EC, "ES256", "two"))
    clock.now_s += MAX_AGE_S
    authenticator.principal(old)  # starts the refresh
    wait_until(lambda: authenticator.keys._jwks is not None and authenticator.keys._jwks.generation == 2)
    assert refusal(authenticator, old) == "the algorithm of the token is not accepted here, only ES256"
    assert authenticator.principal(new).sub == "ada"


def test_keys_that_did_not_change_keep_cached_tokens(
    authenticator: Authenticator, server: JwksServer, clock: StepClock
) -> None:
    text = signed("one")
    authenticator.principal(text)  # fetches the keys
    found = authenticator.principal(text)
    clock.now_s += MAX_AGE_S
    authenticator.principal(text)
    wait_until(lambda: server.count == 2)
    authenticator.principal(text)
    assert authenticator.principal(text) is found
    assert authenticator.keys.generation == 1


def test_while_no_keys_were_fetched_tokens_are_refused_with_the_reason(clock: StepClock) -> None:
    made = Authenticator(Settings(auth="required", auth_secrets=SECRET, auth_jwks_url="http://127.0.0.1:1/"))
    made.keys._jwks = JwksKeys("http://127.0.0.1:1/", clock=clock)
    assert refusal(made, signed("one")) == "the keys of AUTH_JWKS_URL could not be fetched yet: try again later"
    assert made.principal(token()).sub == "ada"  # the secret needs no URL
    assert made.worries() == ["the keys of AUTH_JWKS_URL could not be fetched: no token of its keys is accepted"]


@pytest.mark.parametrize(
    "entry",
    [
        public_jwk(RSA, "RS256", "one", use="enc"),
        public_jwk(RSA, "RS256", "one", alg="RS512"),
        public_jwk(RSA, "RS256", "one", alg="HS256"),
        public_jwk(RSA, "RS256", "one", key_ops=["encrypt"]),
        public_jwk(RSA, "RS256", "one", key_ops=None),
        public_jwk(RSA, "RS256", "one", kty="oct", k="AAAA"),
        public_jwk(RSA, "RS256", None) | {"kid": 7},
        public_jwk(rsa.generate_private_key(65_537, 1024), "RS256", "one"),
        public_jwk(ec.generate_private_key(ec.SECP384R1()), "ES384", "one"),
        public_jwk(ec.generate_private_key(ec.SECP256K1()), "ES256K", "one", crv="P-256"),
        {"kty": "oct", "kid": "one", "k": "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3I"},
        {"kty": ["RSA"], "kid": "one"},
    ],
    ids=[
        *(
            "for encryption",
            "another alg",
            "a symmetric alg",
            "another operation",
            "no operations",
            "symmetric and RSA",
        ),
        *("a kid that is a number", "RSA of 1024 bits", "P-384", "another curve than it says", "symmetric", "a list"),
    ],
)
def test_a_key_for_something_else_is_skipped(
    authenticator: Authenticator, server: JwksServer, entry: dict[str, Any]
) -> None:
    server.publish(entry, public_jwk(ED, "EdDSA", "good"))
    assert authenticator.principal(signed("good", "EdDSA")).sub == "ada"
    assert authenticator.keys._jwks is not None
    assert [key.kid for key in authenticator.keys._jwks.keys] == ["good"]


def test_a_private_key_that_was_published_by_mistake_verifies_as_a_public_one(
    authenticator: Authenticator, server: JwksServer
) -> None:
    server.publish(json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(RSA)) | {"kid": "one", "key_ops": ["verify"]})
    assert authenticator.principal(signed("one")).sub == "ada"


def test_a_token_without_kid_fits_only_a_single_key(
    authenticator: Authenticator, server: JwksServer, clock: StepClock
) -> None:
    assert authenticator.principal(signed(None)).sub == "ada"
    second = rsa.generate_private_key(65_537, 2048)
    server.publish(public_jwk(RSA, "RS256", "one"), public_jwk(second, "RS256", "two"))
    clock.now_s += MIN_PAUSE_S
    assert authenticator.principal(signed("two", key=second)).sub == "ada"
    assert refusal(authenticator, signed(None)) == "the token names no key that is known here (kid in its header)"
    assert refusal(authenticator, signed("two")) == "the signature of the token does not match any key"
