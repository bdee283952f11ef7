"""Debian's nginx in front of a server; it writes into its own directory only."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from syncapp.dev.ports import free_port
from syncapp.dev.processes import Process

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/sbin")
_CONFIG = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  default_type text/plain;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  {http}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {upstream};
      {location}
    }}
  }}
}}
"""


class Nginx(Process):
    """One nginx in front of `upstream` (a URL). location, http: directives to add to those blocks.

    Without them, it speaks HTTP/1.0 to the upstream, buffers answers, and cuts silent connections after 60 s.
    """

    stop_signal = signal.SIGTERM

    def __init__(self, directory: Path, upstream: str, *, location: str = "", http: str = "") -> None:
        assert NGINX
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = directory / "nginx.conf"
        config.write_text(
            _CONFIG.format(directory=directory, http=http, port=self.port, upstream=upstream, location=location)
        )
        argv = [NGINX, "-p", str(directory), "-e", "stderr", "-c", str(config)]
        super().__init__("nginx", argv, directory=directory, output=directory / "nginx.log")

    def is_ready(self) -> bool:
        """Tell whether it answers at all."""
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/health")
            return connection.getresponse().status > 0
        return False


@contextlib.contextmanager
def nginx(upstream: str, *, location: str = "", http: str = "") -> Iterator[Nginx]:
    """Run nginx for the length of the block; skip the test if it is not installed."""
    if NGINX is None:
        pytest.skip("no nginx here; on Debian or Ubuntu: apt-get install nginx")
    with tempfile.TemporaryDirectory(prefix="syncapp-nginx-") as directory:
        server = Nginx(Path(directory), upstream, location=location, http=http)
        try:
            server.start()
            yield server
        finally:
            server.stop()
