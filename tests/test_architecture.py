"""Imports point down: edges, services, stores, leaves; some things are done in one module only."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "syncapp"
MODULES = sorted(PACKAGE.rglob("*.py"))

LEAVES = {
    "order",
    "instants",
    "owner_clocks",
    "data_limits",
    "query",
    "list_query",
    "restore",
    "session_cache",
    "config",
    "setting_checks",
    "errors",
    "documents",
    "keys",
    "fields",
    "models",
    "validation",
    "rules",
    "definitions",
    "layout",
    "state",
    "protocol",
    "clock",
    "topics",
    "backlog",
    "backlogs",
    "metrics",
    "loops",
    "logs",
    "events",
    "copying",
    "commands",
    "dispatch",
    "refusals",
    "past",
    "questions",
    "query_values",
    "exports",
    "statements",
    "listening",
    "addresses",
    "limits",
    "retries",
    "capacity",
    "findings",
    "etags",
    "origins",
    "summaries",
    "clock_text",
    "running_clock",
}
STORES = {"scripts", "lines", "db", "redis", "pubsub", "inspection", "totals", "pool", "moments", "remains"} | {
    "failover",
    "troubles",
    "idle",
    "probe",
    "migrating",
    "forks",
}
SERVICES = {"sessions", "calls", "hub", "draining", "sweeper", "outbox", "audit", "drains", "verifier", "parity"} | {
    "alerts",
    "attendance",
    "tally",
    "letters",
    "history",
    "recovery",
    "nudger",
    "readiness",
    "presence",
    "clock_watch",
    "watch",
    "last_drain",
    "rebuild",
    "live_sessions",
    "listing_upkeep",
    "batch",
}
EDGES = {"api", "ws", "tasks", "broker", "cli", "cli_audit", "cli_sessions", "__init__", "__main__"} | {
    # What a client of a WebSocket or a stream is served with.
    "admission", "connection", "hangups", "inbox", "outlet", "runner", "subscriptions", "sockets", "stream", "wire",
    # The web server itself.
    "worker", "inflow", "http1",
}  # fmt: skip
TOOLS = {"dev", "processes", "servers"}
BELOW = {
    **dict.fromkeys(LEAVES, LEAVES),
    **dict.fromkeys(STORES, LEAVES | STORES),
    **dict.fromkeys(SERVICES, LEAVES | STORES),
    **dict.fromkeys(EDGES, LEAVES | STORES | SERVICES | EDGES),
    **dict.fromkeys(TOOLS, LEAVES | STORES | TOOLS),
    # A service made of others: the only ones that know them.
    "sessions": LEAVES | STORES | {"calls"},
    "sweeper": LEAVES | STORES | {"sessions", "rebuild", "listing_upkeep"},
    "rebuild": LEAVES | STORES | {"sessions"},
    "live_sessions": LEAVES | STORES | {"sessions"},
    "listing_upkeep": LEAVES | STORES | {"sessions", "rebuild"},
    "hub": LEAVES | STORES | {"attendance"},
    "drains": LEAVES | STORES | {"outbox", "audit"},
    "letters": LEAVES | STORES | {"audit"},
    "clock_watch": LEAVES | STORES | {"presence"},
    "tally": LEAVES | STORES | {"outbox"},
    "watch": LEAVES | STORES | {"outbox"},
    "recovery": LEAVES | STORES | {"sessions", "history", "outbox"},
}
FRAMEWORKS = {"flask", "flask_sock", "simple_websocket", "huey", "werkzeug", "gunicorn"}


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_down(path: Path) -> None:
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("syncapp.")}
    ours = {name for name in ours if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}
    assert ours - {place(path)} <= BELOW[place(path)]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_frameworks_stay_at_the_edges(path: Path) -> None:
    if place(path) not in EDGES:
        assert not {name.split(".")[0] for name in imported(path)} & FRAMEWORKS


@pytest.mark.parametrize(
    ("pattern", "only"),
    [
        (r"\bos\.(environ|getenv)\b", {"config", "metrics", "dev", "processes", "servers"}),
        (r"\"sync:|'sync:|\bf\"\{[^}]*\}session:", {"keys"}),
        (r"\b(Counter|Gauge|Histogram)\(\s*\"", {"metrics"}),
    ],
)
def test_some_things_are_done_in_one_module_only(pattern: str, only: set[str]) -> None:
    users = {place(path) for path in MODULES if re.search(pattern, path.read_text())}
    assert users <= only


def test_a_store_can_be_used_without_flask() -> None:
    import subprocess
    import sys

    code = "import sys, syncapp.sessions; sys.exit('flask' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
