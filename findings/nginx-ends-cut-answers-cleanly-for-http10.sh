#!/usr/bin/env bash
# nginx 1.22.1 (Debian 12): an upstream sends part of an answer without a length and resets the connection. nginx notices
# ("upstream prematurely closed" or "Connection reset by peer" in its log), and a client that speaks HTTP/1.1 sees it
# too, because the last chunk is missing. A client that speaks HTTP/1.0 sees an ordinary end: nginx closes its side
# without a reset, so half a file looks whole, and curl exits 0. Only something in the file itself can tell.
#
# Output seen:
#   nginx version: nginx/1.22.1
#   HTTP/1.1 through nginx: curl exits 18 after 0 bytes
#   HTTP/1.0 through nginx: curl exits 0 after 0 bytes (what the upstream had sent before is lost, too)
#   HTTP/1.0 without nginx: curl exits 56 after 6 bytes
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq nginx >/dev/null 2>&1 || { apt-get -qq update && apt-get download -qq nginx >/dev/null 2>&1; }
dpkg -x nginx_*.deb nginx
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
upstream=$(free)
front=$(free)
cat >upstream.py <<'PYTHON'
import socket, struct, sys, time

server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    peer, _ = server.accept()
    if peer.recv(65536):
        peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nline 1")
        time.sleep(0.5)  # the reset must not overtake what was sent
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
PYTHON
python3 upstream.py "$upstream" &
listens() { for _ in $(seq 300); do (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return; sleep 0.1; done; return 1; }
listens "$upstream"
cat >nginx.conf <<CONFIG
daemon off; master_process off; pid $folder/nginx.pid; error_log $folder/error.log;
events {}
http {
  access_log off;
  client_body_temp_path $folder/body; proxy_temp_path $folder/proxy; fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi; scgi_temp_path $folder/scgi;
  server { listen 127.0.0.1:$front; location / { proxy_pass http://127.0.0.1:$upstream; } }
}
CONFIG
nginx/usr/sbin/nginx -v
nginx/usr/sbin/nginx -p "$folder" -e "$folder/error.log" -c "$folder/nginx.conf" &
listens "$front"
ask() { # name, expected exit, curl's arguments
  local name=$1 expected=$2 code=0 body
  shift 2
  body=$(curl --silent --max-time 20 "$@") || code=$?
  echo "$name: curl exits $code after ${#body} bytes"
  test "$code" = "$expected" || { echo "the behaviour has changed" >&2; exit 1; }
}
ask "HTTP/1.1 through nginx" 18 --http1.1 "http://127.0.0.1:$front/"
ask "HTTP/1.0 through nginx" 0 --http1.0 "http://127.0.0.1:$front/"
ask "HTTP/1.0 without nginx" 56 --http1.0 "http://127.0.0.1:$upstream/"
