"""Limits per address: one client cannot fill the store for everybody."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis as redis_py
import requests
from flask.testing import FlaskClient
from websockets.sync.client import connect

from syncapp import create_app
from syncapp.access.rate_limits import RateLimits, stored_bytes
from syncapp.config import Settings
from syncapp.dev.servers import Valkey
from syncapp.domain.commands import COMMANDS
from syncapp.domain.results import Claim
from syncapp.domain.schemas import CreateSession
from syncapp.store.keys import Keyspace
from syncapp.token_bucket import MAX_ADDRESSES, TokenBuckets
from tests.support.cluster import MakeCluster
from tests.support.store import chess_request, crowd_request, dump_session, make_settings, make_store, memory_used
from tests.support.web_clients import CHESS, RestClient, WebSocketClient, metric_value, wait_until

ROUNDS: dict[str, Any] = {"sync_mode": "per_cycle", "time_per_cycle_ms": 1000}
MB = 1_000_000


def app_client(redis_url: str, database_url: str, **limits: Any) -> FlaskClient:
    return create_app(make_settings(redis_url, database_url=database_url, proxy_hops=1, **limits)).test_client()


def refusal(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 429, answer.get_data(as_text=True)
    error: dict[str, Any] = answer.get_json()["error"]
    assert error["code"] == "RATE_LIMITED"
    assert int(answer.headers["Retry-After"]) == error["details"]["retry_after_s"] >= 1
    details: dict[str, Any] = error["details"]
    return details


# Buckets


def test_a_bucket_fills_with_time_and_a_full_one_is_enough_for_anything() -> None:
    buckets = TokenBuckets(10, 100)
    assert buckets.take("a", 0.0, 90) == 0
    assert buckets.take("a", 0.0, 30) == pytest.approx(2)
    assert buckets.take("a", 2.0, 30) == 0
    assert buckets.take("a", 11.9, 1000) > 0
    assert buckets.take("a", 12.1, 1000) == 0
    assert buckets.take("a", 12.1, 1) == pytest.approx(90.1)
    assert buckets.take("b", 12.1, 1) == 0


def test_debt_is_at_most_a_bucketful_and_what_is_given_back_at_most_fills_it() -> None:
    buckets = TokenBuckets(10, 100)
    buckets.add("a", 0.0, -100_000)
    assert buckets.wait_s("a", 0.0) == pytest.approx(10.1)
    buckets.add("a", 0.0, 100_000)
    assert buckets.take("a", 0.0, 100) == 0
    assert buckets.take("a", 0.0, 1) > 0


def test_addresses_that_are_remembered_are_bounded() -> None:
    buckets = TokenBuckets(1, 1)
    for number in range(3 * MAX_ADDRESSES):
        buckets.take(str(number), 0.0)
        buckets.add(str(-number), 0.0, -1)
    assert len(buckets._buckets) == MAX_ADDRESSES


# Creates and bytes


def test_creates_of_one_address_are_bounded_and_a_refused_one_changes_nothing(
    redis_url: str, database_url: str, redis: redis_py.Redis
) -> None:
    client = app_client(redis_url, database_url, creates_per_minute=1)
    key = {"Idempotency-Key": str(uuid.uuid4())}
    assert client.post("/v1/sessions", json=CHESS).status_code == 201
    keys = redis.dbsize()
    details = refusal(client.post("/v1/sessions", json=CHESS, headers=key))
    assert (details["reason"], details["limit"]) == ("creates_per_minute", 1)
    assert redis.dbsize() == keys
    other = client.post("/v1/sessions", json=CHESS, headers=key | {"X-Forwarded-For": "203.0.113.7"})
    assert (other.status_code, "Idempotency-Replayed" in other.headers) == (201, False)  # the key was not used up
    for path in ("/health", "/ready", "/metrics"):
        assert client.get(path).status_code == 200
    counted = client.get("/metrics").get_data(as_text=True)
    assert 'syncapp_limited_total{reason="creates_per_minute"}' in counted


def test_a_replay_and_a_refused_create_cost_nothing(redis_url: str, database_url: str, redis: redis_py.Redis) -> None:
    client = app_client(redis_url, database_url, creates_per_minute=2, address_store_bytes_per_hour=40_000)
    body, key = CHESS | {"session_id": str(uuid.uuid4())}, {"Idempotency-Key": "1"}
    assert client.post("/v1/sessions", json=body, headers=key).status_code == 201
    for _ in range(6):
        again = client.post("/v1/sessions", json=body, headers=key)
        assert (again.status_code, "Idempotency-Replayed" in again.headers) == (201, True)
        assert client.post("/v1/sessions", json=body).status_code == 409
    assert client.post("/v1/sessions", json=CHESS).status_code == 201
    refusal(client.post("/v1/sessions", json=CHESS))


def test_without_limits_nothing_is_refused(redis_url: str, database_url: str, redis: redis_py.Redis) -> None:
    off = {"creates_per_minute": 0, "address_store_bytes_per_hour": 0, "self_commits_per_hour": 0}
    client = app_client(redis_url, database_url, **off)
    assert {client.post("/v1/sessions", json=ROUNDS).status_code for _ in range(100)} == {201}


CONTROL = {
    "stages": [{"moves": 40, "time_ms": 5_400_000, "increment_ms": 30_000}] * 8 + [{"time_ms": 0, "increment_ms": 1}],
    "first_bonus": "before_move",
}


@pytest.mark.parametrize(
    "new",
    [
        chess_request(),
        crowd_request(128, metadata={"a": "x" * 1000}),
        crowd_request(1000),
        CreateSession.parse({"sync_mode": "count_up", "metadata": {"a": "é" * 8000}}),
        CreateSession.parse(
            {"sync_mode": "count_up", "participants": [{"participant_id": f"{number}"} for number in range(1000)]}
        ),
        CreateSession.parse({
            "sync_mode": "per_group",
            "participants": [
                {"participant_id": f"{n:064}", "group_id": f"{n % 500:064}", "total_time_ms": 1000} for n in range(1000)
            ],
        }),
        CreateSession.parse({
            "sync_mode": "per_participant",
            "participants": [{"participant_id": f"{n}", "time_control": CONTROL} for n in range(200)],
        }),
    ],
    ids=["chess", "128 participants", "1,000 participants", "metadata", "short ids", "long ids and groups", "controls"],
)  # fmt: skip
def test_a_create_is_charged_what_it_takes(redis_url: str, redis: redis_py.Redis, new: CreateSession) -> None:
    store = make_store(redis_url, set_clock=False)
    store.create(new)
    # Enough sessions to outweigh the buffers of other connections.
    count, before = max(20, 4 * MB // stored_bytes(new, Claim())), memory_used(redis)
    for _ in range(count):
        store.create(new)
    taken = (memory_used(redis) - before) / count
    assert 0.8 * taken <= stored_bytes(new, Claim()) <= 2 * taken


def test_keyed_commands_and_metadata_of_one_address_are_bounded_in_bytes(
    redis_url: str, database_url: str, redis: redis_py.Redis
) -> None:
    client = app_client(redis_url, database_url, address_store_bytes_per_hour=4 * 16_000)
    url = client.post("/v1/sessions", json=CHESS).headers["Location"]
    client.post(f"{url}/start")
    answers = [client.post(f"{url}/switch", headers={"Idempotency-Key": str(number)}) for number in range(14)]
    assert [answer.status_code for answer in answers[:12]] == [200] * 12
    assert refusal(answers[-1])["reason"] == "address_store_bytes_per_hour"
    before = dump_session(redis, url.rsplit("/", 1)[1])
    refusal(client.post(f"{url}/switch", headers={"Idempotency-Key": "x"}))
    refusal(client.patch(url, json={"metadata": {"a": "x" * 2000}}))
    refusal(client.post("/v1/sessions", json=CHESS))
    assert dump_session(redis, url.rsplit("/", 1)[1]) == before
    assert client.post(f"{url}/switch").status_code == 200  # without a key there is no record
    elsewhere = {"X-Forwarded-For": "203.0.113.7", "Idempotency-Key": "x"}
    assert client.post(f"{url}/switch", headers=elsewhere).status_code == 200


# Sessions that commit without commands


def test_sessions_that_go_on_by_themselves_are_bounded_and_others_go_on(
    redis_url: str, database_url: str, redis: redis_py.Redis
) -> None:
    client = app_client(redis_url, database_url, self_commits_per_hour=2500)
    made = [client.post("/v1/sessions", json=ROUNDS) for _ in range(4)]
    assert [answer.status_code for answer in made] == [201, 201, 201, 429]  # each is charged 1,000 commits
    assert refusal(made[-1])["reason"] == "self_commits_per_hour"
    url = made[0].headers["Location"]
    assert refusal(client.post(f"{url}/start"))["limit"] == 2500
    assert client.post(f"{url}/start", headers={"X-Forwarded-For": "203.0.113.7"}).status_code == 200
    refusal(client.patch(url, json={"metadata": {"a": 1}}))
    assert client.get(url).status_code == 200
    assert client.post(f"{url}/pause").status_code == 200
    refusal(client.post(f"{url}/resume"))
    assert client.post(f"{url}/complete").status_code == 200
    refusal(client.post("/v1/sessions", json=CHESS | {"action_on_timeout": {"type": "skip_cycle"}}))
    game = client.post("/v1/sessions", json=CHESS)
    assert game.status_code == 201
    assert client.post(f"{game.headers['Location']}/start").status_code == 200
    assert client.post(f"{game.headers['Location']}/switch").status_code == 200


@pytest.mark.parametrize(
    ("body", "charge"),
    [
        (ROUNDS, 1000),
        (ROUNDS | {"warn_at_ms": [500, 200]}, 3000),
        (ROUNDS | {"time_per_cycle_ms": 20_000}, 180),
        (ROUNDS | {"time_per_cycle_ms": 3_600_000}, 1),
        (ROUNDS | {"max_cycles": 10}, 10),
        (ROUNDS | {"action_on_timeout": {"type": "notify"}}, 0),
        (CHESS | {"action_on_timeout": {"type": "skip_cycle"}}, 2),
        (CHESS, 0),
        ({"sync_mode": "count_up"}, 0),
    ],
)
def test_a_session_is_charged_what_it_may_commit_by_itself_within_an_hour_once(
    redis_url: str, redis: redis_py.Redis, body: dict[str, Any], charge: int
) -> None:
    store = make_store(redis_url, set_clock=False)
    limits = RateLimits(make_settings(redis_url, self_commits_per_hour=100_000), store.cached)
    buckets = limits._commits
    assert buckets

    def left() -> float:
        return buckets.level("192.0.2.1", time.monotonic())

    def run(command: str, asked: dict[str, Any]) -> str:
        body = COMMANDS[command].body.parse(asked)
        with limits.charge("192.0.2.1", command, session_id, body, Claim()) as charge:
            return charge.settle(COMMANDS[command].run(store, session_id, body, Claim())).found.session_id

    session_id = ""
    session_id = run("create", body)
    began_s = time.monotonic()
    assert 100_000 - left() == pytest.approx(charge, abs=0.1 * charge + 1)
    run("start", {})
    for number in range(20):
        run("update", {"metadata": {"n": number}})
    # Time that was charged in advance is not charged again; the time since then is.
    took_s = time.monotonic() - began_s
    assert 100_000 - left() <= charge + 4 * took_s + 1


# On real servers


def test_a_client_that_floods_leaves_room_for_others_in_a_small_store(
    make_cluster: MakeCluster, db: psycopg2.extensions.connection, run_directory: Path, tmp_path: Path,
    database_url: str,
) -> None:  # fmt: skip
    store = Valkey(run_directory, tmp_path / "valkey", options=("--maxmemory", "64mb"))
    store.start()
    try:
        default = Settings()
        cluster = make_cluster(
            REDIS_URL=store.url,
            PROXY_HOPS="1",
            CREATES_PER_MINUTE=str(default.creates_per_minute),
            ADDRESS_STORE_BYTES_PER_HOUR=str(default.address_store_bytes_per_hour),
        )
        people = [{"participant_id": f"p{number:060}", "total_time_ms": 60_000} for number in range(1000)]
        large = CHESS | {"participants": people, "metadata": {"a": "x" * 16_000}}
        flood, http = {"X-Forwarded-For": "203.0.113.7:4711"}, requests.Session()
        for url in cluster.urls:
            for _ in range(60):
                answer = http.post(f"{url}/v1/sessions", json=large, headers=flood, timeout=60)
                if answer.status_code != 201:
                    break
            assert answer.status_code == 429, answer.text
            assert answer.json()["error"]["details"]["reason"] == "address_store_bytes_per_hour"
            assert int(answer.headers["Retry-After"]) >= 1
            assert http.get(f"{url}/health", headers=flood, timeout=60).status_code == 200
            assert metric_value(url, 'syncapp_limited_total{reason="address_store_bytes_per_hour"}') == 1
        with redis_py.Redis.from_url(store.url) as client:
            info: Any = client.info("memory")
            assert info["used_memory"] < 60 * MB
            other = {"X-Forwarded-For": "203.0.113.8"}
            for url in cluster.urls:
                made = http.post(f"{url}/v1/sessions", json=CHESS, headers=other, timeout=60)
                assert made.status_code == 201
                begun = http.post(url + made.headers["Location"] + "/start", headers=other, timeout=60)
                assert begun.status_code == 200
            buckets = range(Keyspace().buckets)
            wait_until(lambda: not any(client.xlen(Keyspace().outbox(bucket)) for bucket in buckets), 60)
        runner = create_app(make_settings(store.url, database_url=database_url)).test_cli_runner()
        checked = runner.invoke(args=["audit", "verify"])
        assert checked.exit_code == 0, checked.output
        for process in cluster.processes:
            process.stop()
    finally:
        store.stop()


def test_commands_over_a_websocket_are_limited_like_those_over_rest(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        web=1, worker=False, CREATES_PER_MINUTE="2", ADDRESS_STORE_BYTES_PER_HOUR=str(4 * 10_000), PROXY_HOPS="1"
    )
    api = RestClient(cluster.urls[0])
    session_id = str(uuid.uuid4())
    url = f"ws{api.url.removeprefix('http')}/ws?sessionId={session_id}"

    def ask(client: WebSocketClient, number: int, command: str, key: str = "", **args: Any) -> dict[str, Any]:
        keyed = {"idempotency_key": key} if key else {}
        client.send(type="COMMAND", id=number, command=command, args=args, **keyed)
        while True:
            answer = client.next()
            if answer.get("id") == number:
                return answer

    with ExitStack() as stack:
        one, other = (
            WebSocketClient(stack.enter_context(connect(url, additional_headers={"X-Forwarded-For": address})))
            for address in ("203.0.113.7", "203.0.113.8")
        )
        assert ask(one, 1, "create", **CHESS)["type"] == "ACK"
        assert ask(one, 2, "start")["type"] == "ACK"
        answers = [ask(one, 10 + number, "switch", f"k{number}") for number in range(8)]
        assert [answer["type"] for answer in answers[:6]] == ["ACK"] * 6
        assert (answers[-1]["type"], answers[-1]["code"]) == ("ERROR", "RATE_LIMITED")
        assert answers[-1]["details"]["reason"] == "address_store_bytes_per_hour"
        over_rest = requests.post(
            f"{api.url}/v1/sessions/{session_id}/switch",
            headers={"Idempotency-Key": "k9", "X-Forwarded-For": "[::ffff:203.0.113.7]:80"},
            timeout=60,
        )
        assert over_rest.status_code == 429
        assert ask(one, 30, "switch")["type"] == "ACK"
        again = ask(other, 31, "switch", "k7")
        assert (again["type"], "replayed" in again) == ("ACK", False)  # the refused command has not used its key up
