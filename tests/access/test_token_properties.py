"""Random tokens give a principal only if every rule holds; the rules stand here a second time, in plain words."""

from __future__ import annotations

import json
import math
import re
import string
import unicodedata
import uuid
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncapp.access.jwks import JwksKeys
from syncapp.access.token_keys import keys_of_jwks
from syncapp.access.tokens import Authenticator
from syncapp.config import Settings
from syncapp.domain.principal import DEFAULT_TENANT, Principal
from syncapp.errors import Unauthorized
from tests.support.jwks import EC, ED, RSA, public_jwk, public_pem
from tests.support.tokens import SECRET

NOW_S = 1_800_000_000
LEEWAY_S = 5
SESSION = "3E1F8E1A-3f44-4c55-9d0b-0f6f2b8f5a10"
SAFE = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+\Z")
ID = set(string.ascii_letters + string.digits + "._-")
IMPLIED = {"session:act": {"session:watch"}, "session:control": {"session:act", "session:watch"}}
ALL = {
    "session:create", "session:watch", "session:act", "session:control", "session:delete", "session:time",
    "history:read", "webhook:manage", "admin",
}  # fmt: skip
LISTED = rsa.generate_private_key(65_537, 2048)
LISTED_EC = ec.generate_private_key(ec.SECP256R1())
STRANGER = rsa.generate_private_key(65_537, 2048)


def authenticator() -> Authenticator:
    """One with all kinds of keys: a secret, RSA, EC and Ed25519 in PEM, and RSA `r` and EC `e` in a JWKS."""
    made = Authenticator(
        Settings(
            auth="required",
            auth_secrets=SECRET,
            auth_public_keys=public_pem(RSA) + public_pem(EC) + public_pem(ED),
            auth_leeway_s=LEEWAY_S,
        ),
        clock=lambda: NOW_S,
    )
    listed = JwksKeys("https://127.0.0.1:1/")
    listed._tried_s = listed._due_s = math.inf  # it never asks
    listed.keys = keys_of_jwks({"keys": [public_jwk(LISTED, "RS256", "r"), public_jwk(LISTED_EC, "ES256", "e")]})
    made.keys._jwks = listed
    return made


def signature(algorithm: str, key: Any, signed: bytes) -> bytes:
    return b"" if algorithm == "none" else jwt.get_algorithm_by_name(algorithm).sign(signed, key)


SIGNERS: dict[str, tuple[dict[str, Any], str, Any, bool]] = {
    # name: header, algorithm and key of the signature, whether a key here verifies it
    "secret": ({"alg": "HS256"}, "HS256", SECRET.encode(), True),
    "secret, any kid": ({"alg": "HS256", "kid": "r"}, "HS256", SECRET.encode(), True),
    "RSA": ({"alg": "RS256"}, "RS256", RSA, True),
    "EC": ({"alg": "ES256"}, "ES256", EC, True),
    "Ed25519": ({"alg": "EdDSA"}, "EdDSA", ED, True),
    "listed RSA": ({"alg": "RS256", "kid": "r"}, "RS256", LISTED, True),
    "listed EC": ({"alg": "ES256", "kid": "e"}, "ES256", LISTED_EC, True),
    "listed RSA without its kid": ({"alg": "RS256"}, "RS256", LISTED, True),
    "listed RSA under EC's kid": ({"alg": "RS256", "kid": "e"}, "RS256", LISTED, False),
    "listed EC under RSA's kid": ({"alg": "ES256", "kid": "r"}, "ES256", LISTED_EC, False),
    "EC under an RSA header": ({"alg": "RS256", "kid": "r"}, "ES256", LISTED_EC, False),
    "RSA under an EC header": ({"alg": "ES256", "kid": "e"}, "RS256", LISTED, False),
    "unknown kid": ({"alg": "RS256", "kid": "x"}, "RS256", LISTED, False),
    "another secret": ({"alg": "HS256"}, "HS256", SECRET[::-1].encode(), False),
    "the public key as secret": ({"alg": "HS256"}, "HS256", public_pem(RSA).encode(), False),
    "another RSA key": ({"alg": "RS256", "kid": "r"}, "RS256", STRANGER, False),
    "its own key": ({"alg": "RS256", "jwk": public_jwk(STRANGER, "RS256", None)}, "RS256", STRANGER, False),
    "a URL of keys": ({"alg": "RS256", "jku": "https://evil.example/"}, "RS256", STRANGER, False),
    "RS512": ({"alg": "RS512", "kid": "r"}, "RS512", LISTED, False),
    "PS256": ({"alg": "PS256", "kid": "r"}, "PS256", LISTED, False),
    "HS512": ({"alg": "HS512"}, "HS512", SECRET.encode(), False),
    "none": ({"alg": "none"}, "none", None, False),
    "None": ({"alg": "None"}, "HS256", SECRET.encode(), False),
    "no algorithm": ({}, "HS256", SECRET.encode(), False),
    "a number": ({"alg": 256}, "HS256", SECRET.encode(), False),
    "crit": ({"alg": "HS256", "crit": ["exp"]}, "HS256", SECRET.encode(), False),
    "kid as a number": ({"alg": "HS256", "kid": 1}, "HS256", SECRET.encode(), False),
    "another type": ({"alg": "HS256", "typ": "dpop+jwt"}, "HS256", SECRET.encode(), False),
    "access token": ({"alg": "HS256", "typ": "at+JWT"}, "HS256", SECRET.encode(), True),
}

ODD = st.sampled_from([None, True, False, 0, -1, 1.5, "", "1", [], {}, ["admin"], {"a": 1}, math.nan, math.inf, 10**30])
TIMES = st.sampled_from([-3600, -6, -5, -4, -1, 0, 1, 4, 5, 6, 3600]).map(lambda by_s: NOW_S + by_s)
MAYBE_TIMES = st.one_of(TIMES, TIMES, TIMES.map(lambda at_s: at_s + 0.5), TIMES.map(str), ODD)
WORDS = st.text(alphabet=st.sampled_from([*'abAZ09._:@+-/ \n\x00é"\\']), max_size=70)
SCOPES = st.lists(st.sampled_from([*sorted(ALL), "", "nope", "Admin"]), max_size=4).map(" ".join)
CLAIMS = {
    "sub": st.one_of(st.text(min_size=1, max_size=20), WORDS, st.sampled_from(["x" * 128, "x" * 129, "\x85"]), ODD),
    "exp": st.one_of(st.just(NOW_S + 60), MAYBE_TIMES),
    "nbf": MAYBE_TIMES,
    "iat": MAYBE_TIMES,
    "scope": st.one_of(SCOPES, ODD),
    "tenant": st.one_of(st.sampled_from(["acme", "default", "Acme-2.x", "x" * 65]), WORDS, ODD),
    "session_id": st.one_of(st.sampled_from([SESSION, SESSION.lower(), f"acme/{SESSION}", SESSION + "\n"]), WORDS, ODD),
    "participant_id": st.one_of(st.sampled_from(["white", "a:b@c+d"]), WORDS, ODD),
    "jti": st.one_of(st.sampled_from(["one", "x" * 64, "x" * 65]), WORDS, ODD),
    "aud": st.one_of(st.just("sync"), ODD),
    "iss": st.one_of(st.just("https://login"), ODD),
    "link": st.one_of(st.booleans(), ODD),
    "name": st.one_of(st.just("x" * 1900), WORDS, ODD),
}
GOOD: dict[str, Any] = {"sub": "ada", "exp": NOW_S + 60, "scope": "session:act"}
CHANGES = st.lists(st.sampled_from(sorted(CLAIMS)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: CLAIMS[name] for name in names})
)
MISSING = st.sets(st.sampled_from(["sub", "exp", "scope"]), max_size=1)


def token_of(header: dict[str, Any], payload: bytes, algorithm: str, key: Any) -> str:
    parts = [jwt.utils.base64url_encode(part) for part in (json.dumps(header).encode(), payload)]
    signed = b".".join(parts)
    return b".".join([*parts, jwt.utils.base64url_encode(signature(algorithm, key, signed))]).decode()


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value < 253_402_300_800


def is_readable(value: Any) -> bool:
    """Whether strict JSON can hold it: no NaN, no infinity, no whole number beyond 64 bits."""
    return not (isinstance(value, float) and not math.isfinite(value)) and value != 10**30


def expected(claims: dict[str, Any]) -> Principal | None:
    """The principal that these claims state at NOW_S; None if a rule is broken."""
    sub, scope, tenant = claims.get("sub"), claims.get("scope", ""), claims.get("tenant", DEFAULT_TENANT)
    session_id, participant_id, jti = (claims.get(name) for name in ("session_id", "participant_id", "jti"))
    rules = [
        all(map(is_readable, claims.values())),
        "exp" in claims and is_number(claims["exp"]) and claims["exp"] > NOW_S - LEEWAY_S,
        all(
            name not in claims or (is_number(claims[name]) and claims[name] <= NOW_S + LEEWAY_S)
            for name in ("nbf", "iat")
        ),
        isinstance(sub, str) and 0 < len(sub) < 129 and not any(unicodedata.category(each) == "Cc" for each in sub),
        isinstance(scope, str),
        isinstance(tenant, str) and 0 < len(tenant) < 65 and set(tenant) <= ID and tenant[0].isalnum(),
        "session_id" not in claims or (isinstance(session_id, str) and is_uuid(session_id)),
        "participant_id" not in claims
        or (
            isinstance(participant_id, str) and 0 < len(participant_id) < 65 and set(participant_id) <= ID | set(":@+")
        ),
        "jti" not in claims or (isinstance(jti, str) and 0 < len(jti) < 65 and set(jti) <= ID),
        "aud" not in claims,
        "link" not in claims or isinstance(claims["link"], bool),
        len(json.dumps(claims)) <= 2048,
    ]
    if not all(rules):
        return None
    scopes = set(scope.split()) & ALL
    for each in tuple(scopes):
        scopes |= ALL if each == "admin" else IMPLIED.get(each, set())
    return Principal(
        sub=str(sub),
        tenant=tenant,
        scopes=frozenset(scopes),
        session_id=session_id.lower() if session_id else None,
        participant_id=participant_id,
        jti=jti or "",
        expires_s=int(claims["exp"]),
        is_link=claims.get("link", False),
    )


def is_uuid(text: str) -> bool:
    return len(text) == 36 and re.sub(r"\S", "x", text) == "x" * 36 and text.lower() == str_uuid(text)


def str_uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


ASKED = authenticator()


def answer(text: str) -> Principal | None:
    """What the authenticator says, asked twice: the second time it may have the token in its cache."""
    answers: list[Principal | None] = []
    for _ in range(2):
        said = None
        try:
            answers.append(ASKED.principal(text))
        except Unauthorized as refused:
            answers.append(None)
            said = refused
        if said:
            assert said.details == {"reason": "invalid_token"}
            assert SAFE.match(said.message)
            assert not [part for part in text.split(".") if len(part) > 8 and part in said.message]
    assert answers[0] == answers[1]
    return answers[0]


@given(st.sampled_from(sorted(SIGNERS)), CHANGES, MISSING)
@settings(max_examples=200, deadline=None)
@example("secret", {}, set())
@example("secret", {"exp": NOW_S - LEEWAY_S}, set())
@example("secret", {"exp": NOW_S - LEEWAY_S + 0.5}, set())
@example("secret", {"sub": "\ud800"}, set())
def test_a_random_token_is_accepted_only_if_every_rule_holds(
    signer: str, changes: dict[str, Any], missing: set[str]
) -> None:
    claims = {name: value for name, value in (GOOD | changes).items() if name not in missing}
    header, algorithm, key, is_known = SIGNERS[signer]
    text = token_of(header, json.dumps(claims).encode(), algorithm, key)
    is_text = not any("\ud800" in str(value) for value in claims.values())
    assert answer(text) == (expected(claims) if is_known and is_text else None)


@given(CHANGES)
@settings(max_examples=100, deadline=None)
def test_claims_that_a_known_key_signed_are_checked_one_by_one(changes: dict[str, Any]) -> None:
    claims = GOOD | changes
    text = token_of({"alg": "HS256"}, json.dumps(claims).encode(), "HS256", SECRET.encode())
    assert answer(text) == expected(claims)


@given(st.one_of(st.text(), st.text(alphabet="eyJ.-_aA0="), st.binary().map(lambda data: data.decode("latin-1"))))
@settings(max_examples=100, deadline=None)
@example("." * 5000)
@example(" " + jwt.encode(GOOD, SECRET))
def test_a_text_that_is_no_token_is_refused(text: str) -> None:
    assert answer(text) is None


@given(st.data(), st.sampled_from(["secret", "EC", "listed RSA"]))
@settings(max_examples=200, deadline=None)
def test_a_token_with_one_other_character_is_refused(data: st.DataObject, signer: str) -> None:
    header, algorithm, key, _ = SIGNERS[signer]
    text = token_of(header, json.dumps(GOOD).encode(), algorithm, key)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(sorted(ID - {text[at]} | {"=", " "})))
    assert answer(text[:at] + other + text[at + 1 :]) is None


@given(st.binary(min_size=1, max_size=600), st.sampled_from(["secret", "RSA", "EC", "Ed25519", "listed EC"]))
@settings(max_examples=200, deadline=None)
@example(b"\0" * 64, "EC")
@example(b"\0" * 64, "Ed25519")
@example(b"\0" * 256, "RSA")
def test_any_other_signature_is_refused(random: bytes, signer: str) -> None:
    header, algorithm, key, _ = SIGNERS[signer]
    signed, _, _ = token_of(header, json.dumps(GOOD).encode(), algorithm, key).rpartition(".")
    assert answer(f"{signed}.{jwt.utils.base64url_encode(random).decode()}") is None


@given(st.binary(max_size=60), st.sampled_from(["secret", "RSA"]))
@settings(max_examples=200, deadline=None)
@example(b"[" * 2048, "secret")
@example(b'{"sub":"ada","exp":1e400}', "secret")
@example(b'{"sub":"ada","exp":1800000060}\xff', "secret")
@example(b'"a text"', "RSA")
def test_a_payload_that_is_no_json_object_is_refused_also_if_it_is_signed(payload: bytes, signer: str) -> None:
    header, algorithm, key, _ = SIGNERS[signer]
    assert answer(token_of(header, payload, algorithm, key)) is None
