"""The Python client over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from syncapp_client import SyncAppError
from syncapp_client.rest import Rest
from syncapp_client.retries import Retries
from syncapp_client.tls import TlsSocket, client_context
from syncapp_client.tokens import Tokens
from tests.support.certificates import Certificate, new_certificate
from tests.support.cluster import Cluster
from tests.support.python_client import SOON_S, client_of, connected
from tests.support.tcp_proxy import TcpProxy
from tests.support.web_clients import CHESS, wait_until

HANDSHAKES = 100
MESSAGES = 300
LARGE = 200_000
TOO_MUCH = b"x" * 50_000_000
"""More than the buffers of a connection hold."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return new_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trusted(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.chain))
    return certificate


@pytest.fixture
def echo(trusted: Certificate) -> Iterator[str]:
    """Address of a server that returns what it gets."""
    ready: SimpleQueue[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = SimpleQueue()

    async def answer(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)

    async def run() -> None:
        ends = asyncio.Event()
        options: dict[str, Any] = {"ssl": trusted.server_context(), "compression": None, "max_size": None}
        async with serve(answer, "127.0.0.1", 0, ping_interval=None, **options) as server:
            (listener,) = server.sockets
            ready.put((listener.getsockname()[1], asyncio.get_running_loop(), ends))
            await ends.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    port, loop, ends = ready.get(timeout=SOON_S)
    yield f"wss://127.0.0.1:{port}/"
    loop.call_soon_threadsafe(ends.set)
    thread.join()


class Unanswering:
    """A server of one connection that reads nothing and answers nothing, until it ends the connection."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(SOON_S)
        self.port = self._listener.getsockname()[1]
        self._context = context
        self.is_connected = threading.Event()
        self.ends = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Unanswering:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.ends.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(self._listener.accept()[0], server_side=True),
        ):
            self.is_connected.set()
            self.ends.wait(SOON_S)
            self.ends.set()

    @contextlib.contextmanager
    def connected(self) -> Iterator[TlsSocket]:
        with socket.create_connection(("127.0.0.1", self.port), SOON_S) as plain:
            connection = client_context().wrap_socket(plain, server_hostname="127.0.0.1")
            assert isinstance(connection, TlsSocket)
            connection.settimeout(None)
            with connection:
                yield connection


@pytest.fixture
def unanswering(trusted: Certificate) -> Iterator[Unanswering]:
    with Unanswering(trusted.server_context()) as server:
        yield server


def opened(url: str, open_timeout_s: float = SOON_S) -> ClientConnection:
    return connect(url, ssl=client_context(), open_timeout=open_timeout_s, compression=None, max_size=None)


def test_a_game_is_followed_over_tls(pair: Cluster, trusted: Certificate) -> None:
    with TcpProxy(pair.web[0].port, random.Random(1), trusted.server_context()) as proxy:
        url = f"https://127.0.0.1:{proxy.port}"
        with client_of(url) as client:
            session_id = client.create(CHESS)["session_id"]
            with connected(url, session_id) as game:
                game.start()
                game.switch()
                assert proxy.cut(1)
                wait_until(lambda: game.status == "stale", SOON_S)
                done = client.switch(session_id)
                wait_until(
                    lambda: game.status == "live" and game.state and game.state["version"] == done.version, SOON_S
                )


def test_a_certificate_that_nobody_trusts_is_refused(pair: Cluster, certificate: Certificate) -> None:
    with TcpProxy(pair.web[0].port, random.Random(1), certificate.server_context()) as proxy:
        rest = Rest(f"https://127.0.0.1:{proxy.port}", Tokens(None), Retries(SOON_S))
        with pytest.raises(SyncAppError, match="SSLError"):
            rest.attempt("GET", "/v1/time", timeout_s=SOON_S)
        rest.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            opened(f"wss://127.0.0.1:{proxy.port}/")


def test_only_the_named_certificates_are_trusted(trusted: Certificate) -> None:
    assert client_context().cert_store_stats()["x509"] == 1


def test_a_bundle_that_has_changed_is_read_again(
    certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    bundle.write_bytes(certificate.chain.read_bytes())
    first = client_context()
    assert client_context() is first
    bundle.write_bytes(new_certificate(tmp_path).chain.read_bytes() + certificate.chain.read_bytes())
    os.utime(bundle, ns=(0, 0))
    assert client_context().cert_store_stats()["x509"] == 2


def test_a_folder_of_certificates_may_be_named(
    echo: str, certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{certificate.openssl_hash}.0").symlink_to(certificate.chain)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    with opened(echo) as connection:
        connection.send("heard")
        assert connection.recv(SOON_S) == "heard"


def test_a_handshake_without_an_answer_ends_in_time(trusted: Certificate) -> None:
    for open_timeout_s in (1.0, 4.0, 16.0):  # a busy machine may need longer until TLS is there
        with Unanswering(trusted.server_context()) as server:
            with pytest.raises(TimeoutError):
                opened(f"wss://127.0.0.1:{server.port}/", open_timeout_s)
            assert not server.ends.is_set()  # else the end of the connection has ended the wait, not the limit
            if server.is_connected.is_set():
                return
    pytest.fail("the server has never seen a connection")


def test_no_handshake_is_lost(echo: str) -> None:
    # Without TlsSocket, a handshake is lost too seldom for this test: the one above finds that.
    def one(number: int) -> str | bytes:
        with opened(echo) as connection:
            connection.send(str(number))
            return connection.recv(SOON_S)

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(one, range(HANDSHAKES))) == [str(number) for number in range(HANDSHAKES)]


def test_large_messages_pass_both_ways_at_once(echo: str) -> None:
    texts = [f"{number}:" + "x" * (LARGE if number % 10 == 0 else number) for number in range(MESSAGES)]
    with opened(echo) as connection:

        def send() -> None:
            for text in texts:
                connection.send(text)

        sender = threading.Thread(target=send)
        sender.start()
        assert [connection.recv(SOON_S) for _ in texts] == texts
        sender.join()


@pytest.mark.parametrize("call", ["recv", "sendall"])
def test_closing_ends_the_wait_of_another_thread(unanswering: Unanswering, call: str) -> None:
    with unanswering.connected() as connection, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(connection.recv, 1) if call == "recv" else threads.submit(connection.sendall, TOO_MUCH)
        wait_until(lambda: connection._waiters == 1, SOON_S)
        connection.close()
        with pytest.raises(OSError, match="closed"):
            waiting.result(SOON_S)
    assert connection.fileno() == -1


def test_a_call_that_takes_too_long_raises_timeout_error(unanswering: Unanswering) -> None:
    with unanswering.connected() as connection:
        connection.settimeout(0.05)
        assert connection.gettimeout() == 0.05
        with pytest.raises(TimeoutError):
            connection.recv()
        with pytest.raises(TimeoutError):
            connection.sendall(TOO_MUCH)


def test_nothing_is_sent_without_tls_after_a_shutdown(unanswering: Unanswering) -> None:
    with unanswering.connected() as connection:
        connection.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError, match=r"EOF|[Bb]roken pipe"):
            connection.send(b"in plain text")
        assert connection.version() is not None


def test_a_socket_that_was_never_connected_can_be_closed(trusted: Certificate) -> None:
    connection = client_context().wrap_socket(socket.socket(), server_hostname="127.0.0.1")
    connection.close()
    assert connection.fileno() == -1
