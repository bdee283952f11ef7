"""Keys for tests, and a server of a JWKS whose answers the test chooses."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

RSA = rsa.generate_private_key(65_537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}
"""A private key for each algorithm of public keys."""


def public_pem(private: Any) -> str:
    """Return the public key of a private one, in PEM."""
    pem: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def public_jwk(private: Any, algorithm: str, kid: str | None, **more: Any) -> dict[str, Any]:
    """Return the public key of a private one as an entry of a JWKS; more: members to add or change."""
    entry = jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True)
    return dict(entry) | ({} if kid is None else {"kid": kid}) | more


Answer = tuple[int, dict[str, str], bytes]


class JwksServer:
    """A local server. `answer` makes each answer; `count` says how many were asked for."""

    def __init__(self) -> None:
        self.count = 0
        self.answer: Callable[[], Answer] = lambda: (200, {}, b"{}")
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.count += 1
                status, headers, body = server.answer()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """Say nothing: clients may go away."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/jwks.json"
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.02), daemon=True)
        self._thread.start()

    def publish(self, *entries: dict[str, Any]) -> None:
        """Answer with these keys from now on."""
        body = json.dumps({"keys": entries}).encode()
        self.answer = lambda: (200, {"Content-Type": "application/json"}, body)

    def close(self) -> None:
        """Stop to listen: from now on, connections are refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def jwks_server() -> Iterator[JwksServer]:
    """A server that ends with the test."""
    server = JwksServer()
    try:
        yield server
    finally:
        server.close()
