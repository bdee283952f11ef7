"""Limits per address of reads that cost much, and of requests that look like guessing."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from syncapp import create_app
from syncapp.access.read_limits import READ_HEAVY, ReadLimits
from syncapp.domain.principal import NOBODY, Principal
from syncapp.errors import RateLimited
from tests.support.store import make_settings
from tests.support.tokens import SECRET, bearer

ADA, BOB = Principal("ada"), Principal("bob")
HERE, THERE = "203.0.113.7", "203.0.113.8"
READ = "/v1/sessions/<session>"


@pytest.fixture
def limits() -> ReadLimits:
    settings: Any = SimpleNamespace(reads_per_s=0.01, reads_burst=4, auth="required")
    return ReadLimits(settings)


def is_refused(
    limits: ReadLimits, route: str | None, address: str = HERE, method: str = "GET", caller: Principal = NOBODY
) -> bool:
    try:
        limits.check(address, caller, method, route)
    except RateLimited:
        return True
    return False


def test_a_refusal_names_the_setting_and_when_to_come_back(limits: ReadLimits) -> None:
    for _ in range(4):
        limits.check(HERE, NOBODY, "GET", "/v1/history")
    with pytest.raises(RateLimited) as refused:
        limits.check(HERE, NOBODY, "HEAD", "/v1/history")
    assert refused.value.details["reason"] == "reads_per_s"
    assert 90 < refused.value.details["retry_after_s"] <= 101
    assert refused.value.message == "this address may read lists and the history 0.01 times a second"


@pytest.mark.parametrize("route", [READ, "/v1/history"])
def test_a_refusal_because_of_failures_says_so(limits: ReadLimits, route: str) -> None:
    for _ in range(3):
        limits.charge_failure(HERE, NOBODY, READ, 404)
    with pytest.raises(RateLimited) as refused:
        limits.check(HERE, NOBODY, "GET", route)
    assert refused.value.details["reason"] == "reads_per_s"
    assert refused.value.message == (
        "this address got too many 401s and 404s: its reads are refused until that is paid off, at 0.01 a second"
    )


def test_lists_and_the_history_share_a_bucket_and_other_reads_and_commands_are_free(limits: ReadLimits) -> None:
    assert [is_refused(limits, route) for route in sorted(READ_HEAVY)] == [False] * 4 + [True] * 2
    assert not is_refused(limits, READ)
    assert not is_refused(limits, "/v1/sessions", method="POST")
    assert not is_refused(limits, "/v1/sessions", THERE)


def test_guesses_count_twice_and_leave_a_debt_for_which_reads_are_refused_and_commands_are_not(
    limits: ReadLimits,
) -> None:
    assert limits.charge_failure(HERE, NOBODY, READ, 404)
    assert limits.charge_failure(HERE, NOBODY, f"{READ}/switch", 401)
    assert not is_refused(limits, READ)
    assert not is_refused(limits, "/v1/history")
    assert limits.charge_failure(HERE, NOBODY, f"{READ}/switch", 401)
    assert is_refused(limits, READ)
    assert is_refused(limits, "/v1/history")
    assert not is_refused(limits, f"{READ}/switch", method="POST")
    assert not is_refused(limits, "/health")
    assert not is_refused(limits, READ, THERE)


def test_failures_without_a_token_do_not_cost_principals_at_the_same_address(limits: ReadLimits) -> None:
    for _ in range(9):
        limits.charge_failure(HERE, NOBODY, READ, 401)
        limits.charge_failure(HERE, BOB, READ, 404)
    assert is_refused(limits, READ)
    assert is_refused(limits, READ, THERE, caller=BOB)
    assert not is_refused(limits, READ, caller=ADA)
    assert not is_refused(limits, "/v1/history", caller=ADA)
    assert not is_refused(limits, READ, caller=replace(BOB, tenant="blue"))


def test_a_valid_token_reads_on_where_others_guess(redis_url: str) -> None:
    settings = make_settings(redis_url, auth="required", auth_secrets=SECRET, reads_per_s=0.01, reads_burst=4)
    client = create_app(settings).test_client()
    path = f"/v1/sessions/{uuid.uuid4()}"
    assert [client.get(path).status_code for _ in range(4)] == [401, 401, 401, 429]
    answer = client.get("/v1/sessions", headers=bearer())
    assert answer.status_code == 200
    assert [client.get(path, headers=bearer("eve")).status_code for _ in range(4)] == [404, 404, 404, 429]
    assert client.get(path, headers=bearer("ada")).status_code == 404


def test_other_failures_are_no_guesses(limits: ReadLimits) -> None:
    assert not any(
        limits.charge_failure(HERE, NOBODY, route, status)
        for route, status in ((READ, 400), (READ, 403), (READ, 409), (None, 404), ("/v1/history", 404))
    )


@pytest.mark.parametrize("changes", [{"reads_per_s": 0}, {"auth": "off"}])
def test_there_is_no_limit_without_a_rate_or_without_tokens(changes: dict[str, Any]) -> None:
    settings: Any = SimpleNamespace(**{"reads_per_s": 1.0, "reads_burst": 1, "auth": "required"} | changes)
    assert not ReadLimits(settings).are_on


def test_every_read_heavy_route_exists(redis_url: str) -> None:
    rules = {rule.rule for rule in create_app(make_settings(redis_url)).url_map.iter_rules()}
    assert rules >= READ_HEAVY
