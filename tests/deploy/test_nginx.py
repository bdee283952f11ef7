"""deploy/nginx.conf in front of a web process: only ports and the certificate are replaced."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import ssl
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from syncapp.api.requests import MAX_WAIT_MS
from syncapp.config import Settings
from syncapp.dev.ports import free_port
from syncapp.dev.processes import Process
from syncapp_client.tls import TlsSocket
from tests.support.certificates import new_certificate
from tests.support.cluster import MakeCluster
from tests.support.nginx import NGINX
from tests.support.web_clients import CHESS

CONFIG = Path(__file__).parents[2] / "deploy" / "nginx.conf"
CREATES = 5
AROUND = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  include {directory}/syncapp.conf;
}}
"""
"""What /etc/nginx/nginx.conf is on a real machine."""


class Proxy(Process):
    """nginx with the configuration of deploy/."""

    stop_signal = signal.SIGTERM

    def __init__(self, directory: Path, *upstream_ports: int) -> None:
        assert NGINX
        self.port, self.plain_port = free_port(), free_port()
        self.certificate = new_certificate(directory)
        self.access_log, self.error_log = directory / "syncapp.log", directory / "error.log"
        text = CONFIG.read_text()
        text = text.replace("/var/log/nginx/syncapp.log", str(self.access_log))
        for old, here in {
            "/var/log/nginx/error.log": str(self.error_log),
            "listen 80;": f"listen 127.0.0.1:{self.plain_port};",
            "listen [::]:80;": "",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{self.port} ssl http2;",
            "listen [::]:443 ssl http2;": "",
            "server 127.0.0.1:8000 max_fails=0;": "".join(
                f"server 127.0.0.1:{port} max_fails=0;" for port in upstream_ports
            ),
            "/etc/letsencrypt/live/syncapp.example/fullchain.pem": str(self.certificate.chain),
            "/etc/letsencrypt/live/syncapp.example/privkey.pem": str(self.certificate.key),
        }.items():
            assert text.count(old) == 1, old
            text = text.replace(old, here)
        (directory / "syncapp.conf").write_text(text)
        config = directory / "nginx.conf"
        config.write_text(AROUND.format(directory=directory))
        argv = [NGINX, "-p", str(directory), "-e", "stderr", "-c", str(config)]
        self.tested = subprocess.run([*argv, "-t"], capture_output=True, text=True, check=False)
        super().__init__("nginx", argv, directory=directory, output=directory / "nginx.log")
        self.trust = ssl.create_default_context(cafile=str(self.certificate.chain))
        self.websocket_trust = ssl.create_default_context(cafile=str(self.certificate.chain))
        self.websocket_trust.sslsocket_class = TlsSocket

    @property
    def origin(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def wss(self) -> str:
        return f"wss://127.0.0.1:{self.port}/ws"

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/health")[0] > 0
        return False

    def ask(
        self, method: str, path: str, body: Any = None, *, source: str = "127.0.0.1", **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON (or text) of an answer; source: the client's address."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=60, context=self.trust, source_address=(source, 0)
        )
        with contextlib.closing(connection):
            sent = {"Content-Type": "application/json"} | {
                name.replace("_", "-"): each for name, each in headers.items()
            }
            connection.request(method, path, json.dumps(body) if body is not None else None, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
            with contextlib.suppress(ValueError):
                return answer.status, json.loads(text)
            return answer.status, text


@pytest.fixture(scope="module")
def proxy(make_cluster: MakeCluster, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    if NGINX is None:
        pytest.skip("no nginx here; on Debian or Ubuntu: apt-get install nginx")
    with redis_py.Redis.from_url(redis_url) as client:
        client.flushdb()
    cluster = make_cluster(web=1, worker=False, PROXY_HOPS="1", CREATES_PER_MINUTE=str(CREATES))
    server = Proxy(tmp_path_factory.mktemp("nginx"), cluster.web[0].port)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def session(proxy: Proxy) -> str:
    """Path of a running session, created by an address that no test uses."""
    status, made = proxy.ask("POST", "/v1/sessions", CHESS, source="127.0.0.9")
    assert status == 201, made
    path = f"/v1/sessions/{made['data']['session_id']}"
    assert proxy.ask("POST", f"{path}/start")[0] == 200
    return path


def test_nginx_accepts_the_configuration_without_a_warning(proxy: Proxy) -> None:
    lines = proxy.tested.stderr.splitlines()
    assert [line for line in lines if "[" in line] == [], lines
    assert proxy.tested.returncode == 0


def test_plain_http_is_redirected_with_its_method(proxy: Proxy) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.plain_port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/sessions?a=b", headers={"Host": "syncapp.example"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Location"]) == (308, "https://syncapp.example/v1/sessions?a=b")


def test_websockets_pass_and_pages_of_the_service_itself_are_recognized(proxy: Proxy, session: str) -> None:
    url = f"{proxy.wss}?sessionId={session.rpartition('/')[2]}"
    with connect(url, ssl=proxy.websocket_trust, origin=proxy.origin) as socket:  # type: ignore[call-overload]  # a NewType of str
        assert [json.loads(socket.recv(timeout=60))["type"] for _ in range(2)] == ["CONNECTED", "STATE_SYNC"]
        assert proxy.ask("POST", f"{session}/switch", Origin=proxy.origin)[0] == 200
        assert json.loads(socket.recv(timeout=60))["type"] == "STATE_UPDATE"
    with pytest.raises(InvalidStatus) as refused:
        connect(url, ssl=proxy.websocket_trust, origin=Origin("https://other.example"))
    assert refused.value.response.status_code == 403
    assert proxy.ask("POST", f"{session}/switch", Origin="https://other.example")[0] == 403


def test_events_of_a_stream_are_not_held_back(proxy: Proxy, session: str) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", proxy.port, timeout=60, context=proxy.trust)
    with contextlib.closing(connection):
        connection.request("GET", f"{session}/stream")
        answer = connection.getresponse()
        assert answer.status == 200

        def until(kind: bytes) -> float:
            while kind not in answer.readline():
                pass
            return time.monotonic()

        until(b"STATE_SYNC")
        began_s = time.monotonic()
        assert proxy.ask("POST", f"{session}/switch")[0] == 200
        assert until(b"STATE_UPDATE") - began_s < 10  # a heartbeat would flush a small buffer after 15 s


def test_clients_are_counted_by_their_own_address_whatever_they_claim(proxy: Proxy) -> None:
    def create(claimed: str, source: str) -> int:
        return proxy.ask("POST", "/v1/sessions", CHESS, source=source, X_Forwarded_For=claimed)[0]

    assert [create(f"192.0.2.{number}", "127.0.0.3") for number in range(CREATES + 1)] == [201] * CREATES + [429]
    assert create("192.0.2.1", "127.0.0.4") == 201


def test_a_body_that_is_too_large_is_refused_by_the_service_in_its_own_form(proxy: Proxy) -> None:
    status, answer = proxy.ask("POST", "/v1/sessions", {"metadata": {"a": "b" * 1_100_000}})
    assert (status, answer["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/ready", "/health"])
def test_operators_paths_are_not_public(proxy: Proxy, path: str) -> None:
    assert proxy.ask("GET", path)[0] == 200
    assert proxy.ask("GET", path, source="127.0.0.2")[0] == 403


def test_no_log_has_the_query_of_a_request(tmp_path: Path) -> None:
    if NGINX is None:
        pytest.skip("no nginx here; on Debian or Ubuntu: apt-get install nginx")
    proxy = Proxy(tmp_path, free_port())  # nothing listens there, which is logged as an error
    proxy.start()
    try:
        path = f"/v1/sessions/{uuid.uuid4()}/stream"
        assert (
            proxy.ask("GET", f"{path}?token=not-for-logs", Referer=f"{proxy.origin}{path}?token=not-for-logs")[0] == 502
        )
        connection = http.client.HTTPConnection("127.0.0.1", proxy.plain_port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", f"{path}?token=not-for-logs", headers={"Host": "syncapp.example"})
            assert connection.getresponse().status == 308
    finally:
        proxy.stop()
    logged = proxy.access_log.read_text()
    assert [f'"GET {path} HTTP/1.1" {status} ' in logged for status in (502, 308)] == [True, True]
    for log in (proxy.access_log, proxy.error_log, tmp_path / "nginx.log"):
        assert "not-for-logs" not in log.read_text()


def test_paths_that_only_begin_alike_are_public(proxy: Proxy) -> None:
    assert proxy.ask("GET", f"/v1/sessions/{uuid.uuid4()}", source="127.0.0.2")[0] == 404
    assert proxy.ask("GET", "/readyness", source="127.0.0.2")[0] == 404


def test_with_retries_by_key_no_command_fails_while_web_processes_are_restarted_one_after_the_other(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    if NGINX is None:
        pytest.skip("no nginx here; on Debian or Ubuntu: apt-get install nginx")
    cluster = make_cluster(web=2, worker=False, PROXY_HOPS="1")
    proxy = Proxy(tmp_path, *(process.port for process in cluster.web))
    answers: Counter[int] = Counter()
    done = threading.Event()
    proxy.start()
    try:
        status, made = proxy.ask("POST", "/v1/sessions", CHESS)
        assert status == 201
        path = f"/v1/sessions/{made['data']['session_id']}"
        assert proxy.ask("POST", f"{path}/start")[0] == 200

        def load() -> None:
            while not done.wait(0.02):
                key = str(uuid.uuid4())
                status = proxy.ask("POST", f"{path}/switch", Idempotency_Key=key)[0]
                while status == 502:  # the process closed a kept connection just then; nginx does not send a POST twice
                    status = proxy.ask("POST", f"{path}/switch", Idempotency_Key=key)[0]
                answers[status] += 1
                answers[proxy.ask("GET", path)[0]] += 1

        with ThreadPoolExecutor(4) as threads:
            loads = [threads.submit(load) for _ in range(4)]
            try:
                for process in cluster.web:
                    process.restart()
            finally:
                done.set()
            for each in loads:
                each.result(120)
    finally:
        proxy.stop()
    assert set(answers) == {200}, answers
    assert answers[200] > 20


def test_timeouts_are_longer_than_any_silence() -> None:
    found = dict(re.findall(r"proxy_(read|send)_timeout (\d+)s;", CONFIG.read_text()))
    settings = Settings()
    silence_s = max(settings.ws_ping_interval_s, settings.stream_heartbeat_s, MAX_WAIT_MS / 1000)
    assert all(int(found[name]) > silence_s for name in ("read", "send"))
