"""What is checked before a WebSocket opens: headers, origins, quotas."""

from __future__ import annotations

import json
import re
import socket
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import requests

from syncapp import create_app
from tests.support.cluster import Cluster
from tests.support.raw_websocket import RawWebSocket
from tests.support.store import make_settings
from tests.support.web_clients import OpenWebSocket, RestClient, metric_value, wait_until

pytestmark = pytest.mark.usefixtures("no_errors_logged")


def refusal(
    api: RestClient, session_id: str, headers: Mapping[str, str] | None = None
) -> tuple[int, str, RawWebSocket]:
    """Return status and code of a refused handshake; the form of its body is checked."""
    with RawWebSocket(api.url, session_id, headers) as raw:
        size = int(re.search(r"(?i)content-length: (\d+)", raw.answer)[1])  # type: ignore[index]  # fails the test
        body = json.loads(raw._take(size))
        assert body.keys() == {"error"}
        assert {"code", "message"} <= body["error"].keys() <= {"code", "message", "details"}
        return raw.status, body["error"]["code"], raw


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Upgrade": "absent"}, 426, "UPGRADE_REQUIRED"),
        ({"Connection": "absent"}, 426, "UPGRADE_REQUIRED"),
        ({"Connection": "keep-alive"}, 426, "UPGRADE_REQUIRED"),
        ({"Upgrade": "h2c"}, 426, "UPGRADE_REQUIRED"),
        ({"Sec-WebSocket-Version": "absent"}, 426, "UPGRADE_REQUIRED"),
        ({"Sec-WebSocket-Version": "8"}, 426, "UPGRADE_REQUIRED"),
        ({"Sec-WebSocket-Version": "13, 13"}, 426, "UPGRADE_REQUIRED"),
        ({"Sec-WebSocket-Key": "absent"}, 400, "VALIDATION_ERROR"),
        ({"Sec-WebSocket-Key": "short"}, 400, "VALIDATION_ERROR"),
        ({"Sec-WebSocket-Key": "*" * 24}, 400, "VALIDATION_ERROR"),
        ({"Sec-WebSocket-Key": "\xff" * 24}, 400, "VALIDATION_ERROR"),
    ],
)
def test_a_bad_handshake_is_refused_with_a_status(
    apis: list[RestClient], headers: dict[str, str], status: int, code: str
) -> None:
    found, word, raw = refusal(apis[0], str(uuid.uuid4()), headers)
    assert (found, word) == (status, code)
    if status == 426:
        assert re.search(r"(?im)^upgrade: websocket", raw.answer)
        assert re.search(r"(?im)^sec-websocket-version: 13", raw.answer)


@pytest.mark.parametrize("given", ["", "x", "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a1", "%00", "a&sessionId=b"])
def test_a_bad_session_id_is_refused_by_name(apis: list[RestClient], given: str) -> None:
    status, code, _ = refusal(apis[0], given)
    assert (status, code) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": "a=\xe9; b=\x80"},
        {"Sec-WebSocket-Protocol": "chat, \xff"},
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"},
        {"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket"},
        {"X-Long": "x" * 7000},
        {"Expect": "100-continue"},
    ],
)
def test_odd_headers_do_not_keep_a_client_out(apis: list[RestClient], headers: dict[str, str]) -> None:
    with RawWebSocket(apis[0].url, apis[0].running(), headers) as raw:
        if raw.status == 100:
            raw.answer, _, raw._buffer = raw._buffer.partition(b"\r\n\r\n")  # type: ignore[assignment]  # bytes, both
            return
        assert raw.status == 101
        assert "extensions" not in raw.answer.lower()
        assert raw.message()["type"] == "CONNECTED"
        assert raw.message()["type"] == "STATE_SYNC"


def test_a_plain_request_is_told_to_upgrade(redis_url: str) -> None:
    app = create_app(make_settings(redis_url))
    answer = app.test_client().get("/ws")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (426, "UPGRADE_REQUIRED")
    assert app.test_client().post("/ws").status_code == 405
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert app.test_client().get("/ws", headers=upgrade).status_code == 426


def test_only_allowed_origins_come_in_and_clients_without_one(strict: Cluster, open_websocket: OpenWebSocket) -> None:
    api = RestClient(strict.urls[0])
    session_id = str(uuid.uuid4())
    for origin in ("https://evil.example", "null", "https://play.example.evil", "http://play.example", ""):
        status, code, _ = refusal(api, session_id, {"Origin": origin})
        assert (status, code) == (403, "ORIGIN_NOT_ALLOWED"), origin
    own = {"Host": "clock.example", "Origin": "http://clock.example"}
    for headers in ({"Origin": "https://play.example"}, {"Origin": "HTTPS://admin.example"}, {}, own):
        with RawWebSocket(api.url, session_id, headers) as raw:
            assert raw.status == 101


def test_quotas_refuse_before_the_upgrade_and_give_back_what_was_taken(strict: Cluster) -> None:
    api = RestClient(strict.urls[0])

    def opened(count: int, session_id: str, address: str) -> list[RawWebSocket]:
        return [
            stack.enter_context(RawWebSocket(api.url, session_id, {"X-Forwarded-For": address})) for _ in range(count)
        ]

    for _ in range(2):
        full, other = str(uuid.uuid4()), str(uuid.uuid4())
        with ExitStack() as stack:
            assert [raw.status for raw in opened(4, full, "10.0.0.1")] == [101] * 4
            status, code, raw = refusal(api, full, {"X-Forwarded-For": "10.0.0.1"})
            assert (status, code) == (503, "TOO_MANY_CONNECTIONS")
            assert re.search(r"(?im)^retry-after: [1-9]", raw.answer)
            assert [raw.status for raw in opened(2, other, "10.0.0.1")] == [101] * 2
            status, code, raw = refusal(api, other, {"X-Forwarded-For": "10.0.0.1"})
            assert (status, code) == (429, "RATE_LIMITED")
            assert re.search(r"(?im)^retry-after: [1-9]", raw.answer)
            assert [raw.status for raw in opened(2, other, "10.0.0.2")] == [101] * 2
            status, code, _ = refusal(api, str(uuid.uuid4()), {"X-Forwarded-For": "10.0.0.3"})
            assert (status, code) == (503, "TOO_MANY_CONNECTIONS")
        wait_until(lambda: metric_value(api.url, "syncapp_ws_connections") == 0)


def test_a_handshake_that_comes_byte_by_byte_is_one(strict: Cluster) -> None:
    address = urlsplit(strict.urls[0])
    request = (
        f"GET /ws?sessionId={uuid.uuid4()} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
    with socket.create_connection((address.hostname, address.port)) as slow:
        for i in range(len(request)):
            slow.sendall(request[i : i + 1])
            time.sleep(0.002)
        answer = slow.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer  # of RFC 6455


def test_requests_for_websockets_are_counted_as_what_they_were_answered(strict: Cluster) -> None:
    api = RestClient(strict.urls[0])
    requests.get(f"{api.url}/ws", timeout=60)
    with RawWebSocket(api.url, str(uuid.uuid4())) as raw:
        raw.message()
    counted = [f'syncapp_http_requests_total{{method="GET",route="/ws",status="{status}"}}' for status in (101, 426)]
    wait_until(lambda: all(metric_value(api.url, name) for name in counted))
