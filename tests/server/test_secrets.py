"""Tokens and secrets never show: not in what a process prints, in answers, in metrics, or in alerts."""

from __future__ import annotations

import gzip
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from flask import Flask

from syncapp.alerts import Alerts
from syncapp.dev.servers import Valkey
from syncapp.store.keys import Keyspace
from tests.support.cluster import Cluster, MakeCluster
from tests.support.raw_http import RawConnection
from tests.support.receiver import Receiver
from tests.support.store import chess_request, make_settings, make_store
from tests.support.tokens import SECRET, bearer, token
from tests.support.types import Redis
from tests.support.web_clients import wait_until

METRICS_TOKEN = "the-token-of-the-metrics-32-bytes-or-more"
OPERATOR = {"Authorization": f"Bearer {METRICS_TOKEN}"}


@pytest.fixture(scope="module", params=["json", "console"])
def required(request: pytest.FixtureRequest, make_cluster: MakeCluster) -> Cluster:
    """One web process that requires tokens, with each format of the log."""
    return make_cluster(
        web=1,
        worker=False,
        AUTH="required",
        AUTH_SECRETS=SECRET,
        METRICS_TOKEN=METRICS_TOKEN,
        LOG_FORMAT=request.param,
        REDIS_TIMEOUT_S="0.5",
    )


class Leaks:
    """Collects what clients see, and finds tokens in it and in the output of the process."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.seen: list[str] = []
        self.tokens = [token("ada", scope) for scope in ("admin", "session:watch")]
        self.tokens += [token("eve", secret="another secret of 32 bytes or more"), token("old", expires_in_s=-100)]
        self.tokens += [f"not-a-token-{uuid.uuid4().hex}", f"{self.tokens[0]}x"]

    def ask(self, method: str, path: str, **options: Any) -> int:
        answer = requests.request(method, self.cluster.urls[0] + path, timeout=60, **options)
        self.seen += [answer.text, str(answer.headers)]
        return answer.status_code

    def everywhere(self, method: str, path: str) -> set[int]:
        """Send each token in the header, in the query, and in both; return the statuses."""
        found = set()
        for each in self.tokens:
            header = {"Authorization": f"Bearer {each}"}
            found.add(self.ask(method, path, headers=header))
            found.add(self.ask(method, f"{path}?token={each}"))
            found.add(self.ask(method, f"{path}?token={each}", headers=header))
        return found

    def check(self) -> None:
        self.ask("GET", "/metrics", headers=OPERATOR)
        output = self.cluster.web[0].output()
        secrets = [part for each in self.tokens for part in each.split(".")[1:] or [each]]
        for secret in [*secrets, SECRET, METRICS_TOKEN]:
            assert secret not in output
            assert not [text for text in self.seen if secret in text]


@pytest.fixture
def leaks(required: Cluster) -> Iterator[Leaks]:
    found = Leaks(required)
    yield found
    found.check()


def test_refused_requests_show_no_token(leaks: Leaks) -> None:
    paths = [
        f"/v1/sessions/{uuid.uuid4()}{rest}" for rest in ("", "/stream", "/export", "/text", "/events", "/nothing")
    ]
    for path in (*paths, "/v1/sessions", "/v1/history", "/metrics", "/ready", "/v1/time", "/nothing", "/ws"):
        if not path.endswith("/stream"):
            assert not {each for each in leaks.everywhere("GET", path) if each >= 500}
    for path in (f"{paths[0]}/switch", "/v1/sessions", "/v1/sessions/batch"):
        assert not {each for each in leaks.everywhere("POST", path) if each >= 500}
    assert "request refused" in leaks.cluster.web[0].output()


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /v1/sessions?token={token} HTTP/9.9\r\n\r\n",
        "GET /v1/sessions?token={token}\r\n\r\n",
        "GET /v1/sessions?token={token} é HTTP/1.1\r\n\r\n",
        "G(T /v1/sessions?token={token} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v1/sessions?token={token}&{long} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v1/sessions?token={token} HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET /v1/sessions?token={token} HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer {token}\r\n\r\n",
        "GET /v1/sessions?token={token} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\x00\r\n\r\n",
        "GET /v1/sessions?token={token} HTTP/1.1\r\nHost: a\r\nX: {long}\r\nAuthorization: Bearer {token}\r\n\r\n",
        "POST /v1/sessions?token={token} HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "POST /v1/sessions?token={token} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /v1/sessions?token={token} HTTP/1.1\r\nHost: a\r\nExpect: {token}\r\n\r\n",
    ],
    ids=str.encode,
)
def test_malformed_requests_show_no_token(leaks: Leaks, request_text: str) -> None:
    for each in leaks.tokens:
        with RawConnection(leaks.cluster.urls[0], request_text.format(token=each, long="x" * 9000)) as raw:
            raw.end()
            leaks.seen.append(raw.rest().decode("latin-1"))


def test_a_request_that_fails_unexpectedly_shows_no_token(leaks: Leaks, redis_url: str) -> None:
    # Created by another process, so that this one reads the broken definition from the store.
    session_id = make_store(redis_url, set_clock=False).create(chess_request()).found.session_id
    with Redis.from_url(redis_url) as client:
        client.hset(Keyspace().session(session_id), "definition", "not JSON")
        path, secret = f"/v1/sessions/{session_id}", leaks.tokens[0]
        header = {"Authorization": f"Bearer {secret}"}
        assert leaks.ask("GET", path, headers=header) == 500
        assert leaks.ask("GET", f"{path}/text?token={secret}", headers=header) in (400, 500)
        assert leaks.ask("POST", f"{path}/switch?token={secret}", headers=header) == 500
        body = {"command": "pause", "session_ids": [session_id]}
        assert leaks.ask("POST", f"/v1/sessions/batch?token={secret}", json=body, headers=header) == 200
        client.flushdb()
    assert leaks.cluster.web[0].output().count("Traceback") >= 3


def test_a_store_that_is_away_shows_no_token(leaks: Leaks, valkey: Valkey) -> None:
    path = f"/v1/sessions/{uuid.uuid4()}"
    valkey.pause()
    try:
        statuses = {leaks.ask("GET", path, headers={"Authorization": f"Bearer {each}"}) for each in leaks.tokens}
        statuses |= {leaks.ask("POST", f"{path}/switch?token={each}", headers=bearer()) for each in leaks.tokens}
    finally:
        valkey.unpause()
    assert statuses >= {401, 503}
    assert "request failed" in leaks.cluster.web[0].output()
    wait_until(lambda: leaks.ask("GET", "/ready") == 200)


@pytest.mark.filterwarnings("default")  # sentry's own
def test_an_alert_during_a_request_shows_no_token(app: Flask) -> None:
    receiver, secret = Receiver(), token()
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    alerts = Alerts(
        make_settings(
            "", sentry_dsn=f"http://public@{receiver.address}/1", alert_webhook_url=f"http://{receiver.address}"
        )
    )
    with app.test_request_context(f"/v1/sessions?token={secret}", headers={"Authorization": f"Bearer {secret}"}):
        alerts("dead_letters", count=1, error="of a test", bucket=0)
        alerts.close()
    receiver.shutdown()
    receiver.server_close()
    bodies = [gzip.decompress(each) if each[:2] == b"\x1f\x8b" else each for each in receiver.bodies]
    assert len(bodies) == 2
    assert not [each for each in bodies if secret.encode() in each]
