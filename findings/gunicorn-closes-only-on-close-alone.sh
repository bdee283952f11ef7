#!/usr/bin/env bash
# gunicorn 27.0.1 (gthread and gevent workers): `Connection` is a list, but gunicorn compares the whole value with "close".
# After a request with `Connection: TE, close`, which Perl's LWP sends with every request, or `keep-alive, close`, it
# answers `Connection: keep-alive` and leaves the connection open for `keepalive` seconds. A client that reads until the
# end of the connection waits that long, and each such connection takes a place of the worker's.
#
# Output seen:
#   gunicorn 27.0.1
#   gthread, Connection: close       -> close, connection closed
#   gthread, Connection: TE, close   -> keep-alive, connection open
#   gevent, Connection: close        -> close, connection closed
#   gevent, Connection: TE, close    -> keep-alive, connection open
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gunicorn==27.0.1 gevent==26.9.0 packaging
cd "$folder"
cat >app.py <<'PYTHON'
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
PYTHON
"$folder/venv/bin/python" -c 'import gunicorn; print("gunicorn", gunicorn.__version__)'
for worker in gthread gevent; do
  port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  "$folder/venv/bin/gunicorn" app:app --bind "127.0.0.1:$port" -k "$worker" --keep-alive 60 >"$worker.log" 2>&1 &
  server=$!
  "$folder/venv/bin/python" - "$port" "$worker" <<'PYTHON'
import socket, sys, time

def ask(connection):
    end = time.monotonic() + 30
    while True:
        try:
            peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5)
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
    peer.sendall(f"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n".encode())
    answer = b""
    try:
        while part := peer.recv(4096):
            answer += part
        ended = "closed"
    except TimeoutError:
        ended = "open"
    said = next(line for line in answer.decode().lower().split("\r\n") if line.startswith("connection:"))
    return said.split(": ")[1], ended

seen = [ask(connection) for connection in ("close", "TE, close")]
for connection, (said, ended) in zip(("close", "TE, close"), seen):
    print(f"{sys.argv[2] + ', Connection: ' + connection:<32} -> {said}, connection {ended}")
sys.exit(0 if seen == [("close", "closed"), ("keep-alive", "open")] else "the behaviour has changed")
PYTHON
  kill "$server"
  wait "$server" || true
done
