"""`make bench`: runs the parts and writes their results to bench/results/."""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench import publish, report
from bench.figures import Part
from bench.rig import Rig
from bench.targets import verdicts
from syncapp.dev.processes import end_leftovers

PARTS = ("store", "scripts", "limits", "rest", "sockets", "fanout", "audit", "expiry", "growth", "storm")
ONLY_IF_NAMED = ("cluster",)
ALONE = ("evening", "against", "peers")
"""Parts with options of their own, which run without the others."""


def run(names: list[str]) -> dict[str, Part]:
    """Run parts one after another, on private servers; return their results by name."""
    directory = Path(tempfile.mkdtemp(prefix="syncapp-bench-"))
    found: dict[str, Part] = {}
    try:
        with Rig(directory) as rig:
            for name in names:
                began_s = time.monotonic()
                print(f"{name} ...", flush=True)
                rig.flush()
                found[name] = importlib.import_module(f"bench.{name}").run(rig)
                print(f"{name}: {time.monotonic() - began_s:.0f} s", flush=True)
    finally:
        end_leftovers(directory)
        shutil.rmtree(directory, ignore_errors=True)
    return found


def main() -> int:
    """Run the requested parts; return the exit code: 0 even if a target is missed."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that all servers are stopped
    if sys.argv[1:2] and sys.argv[1] in ALONE:
        code: int = importlib.import_module(f"bench.{sys.argv[1]}").main(sys.argv[2:])
        return code
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="part",
        help=f"one of {', '.join(PARTS)}, which all run by default; or {', '.join(ONLY_IF_NAMED)}; "
        f"or first {' or '.join(ALONE)}, with options of its own (--help)",
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="where results go")
    asked = parser.parse_args()
    if unknown := set(asked.names) - {*PARTS, *ONLY_IF_NAMED}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    began_s = time.monotonic()
    before = os.getloadavg()
    found = run(asked.names or list(PARTS))
    paths = report.write(found, asked.out, load_before=before, took_s=time.monotonic() - began_s)
    print(report.summary(found, verdicts(found)))
    if publish.newest(asked.out):
        print("docs/evidence/figures.md shows the newest complete run.")
    print("Written:", ", ".join(str(path) for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
