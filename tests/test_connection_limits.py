"""The numbers in app.json fit twice into the plans it names, because two releases overlap during a deployment."""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import redis as redis_py
import requests
from websockets.sync.client import connect

from syncapp import connection_limits
from syncapp.config import Settings
from syncapp.dev.servers import Valkey
from tests.support.cluster import MakeCluster
from tests.support.paths import ROOT
from tests.support.web_clients import RestClient, wait_until

APP: dict[str, Any] = json.loads((ROOT / "app.json").read_text())
ENV = {name: each.get("value", "generated-by-heroku-" * 3) for name, each in APP["env"].items()}
SETTINGS = Settings.from_env(ENV)
WEB_PROCESSES = APP["formation"]["web"]["quantity"] * int(ENV["WEB_CONCURRENCY"])
WORKERS = APP["formation"]["worker"]["quantity"]
RELEASES = 2


def test_postgresql_has_room_for_two_releases_a_migration_and_an_operator() -> None:
    assert "heroku-postgresql:essential-0" in APP["addons"]
    one = WEB_PROCESSES * connection_limits.postgresql_of_web(
        SETTINGS
    ) + WORKERS * connection_limits.postgresql_of_worker(SETTINGS)
    more = connection_limits.POSTGRESQL_OF_A_RELEASE + connection_limits.POSTGRESQL_OF_A_COMMAND
    assert RELEASES * one + more <= 20


def test_redis_has_room_for_two_releases_and_an_operator() -> None:
    assert "heroku-redis:premium-0" in APP["addons"]
    one = WEB_PROCESSES * connection_limits.redis_of_web(SETTINGS) + WORKERS * connection_limits.redis_of_worker(
        SETTINGS
    )
    assert RELEASES * one + 2 <= 40


def test_processes_hold_no_more_connections_to_redis_than_that_under_load_and_few_when_idle(
    make_cluster: MakeCluster, valkey: Valkey
) -> None:
    with redis_py.Redis.from_url(valkey.url) as client:
        before = {each["id"] for each in client.client_list()}

        def held() -> int:
            return sum(each["id"] not in before for each in client.client_list())

        cluster = make_cluster(web=2, **{name: ENV[name] for name in ("REDIS_MAX_CONNECTIONS", "WORKER_THREADS")})
        most = 2 * connection_limits.redis_of_web(SETTINGS) + connection_limits.redis_of_worker(SETTINGS)
        apis = [RestClient(url) for url in cluster.urls]
        sessions = [apis[0].running() for _ in range(8)]
        seen: list[int] = []
        done = threading.Event()

        def load(number: int) -> None:
            url, session = cluster.urls[number % 2], f"/v1/sessions/{sessions[number % 8]}"
            paths = (f"{session}/switch", session, "/v1/history", "/metrics", "/ready", "/v1/audit/queue")
            for path in paths * 8:
                method = requests.post if path.endswith("switch") else requests.get
                answer = method(f"{url}{path}", timeout=60)
                assert answer.status_code in (200, 503), answer.text

        def count() -> None:
            while not done.wait(0.02):
                seen.append(held())

        with ThreadPoolExecutor(17) as threads, ExitStack() as sockets:
            counting = threads.submit(count)
            try:
                for url, each in itertools.product(cluster.urls, sessions):
                    # Nobody reads these. With a bounded queue each close would wait 10 s for the server's frame.
                    sockets.enter_context(connect(f"ws{url[4:]}/ws?sessionId={each}", max_queue=None))
                for loaded in [threads.submit(load, number) for number in range(16)]:
                    loaded.result(120)
            finally:
                done.set()
            counting.result(60)
        print(f"at most {max(seen)} of {most} connections")
        assert max(seen) <= most
        # What stays: pub/sub, the sweeper's or its watchers', and the worker's waits for tasks.
        wait_until(lambda: held() <= 2 * 3 + connection_limits.redis_of_worker(SETTINGS), within_s=60)
