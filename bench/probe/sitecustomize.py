"""Records long garbage collections of a web process, without a change to it.

Python imports this module at the start if its directory is in PYTHONPATH. Each collection of at least a millisecond
becomes a line in a file of the process: its start (monotonic ns), its length (ns), its generation, what it collected.
"""

from __future__ import annotations

import gc
import os
import time

_SHORTEST_NS = 1_000_000
_FOLDER = os.environ.get("BENCH_PAUSES", "")
_began_ns = 0


def _record(phase: str, info: dict[str, int]) -> None:
    global _began_ns  # noqa: PLW0603 a collection never runs inside another one
    if phase == "start":
        _began_ns = time.monotonic_ns()
        return
    took_ns = time.monotonic_ns() - _began_ns
    if took_ns < _SHORTEST_NS:
        return
    handle = os.open(f"{_FOLDER}/{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, f"{_began_ns} {took_ns} {info['generation']} {info['collected']}\n".encode())
    os.close(handle)


if _FOLDER:
    gc.callbacks.append(_record)
