"""Tokens are accepted only if everything about them is right, and what is wrong is said without repeating them."""

from __future__ import annotations

import json
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest

from syncapp.access.tokens import Authenticator
from syncapp.config import Settings
from syncapp.domain.principal import SCOPES, Principal
from syncapp.errors import TokensNotConfigured, Unauthorized
from tests.support.tokens import SECRET, token

NOW_S = 1_800_000_000
OTHER = "another secret of the tests: 32 bytes or more"
TIME = "must be a number of seconds since 1970"
SUB = "the sub claim must be a text of 1 to 128 characters, without control characters"
TENANT = "the tenant claim must be 1 to 64 characters of A-Z a-z 0-9 . _ -, a letter or digit first"
SESSION = str(uuid.UUID(int=7))
DETAILS = {"reason": "invalid_token"}
SAFE = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+\Z")
"""What an error_description may contain (RFC 6750, section 3)."""


def authenticator(now_s: float = NOW_S, **settings: Any) -> Authenticator:
    chosen: dict[str, Any] = {"auth": "required", "auth_secrets": SECRET, "auth_leeway_s": 0.0} | settings
    return Authenticator(Settings(**chosen), clock=lambda: now_s)


def made(**claims: Any) -> str:
    return token(**{"exp": NOW_S + 60} | claims)


def refusal(text: str, given: Authenticator | None = None) -> str:
    with pytest.raises(Unauthorized) as refused:
        (given or authenticator()).principal(text)
    assert refused.value.details == DETAILS
    assert SAFE.match(refused.value.message)
    return refused.value.message


def test_a_token_states_who_calls_and_with_which_rights() -> None:
    text = made(
        sub="Ada Lovelace", scope="session:act history:read", tenant="acme", session_id=SESSION.upper(),
        participant_id="white", jti="link-1", nbf=NOW_S, iat=NOW_S - 5.5, link=True, name="ignored",
    )  # fmt: skip
    assert authenticator().principal(text) == Principal(
        sub="Ada Lovelace",
        tenant="acme",
        scopes=frozenset({"session:act", "session:watch", "history:read"}),
        session_id=SESSION,
        participant_id="white",
        jti="link-1",
        expires_s=NOW_S + 60,
        is_link=True,
    )


@pytest.mark.parametrize(
    ("scope", "rights"),
    [
        (None, set()),
        ("", set()),
        ("  session:time  ", {"session:time"}),
        ("session:time future:scope SESSION:ACT", {"session:time"}),
        ("session:control", {"session:control", "session:act", "session:watch"}),
        ("admin", set(SCOPES)),
    ],
)
def test_scopes_include_others_and_unknown_ones_are_ignored(scope: str | None, rights: set[str]) -> None:
    assert authenticator().principal(made(scope=scope)).scopes == rights


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"exp": None}, "the token has no exp claim: it must say when it expires"),
        ({"exp": NOW_S - 12}, "the token expired 12 s ago"),
        ({"exp": NOW_S}, "the token expired 1 s ago"),
        ({"exp": str(NOW_S + 60)}, f"the exp claim {TIME}"),
        ({"exp": True}, f"the exp claim {TIME}"),
        ({"exp": 1e300}, f"the exp claim {TIME}"),
        ({"exp": 10**30}, "the payload of the token is not a JSON object that can be read"),
        ({"nbf": NOW_S + 30}, "the token is not valid yet, but in 30 s (nbf claim)"),
        ({"nbf": "0"}, f"the nbf claim {TIME}"),
        ({"iat": NOW_S + 3}, "the token was issued 3 s in the future (iat claim): compare the clocks"),
        ({"iat": [0]}, f"the iat claim {TIME}"),
        ({"sub": None}, SUB),
        ({"sub": ""}, SUB),
        ({"sub": "a\x00b"}, SUB),
        ({"sub": "é" * 129}, SUB),
        ({"scope": ["admin"]}, "the scope claim must be a text, with spaces between the scopes"),
        ({"tenant": "-x"}, TENANT),
        ({"tenant": "a/b"}, TENANT),
        ({"tenant": "a\n"}, TENANT),
        ({"session_id": "7"}, "the session_id claim must be a UUID"),
        ({"session_id": f"acme/{SESSION}"}, "the session_id claim must be a UUID"),
        ({"participant_id": "a b"}, "the participant_id claim must be the id of a participant"),
        ({"jti": 'x"y'}, "the jti claim must be 1 to 64 characters of A-Z a-z 0-9 . _ -"),
        ({"jti": ""}, "the jti claim must be 1 to 64 characters of A-Z a-z 0-9 . _ -"),
        ({"link": 1}, "the link claim must be true or false"),
        ({"aud": "x"}, "the token is for an audience (aud claim), and AUTH_AUDIENCE is not set here"),
        ({"name": "x" * 2048}, "the claims of the token are larger than 2048 bytes"),
        ({"name": "x" * 4096}, "the token is longer than 4096 characters"),
    ],
)  # fmt: skip
def test_a_claim_that_is_wrong_is_named(claims: dict[str, Any], message: str) -> None:
    given = {"sub": "ada", "scope": "admin", "exp": NOW_S + 60} | claims
    kept = {name: value for name, value in given.items() if value is not None}
    # Not by jwt.encode, which refuses some of these itself.
    text = jwt.PyJWS().encode(json.dumps(kept).encode(), SECRET, algorithm="HS256", headers={"typ": "JWT"})
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"crit": ["exp"], "exp": 1}, "the token's header demands an extension that is not supported (crit, b64)"),
        ({"typ": "logout+jwt"}, "the typ in the token's header must be JWT or at+jwt"),
        ({"kid": "x" * 257}, "the kid in the token's header must be a text of 1 to 256 characters"),
    ],
)
def test_a_header_that_is_wrong_is_named(header: dict[str, Any], message: str) -> None:
    text = jwt.encode({"sub": "ada", "exp": NOW_S + 60}, SECRET, headers=header)
    assert refusal(text) == message


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c.d", "Bearer x", "a.b.é", "a.b.c\n", "eyJ.e30.", "....", "A.A.A"])
def test_what_is_no_token_is_refused(text: str) -> None:
    assert refusal(text).startswith("the token is not a signed JWT")


def test_a_token_that_another_secret_signed_is_refused() -> None:
    assert refusal(made(secret=OTHER)) == "the signature of the token does not match any key"
    signed, _, last = made().rpartition(".")
    assert refusal(f"{signed}.A{last[1:]}") == "the signature of the token does not match any key"
    assert refusal(f"{signed}.{last[:-1]}_") == "the token is not a signed JWT: a part is not base64url"


def test_unsigned_tokens_and_other_algorithms_are_refused() -> None:
    claims = {"sub": "ada", "exp": NOW_S + 60}
    unsigned = jwt.encode(claims, "", algorithm="none")
    assert refusal(unsigned).startswith("the token is not a signed JWT")
    assert refusal(f"{unsigned}AA") == "the algorithm of the token is not accepted here, only HS256"
    longer = jwt.encode(claims, SECRET * 2, algorithm="HS512")
    assert refusal(longer) == "the algorithm of the token is not accepted here, only HS256"


def test_every_secret_verifies_and_the_first_one_signs() -> None:
    both = authenticator(auth_secrets=f"{OTHER}, {SECRET}")
    assert both.principal(made()).sub == both.principal(made(secret=OTHER)).sub == "ada"
    minted = both.mint(sub="ada", scopes=["session:watch"], expires_in_s=60)
    assert authenticator(auth_secrets=OTHER).principal(minted).sub == "ada"
    assert refusal(minted) == "the signature of the token does not match any key"


@pytest.mark.parametrize(("at_s", "valid"), [(-6, False), (-5, True), (0, True), (64, True), (64.9, True), (65, False)])
def test_times_are_compared_with_the_leeway(at_s: float, valid: bool) -> None:
    given, text = authenticator(NOW_S + at_s, auth_leeway_s=5.0), made(nbf=NOW_S, iat=NOW_S)
    if valid:
        assert given.principal(text).sub == "ada"
    else:
        refusal(text, given)


def test_a_token_of_a_fraction_of_a_second_is_not_extended_to_the_next_second() -> None:
    assert authenticator(NOW_S + 0.4).principal(made(exp=NOW_S + 0.5)).expires_s == NOW_S
    refusal(made(exp=NOW_S + 0.5), authenticator(NOW_S + 0.5))


@pytest.mark.parametrize(
    ("claims", "valid"),
    [
        ({"aud": "sync", "iss": "https://login"}, True),
        ({"aud": ["x", "sync"], "iss": "https://login"}, True),
        ({"aud": ["x"], "iss": "https://login"}, False),
        ({"aud": {"sync": 1}, "iss": "https://login"}, False),
        ({"iss": "https://login"}, False),
        ({"aud": "sync"}, False),
        ({"aud": "sync", "iss": "https://login/"}, False),
    ],
)
def test_audience_and_issuer_must_be_those_of_the_settings(claims: dict[str, Any], valid: bool) -> None:
    given = authenticator(auth_audience="sync", auth_issuer="https://login")
    if valid:
        assert given.principal(made(**claims)).sub == "ada"
    else:
        refusal(made(**claims), given)


def test_a_minted_token_says_what_it_was_asked_for_and_fits_into_a_qr_code() -> None:
    given = authenticator(auth_audience="sync", auth_issuer="https://login")
    text = given.mint(
        sub="link", scopes=["session:act"], session_id=SESSION, participant_id="white", expires_in_s=3600,
        jti="3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10", is_link=True,
    )  # fmt: skip
    assert given.principal(text) == Principal(
        sub="link",
        scopes=frozenset({"session:act", "session:watch"}),
        session_id=SESSION,
        participant_id="white",
        jti="3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10",
        expires_s=NOW_S + 3600,
        is_link=True,
    )
    assert len(text) < 500


def test_without_a_secret_no_token_can_be_made() -> None:
    with pytest.raises(TokensNotConfigured) as refused:
        authenticator(auth_secrets="").mint(sub="x", scopes=[], expires_in_s=1)
    assert (refused.value.status, refused.value.code) == (501, "TOKENS_NOT_CONFIGURED")


def test_a_token_that_would_be_refused_is_not_made() -> None:
    with pytest.raises(Unauthorized, match="the tenant claim"):
        authenticator().mint(sub="x", scopes=[], tenant="a b", expires_in_s=1)


def test_a_revoked_token_is_refused_also_after_it_was_accepted() -> None:
    revoked: set[str] = set()
    given = Authenticator(Settings(auth="required", auth_secrets=SECRET), is_revoked=revoked.__contains__)
    text, other = token(jti="one"), token(jti="two")
    assert given.principal(text).jti == "one"
    revoked.add("one")
    assert refusal(text, given) == "the token was revoked"
    assert given.principal(other).jti == "two"


def test_a_cached_token_dies_when_it_expires() -> None:
    now_s = [float(NOW_S)]
    given = Authenticator(Settings(auth_secrets=SECRET, auth_leeway_s=2), clock=lambda: now_s[0])
    text = made()
    assert given.principal(text) is given.principal(text)
    now_s[0] = NOW_S + 61.9
    assert given.principal(text).sub == "ada"
    now_s[0] = NOW_S + 62
    assert refusal(text, given) == "the token expired 2 s ago"


def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    given = authenticator()
    given._cache._size = 3
    texts = [made(sub=f"user {number}") for number in range(5)]
    first = given.principal(texts[0])
    for text in texts[1:]:
        given.principal(text)
        assert given.principal(texts[0]) is first
    assert len(given._cache) == 3


def test_threads_may_ask_at_the_same_time() -> None:
    given = authenticator()
    given._cache._size = 5
    texts = {f"user {number}": made(sub=f"user {number}") for number in range(12)}
    asked = [name for _ in range(100) for name in texts]
    with ThreadPoolExecutor(6) as pool:
        assert [found.sub for found in pool.map(lambda name: given.principal(texts[name]), asked)] == asked
    assert len(given._cache) == 5


def test_the_token_of_metrics_is_compared_as_a_whole() -> None:
    given = authenticator(metrics_token="metrics-are-mine")
    assert given.is_metrics_token("metrics-are-mine")
    assert not any(map(given.is_metrics_token, ("", "metrics-are-min", "metrics-are-mine ", "é\ud800")))
    assert not any(map(authenticator().is_metrics_token, ("", "None")))


def test_the_clock_of_the_machine_is_used_by_default() -> None:
    given = Authenticator(Settings(auth_secrets=SECRET))
    assert given.principal(token(iat=time.time(), nbf=time.time())).sub == "ada"
