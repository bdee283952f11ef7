"""Expected versions and entity tags: If-Match, If-None-Match, caches."""

from __future__ import annotations

import pytest
import redis as redis_py
from flask.testing import FlaskClient

from tests.support.rest import expect_error, expect_faults
from tests.support.store import NOON_MS, dump_session

pytestmark = pytest.mark.usefixtures("both_ways")


def test_an_expected_version_is_compared_in_the_body_and_in_if_match(client: FlaskClient, url: str) -> None:
    conflict = expect_error(client.post(f"{url}/switch", json={"expected_version": 1}), 409, "CONFLICT")
    assert (conflict["details"]["expected_version"], conflict["details"]["actual_version"]) == (1, 2)
    assert conflict["details"]["current"]["version"] == 2
    stale = client.post(f"{url}/switch", headers={"If-Match": f'"{NOON_MS}-1"'})
    assert expect_error(stale, 412, "PRECONDITION_FAILED")["details"]["current"]["version"] == 2
    other_epoch = client.post(f"{url}/switch", headers={"If-Match": f'"{NOON_MS - 1}-2"'})
    assert expect_error(other_epoch, 412, "PRECONDITION_FAILED")["details"]["actual_epoch"] == NOON_MS
    assert client.post(f"{url}/switch", headers={"If-Match": f'"{NOON_MS}-2"'}).status_code == 200
    assert client.post(f"{url}/switch", headers={"If-Match": "*"}).status_code == 200
    assert client.post(f"{url}/switch", json={"expected_version": 4, "expected_epoch": NOON_MS}).status_code == 200
    expect_error(client.delete(url, headers={"If-Match": f'"{NOON_MS}-1"'}), 412, "PRECONDITION_FAILED")


@pytest.mark.parametrize("tag", ["x-y", 'W/"1-2"', '"2"', '"x", W/"y"'])
def test_an_entity_tag_of_somebody_else_matches_nothing(client: FlaskClient, url: str, tag: str) -> None:
    sent = tag if '"' in tag else f'"{tag}"'
    refused = expect_error(client.post(f"{url}/switch", headers={"If-Match": sent}), 412, "PRECONDITION_FAILED")
    assert refused["details"]["current"]["version"] == 2


def test_any_version_in_if_match_leaves_the_body_to_claim_one(client: FlaskClient, url: str) -> None:
    stale = client.post(f"{url}/switch", json={"expected_version": 1}, headers={"If-Match": "*"})
    expect_error(stale, 409, "CONFLICT")
    of_two = client.post(f"{url}/switch", headers={"If-Match": f'"{NOON_MS}-2", W/"x"'})
    assert of_two.status_code == 200


@pytest.mark.parametrize("tag", ["", "2", "1-2", f'"{NOON_MS}-2", "1-1"', '"x', 'w/"x"'])
def test_an_entity_tag_that_is_none_is_refused_and_changes_nothing(
    client: FlaskClient, redis: redis_py.Redis, url: str, tag: str
) -> None:
    before = dump_session(redis, url.rsplit("/", 1)[1])
    assert expect_faults(client.post(f"{url}/switch", headers={"If-Match": tag})) == {"If-Match": "etag"}
    assert dump_session(redis, url.rsplit("/", 1)[1]) == before


@pytest.mark.parametrize("tag", ['W/"{}"', '"{}-gzip"', '"{}--gzip"', 'W/"{}-br"', '"{};gzip"', '"{}:zstd", "{}-df"'])
def test_a_tag_that_a_proxy_has_rewritten_still_names_its_version(client: FlaskClient, url: str, tag: str) -> None:
    def sent(version: int) -> str:
        return tag.replace("{}", f"{NOON_MS}-{version}")

    expect_error(client.post(f"{url}/switch", headers={"If-Match": sent(1)}), 412, "PRECONDITION_FAILED")
    assert client.post(f"{url}/switch", headers={"If-Match": sent(2)}).get_json()["data"]["version"] == 3
    assert client.get(f"{url}?wait_ms=0", headers={"If-None-Match": sent(2)}).status_code == 200
    assert client.get(f"{url}?wait_ms=0", headers={"If-None-Match": sent(3)}).status_code == 304


def test_a_plain_read_answers_with_the_state_whatever_the_client_has(client: FlaskClient, url: str) -> None:
    tag = client.get(url).headers["ETag"]
    for sent in (tag, f"W/{tag}", "*", '"x"', "x"):
        read = client.get(url, headers={"If-None-Match": sent})
        assert (read.status_code, read.headers["ETag"]) == (200, tag)
        assert read.get_json()["data"]["version"] == 2


def test_nothing_that_moves_is_kept_by_a_cache(client: FlaskClient, url: str) -> None:
    moving = [
        "/health",
        "/ready",
        "/metrics",
        "/v1/time",
        "/v1/audit/queue",
        "/v1/audit/verification",
        "/v1/history",
        url,
        f"{url}/events",
    ]
    moving += [f"{url}/at?version=1", f"{url}/statistics", f"{url}/export", f"{url}?wait_ms=0", "/nothing", "/ws"]
    for path in moving:
        answer = client.get(path, headers={"If-None-Match": "*"})
        assert answer.headers.getlist("Cache-Control") == ["no-store"], path
    for answer in (client.post(f"{url}/switch"), client.post(f"{url}/resume"), client.delete(url)):
        assert answer.headers["Cache-Control"] == "no-store"
    for path in ("/api-docs/swagger-ui.css", "/api-docs.json", "/asyncapi.json"):
        with client.get(path) as document:
            assert document.headers["Cache-Control"] == "no-cache"


def test_what_is_current_is_not_sent_again_to_who_may_wait(client: FlaskClient, url: str) -> None:
    tag = client.get(url).headers["ETag"]
    for sent in (tag, f'"{NOON_MS}-1", W/{tag}', "*"):
        saved = client.get(f"{url}?wait_ms=0", headers={"If-None-Match": sent})
        assert (saved.status_code, saved.data, saved.headers["ETag"]) == (304, b"", tag)
    assert client.get(f"{url}?wait_ms=0").status_code == 200
    assert client.get(f"{url}?wait_ms=0", headers={"If-None-Match": '"1-1"'}).status_code == 200


@pytest.mark.parametrize("tag", ['"x"', "x", "2", '"2"', '"1-2-3"', '"1-2', '"1-2" "1-3"', '"1-2", "x"', '*, "1-2"'])
def test_nobody_waits_for_another_version_than_one_that_is_none(client: FlaskClient, url: str, tag: str) -> None:
    for wait_ms in (0, 20_000):
        refused = client.get(f"{url}?wait_ms={wait_ms}", headers={"If-None-Match": tag})
        assert expect_faults(refused) == {"If-None-Match": "etag"}
