#!/usr/bin/env python3
"""Health check of a container or a machine: exit code 1 if a restart of its web processes or worker would help.

    python deploy/healthcheck.py [web | worker]

Without an argument it checks what process 1 runs, as in a container of the Dockerfile. Web processes must answer
`GET /health`. Every process must also have reported itself to the store within the last 5 s, which it does only while
its background loops run. A store that does not answer is no reason for a restart: then only `/health` counts.
"""

# ruff: noqa: T201 - it prints its result

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from redis.exceptions import RedisError

from syncapp.config import Settings, load
from syncapp.loops import Loops
from syncapp.server.listen_address import ListenAddress
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from syncapp.store.process_registry import ProcessRegistry

TIMEOUT_S = 5
PROGRAMS = {"gunicorn": "web", "huey_consumer": "worker"}


def kind_of(command: str) -> str:
    """Return which kind of process a command line starts; empty for any other command."""
    return next((kind for program, kind in PROGRAMS.items() if program in command), "")


def fault(kind: str, settings: Settings) -> str:
    """Return what is wrong with the processes of a kind on this host; empty if nothing is."""
    return (_web_fault(settings) if kind == "web" else "") or _report_fault(kind, settings)


def _web_fault(settings: Settings) -> str:
    listening = ListenAddress.of(settings)
    try:
        connection = http.client.HTTPConnection(listening.reached_at, listening.port, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request("GET", "/health")
            status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"GET /health failed: {error!r}"
    return "" if status == 200 else f"GET /health answers {status}"


def _report_fault(kind: str, settings: Settings) -> str:
    expected = settings.web_concurrency if kind == "web" else 1
    client = connect(settings, max_connections=1)
    presence = ProcessRegistry(client, Keyspace(settings.sync_buckets), kind=kind, loops=Loops())
    try:
        seconds, micros = client.time()
        names = presence.live_processes(int(seconds) * 1000 + int(micros) / 1000)
    except RedisError as error:
        print(f"the store does not answer, so reports are not checked: {type(error).__name__}")
        return ""
    finally:
        client.close()
    found = sum(name.startswith(f"{kind}:{socket.gethostname()}:") for name in names)
    return "" if found >= expected else f"{found} of {expected} {kind} processes reported within 5 s"


def main(argv: list[str]) -> int:
    """Check what the arguments name; return the exit code."""
    command = Path("/proc/1/cmdline").read_bytes().decode(errors="replace").replace("\0", " ") if not argv else ""
    kind = argv[0] if argv else kind_of(command)
    if kind not in PROGRAMS.values():
        print("nothing to check: neither a web process nor a worker")
        return 2 if argv else 0
    found = fault(kind, load())
    print(found or "healthy")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
