"""What a user would pick instead, started on this machine: a clock with socket.io, and nginx with nchan."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from bench.crowd import masked
from bench.evening import Service
from bench.wire import Wire
from syncapp.dev.ports import free_port
from syncapp.dev.processes import Process, end_leftovers
from syncapp.dev.servers import Valkey

PROCESSES = 2
BYTES = 1350
"""Length of a message about a switch: about that of a STATE_UPDATE of two players."""
_HERE = Path(__file__).parent
_PROGRAM_FILES = ("package.json", "package-lock.json", "server.mjs")
_NGINX = """
load_module {module};
worker_processes {processes};
worker_rlimit_nofile 20000;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /sub {{ nchan_subscriber websocket; nchan_channel_id $arg_id; nchan_subscriber_first_message newest; }}
    location = /pub {{ nchan_publisher http; nchan_channel_id $arg_id; }}
  }}
}}
"""


class Missing(Exception):
    """A peer cannot be started here; the text says what is missing."""


class SocketIo(Wire):
    """Engine.IO over a WebSocket, and the events of `server.mjs`."""

    opened = b'42["state"'
    moved = b'42["moved"'

    def handshake(self, session: str) -> bytes:
        """Return the request that opens a WebSocket."""
        return self._get(f"/socket.io/?EIO=4&transport=websocket&room={session}")

    def command(self, session: str, place: int) -> bytes:
        """Return the frame with which a player ends the turn."""
        return masked(f'42["switch",{place}]'.encode())

    def move(self, text: bytes) -> tuple[int, int]:
        """Return the number of the switch, and whose turn it is now."""
        clock = json.loads(text[2:])[1]
        return clock["version"], clock["turn"]

    def greeting(self, text: bytes) -> bytes:
        """Connect to the namespace after the server's first packet."""
        return masked(b"40") if text.startswith(b"0") else self.reply(text)

    def reply(self, text: bytes) -> bytes:
        """Answer a ping."""
        return masked(b"3") if text == b"2" else b""

    def is_error(self, text: bytes) -> bool:
        """Return whether a message says that a command was refused."""
        return text.startswith(b'42["refused"')


class Nchan(Wire):
    """A channel of nchan: its messages are published over HTTP, and come out as they are."""

    opened = b""

    def __init__(self) -> None:
        self._publisher: socket.socket | None = None

    def handshake(self, session: str) -> bytes:
        """Return the request that opens a WebSocket."""
        return self._get(f"/sub?id={session}")

    def command(self, session: str, place: int) -> bytes:
        """Return the id of the channel: the message has the number of the switch in it."""
        return session.encode()

    def switch(self, player: socket.socket, command: bytes, port: int, version: int) -> None:
        """Publish the message about a switch."""
        if self._publisher is None:
            self._publisher = socket.create_connection(("127.0.0.1", port))
        else:
            self._publisher.recv(65536)  # the answer to the last one
        head = b'{"type":"STATE_UPDATE","version":%d,"active_participant_id":"p0","pad":"' % version
        body = head.ljust(BYTES - 2, b"x") + b'"}'
        request = f"POST /pub?id={command.decode()} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        self._publisher.sendall(request.encode() + body)


@contextmanager
def socket_io(sessions: int) -> Iterator[tuple[str, Service]]:
    """Start two processes with the Redis adapter; yield their versions, and the service."""
    program = _installed()
    with _folder() as (folder, stack):
        valkey = Valkey(folder, folder / "valkey")
        ports = [free_port() for _ in range(PROCESSES)]
        servers = [
            _Server(
                "socket.io",
                [_tool("node"), str(program / "server.mjs")],
                folder,
                {"PORT": str(port), "REDIS_URL": valkey.url, "PAD": str(BYTES - 110), "NODE_ENV": "production"},
            )
            for port in ports
        ]
        for each in (valkey, *servers):
            stack.callback(each.stop)
            each.start()
        node = subprocess.run([_tool("node"), "--version"], capture_output=True, text=True, check=True).stdout.strip()
        pinned: dict[str, str] = json.loads((_HERE / "package.json").read_text())["dependencies"]
        versions = ", ".join(f"{name} {version}" for name, version in sorted(pinned.items(), reverse=True))
        processes = {"web": [psutil.Process(each.pid) for each in servers], "store": [psutil.Process(valkey.pid)]}
        yield f"{versions}, node {node}", Service(SocketIo(), ports, _ids(sessions), processes)


@contextmanager
def nchan(sessions: int) -> Iterator[tuple[str, Service]]:
    """Start nginx with two workers; yield its versions, and the service."""
    program = _tool("nginx")
    about = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stderr
    path = re.search(r"--modules-path=(\S+)", about)
    module = Path(path[1] if path else "/usr/lib/nginx/modules") / "ngx_nchan_module.so"
    if not module.exists():
        raise Missing("nginx has no module nchan (Debian: apt-get install nginx libnginx-mod-nchan)")
    with _folder() as (folder, stack):
        port = free_port()
        config = folder / "nginx.conf"
        config.write_text(_NGINX.format(module=module, processes=PROCESSES, folder=folder, port=port))
        argv = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config), "-g", "daemon off;"]
        server = _Server("nginx", argv, folder, {"PORT": str(port)})
        stack.callback(server.stop)
        server.start()
        version = re.search(r"nginx/(\S+)", about)
        dpkg = subprocess.run(
            ["dpkg-query", "-W", "-f=${Version}", "libnginx-mod-nchan"], capture_output=True, text=True, check=False
        )
        processes = {"web": psutil.Process(server.pid).children()}
        name = f"nginx {version[1] if version else ''}, nchan {dpkg.stdout or 'of unknown version'}"
        yield name, Service(Nchan(), [port], _ids(sessions), processes)


class _Server(Process):
    """A server that is ready when its port accepts connections."""

    def __init__(self, name: str, argv: list[str], folder: Path, env: dict[str, str]) -> None:
        paths = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder)}
        super().__init__(name, argv, directory=folder, output=folder / f"{name}-{env['PORT']}.log", env=paths | env)
        self._port = int(env["PORT"])

    def is_ready(self) -> bool:
        """Return whether the port accepts connections."""
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def _folder() -> Iterator[tuple[Path, ExitStack]]:
    folder = Path(tempfile.mkdtemp(prefix="syncapp-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(end_leftovers, folder)
        yield folder, stack


def _installed() -> Path:
    """Return a folder with `server.mjs` and its packages, which are installed if they are not yet."""
    npm = _tool("npm")
    _tool("node")
    contents = b"".join((_HERE / name).read_bytes() for name in _PROGRAM_FILES)
    folder = Path.home() / ".cache" / "syncapp-bench" / hashlib.sha256(contents).hexdigest()[:16]
    if (folder / "installed").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in _PROGRAM_FILES:
        shutil.copy(_HERE / name, folder)
    argv = [npm, "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"npm cannot install socket.io: {done.stderr.strip().splitlines()[-1:]}")
    (folder / "installed").touch()
    return folder


def _tool(name: str) -> str:
    if found := shutil.which(name):
        return found
    packages = {"nginx": "nginx libnginx-mod-nchan"}.get(name, "nodejs npm")
    raise Missing(f"{name} is not on PATH (Debian: apt-get install {packages})")


def _ids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]
