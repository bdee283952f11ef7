#!/usr/bin/env bash
# PyJWT 2.15.1: when the keys of `PyJWKClient` are older than `lifespan` (300 s; here 1 s) and their URL is away, every
# token is refused, also of keys that are known, and each token causes another fetch. Until then, a key that was added
# right after a fetch is refused for `cooldown_duration` (30 s).
#
# Output seen:
#   PyJWT 2.15.1
#   a known key                      found, after 1 fetch
#   a key added just after           PyJWKClientError, after 1 fetch
#   a known key, the URL is away     PyJWKClientConnectionError, after 2 fetches
#   once more                        PyJWKClientConnectionError, after 3 fetches
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check PyJWT==2.15.1 cryptography==50.0.2
"$folder/venv/bin/python" - <<'PYTHON'
import json, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

algorithm, fetches, status = jwt.get_algorithm_by_name("ES256"), 0, 200
keys = {kid: algorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True) for kid in ("one", "two")}
listed = ["one"]

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        global fetches
        fetches += 1
        body = json.dumps({"keys": [keys[kid] | {"kid": kid, "use": "sig", "alg": "ES256"} for kid in listed]}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = jwt.PyJWKClient(f"http://127.0.0.1:{server.server_address[1]}/", lifespan=1)

def ask(name, kid):
    try:
        client.get_signing_key(kid)
        result = "found"
    except jwt.PyJWTError as error:
        result = type(error).__name__
    print(f"{name:32} {result}, after {fetches} fetch{'es' if fetches > 1 else ''}")

print("PyJWT", jwt.__version__)
ask("a known key", "one")
listed.append("two")
ask("a key added just after", "two")
status = 503
time.sleep(1.1)
ask("a known key, the URL is away", "one")
ask("once more", "one")
PYTHON
