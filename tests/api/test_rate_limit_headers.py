"""The header fields `RateLimit-Policy` and `RateLimit`, read by a parser of structured fields (RFC 9651)."""

from __future__ import annotations

from typing import Any

import http_sf
import pytest
from flask import Flask

from syncapp.api import rate_limit_headers, responses
from syncapp.config import Settings
from syncapp.domain.principal import Principal
from syncapp.domain.results import Claim
from syncapp.errors import RateLimited
from syncapp.store.command_limits import CommandLimits
from syncapp.store.keys import Keyspace
from tests.support.store import ManualClock, chess_request, make_store

BY_ADA = Claim(principal=Principal(sub="ada"))


def fields(headers: Any) -> dict[str, Any]:
    parse: Any = http_sf.parse
    return {name: dict(parse(headers[name].encode(), tltype="list")) for name in ("RateLimit-Policy", "RateLimit")}


def test_an_answer_names_both_limits_and_what_is_left_of_them(redis_url: str, clock: ManualClock) -> None:
    found = make_store(redis_url).create(chess_request(), BY_ADA)
    with Flask(__name__).test_request_context():
        assert fields(responses.result(found).headers) == {
            "RateLimit-Policy": {"session": {"q": 40, "w": 2}, "principal": {"q": 200, "w": 2}},
            "RateLimit": {"session": {"r": 39, "t": 1}, "principal": {"r": 199, "t": 1}},
        }


def test_a_refusal_names_the_limit_and_waits_as_long_as_retry_after(redis_url: str, clock: ManualClock) -> None:
    store = make_store(redis_url, principal_commands_per_s=0.1, principal_commands_burst=2)
    for _ in range(2):
        store.create(chess_request(), BY_ADA)
    clock.advance_ms(3500)
    with pytest.raises(RateLimited) as refused:
        store.create(chess_request(), BY_ADA)
    with Flask(__name__).test_request_context():
        answer = responses.error(refused.value)
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "7"
    assert fields(answer.headers) == {
        "RateLimit-Policy": {"principal": {"q": 2, "w": 20}},
        "RateLimit": {"principal": {"r": 0, "t": 7}},
    }
    assert answer.json is not None
    assert answer.json["error"] == {
        "code": "RATE_LIMITED",
        "message": "this principal may send 0.1 commands a second",
        "details": {"reason": "principal_commands_per_s", "limit": 0.1, "retry_after_s": 7},
    }


def test_an_answer_without_limits_has_no_such_headers(redis_url: str, clock: ManualClock) -> None:
    found = make_store(redis_url).create(chess_request())
    with Flask(__name__).test_request_context():
        assert not {"RateLimit", "RateLimit-Policy"} & set(responses.result(found).headers.keys())


@pytest.mark.parametrize(
    ("ahead_us", "left", "next_s"),
    [
        (0, 40, 0),
        (1, 39, 1),
        (50_000, 39, 1),
        (50_001, 38, 1),
        (2_000_000, 0, 1),
        (2_000_001, 0, 1),
    ],
)
def test_a_bucket_shows_whole_tokens_and_when_it_gains_one(ahead_us: int, left: int, next_s: int) -> None:
    (session, _) = CommandLimits(Settings(), Keyspace()).allowances(ahead_us, 0)
    assert (session.left, session.next_s) == (left, next_s)
    assert ("t" in fields(rate_limit_headers.of([session]))["RateLimit"]["session"]) == bool(next_s)
