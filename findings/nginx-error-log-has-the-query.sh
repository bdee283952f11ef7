#!/usr/bin/env bash
# nginx 1.22.1 (Debian 12): a `log_format` with `$uri` instead of `$request` keeps query strings out of the access log, but
# not out of the error log. A line of level `error`, such as that an upstream refuses connections, quotes the whole request
# twice: as it came, and as it went to the upstream. No directive changes what these lines contain; only their level does.
#
# Output seen:
#   nginx version: nginx/1.22.1
#   access log: GET /stream 502
#   error log, level error (the default): the query is there 2 times
#   error log, level crit: the query is there 0 times
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq nginx >/dev/null 2>&1 || { apt-get -qq update && apt-get download -qq nginx >/dev/null 2>&1; }
dpkg -x nginx_*.deb nginx
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
nobody=$(free) # nothing listens there
default=$(free)
crit=$(free)
server() { # port, directive
  echo "server { listen 127.0.0.1:$1; $2 location / { proxy_pass http://127.0.0.1:$nobody; } }"
}
cat >nginx.conf <<CONFIG
daemon off; master_process off; pid $folder/nginx.pid;
events {}
http {
  log_format path '\$request_method \$uri \$status';
  access_log $folder/access.log path;
  client_body_temp_path $folder/body; proxy_temp_path $folder/proxy; fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi; scgi_temp_path $folder/scgi;
  $(server "$default" "error_log $folder/default.log;")
  $(server "$crit" "error_log $folder/crit.log crit;")
}
CONFIG
nginx/usr/sbin/nginx -v
nginx/usr/sbin/nginx -p "$folder" -e "$folder/start.log" -c "$folder/nginx.conf" &
for port in "$default" "$crit"; do
  curl --silent --output /dev/null --retry 50 --retry-connrefused --retry-delay 1 "http://127.0.0.1:$port/stream?ticket=abc" || true
done
count() { grep -o 'ticket=abc' "$1" | wc -l; }
test "$(count access.log)" = 0
echo "access log: $(tail -n 1 access.log)"
by_default=$(count default.log || true)
by_crit=$(count crit.log || true)
echo "error log, level error (the default): the query is there $by_default times"
echo "error log, level crit: the query is there $by_crit times"
[[ $by_default = 2 && $by_crit = 0 ]] || { echo "the behaviour has changed" >&2; exit 1; }
