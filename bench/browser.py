"""How the JavaScript client does in a real browser: `python -m bench.browser` (needs `chromium`; about 4 minutes).

Prints the error of the clock that it shows, behind a network with jitter; how long it takes to be live again after each
fault; and how many bytes a move costs with patches and with whole states.
"""

from __future__ import annotations

import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import requests
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from bench.rig import Rig
from syncapp.dev.processes import end_leftovers
from syncapp.dev.runner import Web
from tests.support.tcp_proxy import TcpProxy

ROUNDS, SAMPLES = 10, 50
_OPEN = """async ([base, id, options]) => {
  window.client ??= await import("/sdk/syncapp.js");
  window.game?.close();
  window.game = await client.connect(base, id, options ?? {});
}"""
# This machine's clock is the store's, so the page can see how wrong its estimate is.
_ERRORS = """(count) => new Promise((done) => {
  const errors = [];
  const sample = () => {
    errors.push(game.clock.now() - (performance.timeOrigin + performance.now()) - skew);
    if (errors.length < count) setTimeout(sample, 10); else done(errors);
  };
  sample();
})"""
_SKEW = """() => { window.skew = 0; const all = [];
  for (let i = 0; i < 2000; i++) all.push(Date.now() - performance.timeOrigin - performance.now());
  window.skew = Math.max(...all); }"""
# Waits for the loss and then for the recovery, and returns the ms between `since` (or the loss) and the recovery.
_RECOVERY = """() => new Promise((done) => {
  const lost = performance.now();
  const off = game.on("status", ({status}) => { if (status === "live") { off(); done(performance.now() - lost); } });
})"""


class Table:
    """Prints rows of a name and ms, with median, p95 and worst."""

    def __init__(self, title: str) -> None:
        print(f"\n{title}\n{'':44}{'n':>6}{'median':>10}{'p95':>10}{'worst':>10}", flush=True)

    def row(self, name: str, found: list[float]) -> None:
        """Print the figures of one row."""
        ordered = sorted(found)
        p95 = ordered[int(0.95 * (len(ordered) - 1))]
        print(f"{name:44}{len(found):6}{statistics.median(found):10.2f}{p95:10.2f}{ordered[-1]:10.2f}", flush=True)


def game(url: str) -> str:
    """Create and start a game; return its id."""
    people = [{"participant_id": name, "total_time_ms": 3_600_000} for name in ("white", "black")]
    made = requests.post(
        f"{url}/v1/sessions", json={"sync_mode": "per_participant", "participants": people}, timeout=30
    )
    session_id: str = made.json()["data"]["session_id"]
    requests.post(f"{url}/v1/sessions/{session_id}/start", timeout=30)
    return session_id


def errors(page: Page, web: Web) -> None:
    """Measure how far the shown clock is from the server's, behind networks of several kinds."""
    table = Table("Error of what a clock shows, in ms; half of the spread of the round trips is the bound, ± 1 ms")
    for name, least, most in (
        ("loopback", 0.0, 0.0),
        ("5 to 25 ms each way", 0.005, 0.025),
        ("150 to 350 ms each way", 0.15, 0.35),
    ):
        with TcpProxy(web.port, random.Random(1)) as proxy:
            proxy.delay(least, most)
            found: list[float] = []
            spreads: list[float] = []
            for _ in range(20):
                page.evaluate(_OPEN, [f"http://127.0.0.1:{proxy.port}", game(web.url), {"shareTabs": False}])
                page.wait_for_function("game.clock.stats().samples >= 5", timeout=60_000)
                page.evaluate(_SKEW)
                found += map(abs, page.evaluate(_ERRORS, SAMPLES))
                spreads.append(page.evaluate("game.clock.stats().spreadMs"))
            table.row(f"{name}: error", found)
            table.row(f"{name}: half of the spread", spreads)


def recovery(
    page: Page, web: Web, name: str, table: Table, fault: Callable[[TcpProxy], None], **options: object
) -> None:
    """Measure the time from a fault to the live session."""
    found = []
    for number in range(ROUNDS):
        with TcpProxy(web.port, random.Random(number)) as proxy:
            page.evaluate(_OPEN, [f"http://127.0.0.1:{proxy.port}", game(web.url), {"shareTabs": False} | options])
            page.wait_for_timeout(300)
            page.evaluate(f"() => {{ window.recovered = ({_RECOVERY})(); }}")
            fault(proxy)
            found.append(page.evaluate("recovered"))
    table.row(name, found)


def blocked(page: Page, web: Web, table: Table) -> None:
    """Measure how long a page takes to be live where no WebSocket gets through."""
    found = []
    for number in range(ROUNDS):
        with TcpProxy(web.port, random.Random(number)) as proxy:
            proxy.refuse(b"GET /ws")
            session_id = game(web.url)
            began = time.perf_counter()
            page.evaluate(_OPEN, [f"http://127.0.0.1:{proxy.port}", session_id, {"shareTabs": False}])
            found.append((time.perf_counter() - began) * 1000)
    table.row("no WebSocket gets through: live by a stream", found)


def killed(page: Page, rig: Rig, table: Table) -> None:
    """Measure the time from the end of a process by SIGKILL to the live session on another one."""
    found = []
    for number in range(ROUNDS):
        with (
            rig.web(ALLOWED_ORIGINS="*") as first,
            rig.web(ALLOWED_ORIGINS="*") as second,
            TcpProxy(first.port, random.Random(number)) as proxy,
        ):
            page.evaluate(_OPEN, [f"http://127.0.0.1:{proxy.port}", game(first.url), {"shareTabs": False}])
            page.evaluate(f"() => {{ window.recovered = ({_RECOVERY})(); }}")
            proxy.retarget(second.port)
            first.kill()
            found.append(page.evaluate("recovered"))
    table.row("web process killed, another one runs", found)


def tabs(context: BrowserContext, web: Web, table: Table) -> None:
    """Measure how long a tab waits for a change after the tab with the connection was closed, or stands still."""
    for name, freezes in (("tab with the connection closed", False), ("tab with the connection frozen", True)):
        found = []
        for _ in range(ROUNDS):
            session_id = game(web.url)
            leader, other = context.new_page(), context.new_page()
            for page in (leader, other):
                page.goto(f"{web.url}/health")
                page.evaluate(_OPEN, [web.url, session_id, {}])
            began = time.perf_counter()
            if freezes:
                session = context.new_cdp_session(leader)
                session.send("Debugger.enable")
                session.send("Debugger.pause")
            else:
                leader.close()
            requests.post(f"{web.url}/v1/sessions/{session_id}/switch", timeout=30)
            other.wait_for_function("game.state.version === 3 && game.status === 'live'", timeout=60_000, polling=10)
            found.append((time.perf_counter() - began) * 1000)
            other.close()
            if freezes:
                session.send("Debugger.resume")
                leader.close()
        table.row(name, found)


def bytes_of_a_move(context: BrowserContext, web: Web) -> None:
    """Count the bytes of the frames that tell of a move."""
    print("\nBytes of the message that tells of a move")
    for count in (2, 10, 100):
        people = [{"participant_id": f"player-{number}", "total_time_ms": 3_600_000} for number in range(count)]
        body = {"sync_mode": "per_participant", "participants": people}
        made = requests.post(f"{web.url}/v1/sessions", json=body, timeout=30).json()["data"]["session_id"]
        requests.post(f"{web.url}/v1/sessions/{made}/start", timeout=30)
        sizes = {}
        for kind in ("patch", "state"):
            page = context.new_page()
            page.goto(f"{web.url}/health")
            sizes[kind] = page.evaluate(
                """([url, id, switched]) => new Promise((done) => {
                  const socket = new WebSocket(url);
                  socket.onmessage = ({data}) => {
                    const {type} = JSON.parse(data);
                    if (type === "STATE_SYNC") fetch(switched, {method: "POST"});
                    if (type === "STATE_PATCH" || type === "STATE_UPDATE") { socket.close(); done(data.length); }
                  };
                })""",
                [f"ws{web.url[4:]}/ws?sessionId={made}&format={kind}", made, f"{web.url}/v1/sessions/{made}/switch"],
            )
            page.close()
        print(
            f"  {count:3} participants: {sizes['patch']} with patches, {sizes['state']} with whole states", flush=True
        )


def measure(rig: Rig, browser: Browser) -> None:
    """Run everything."""
    with browser.new_context() as context, rig.web(ALLOWED_ORIGINS="*") as web:
        page = context.new_page()
        page.goto(f"{web.url}/health")
        errors(page, web)
        table = Table("From a fault to the live session, in ms")
        recovery(page, web, "connection cut", table, lambda proxy: (proxy.cut(1), None)[1])
        recovery(page, web, "reply of a server lost, connection cut", table, lambda proxy: proxy.drop_replies(0.2))

        def silent(proxy: TcpProxy) -> None:
            proxy.silence(on=True)
            page.wait_for_function("game.status === 'stale'", timeout=60_000, polling=10)
            proxy.silence(on=False)

        recovery(page, web, "network silent until it is noticed (PING)", table, silent)
        recovery(
            page,
            web,
            "stream cut, without WebSockets",
            table,
            lambda proxy: (proxy.cut(1), None)[1],
            transports=["sse"],
        )
        blocked(page, web, table)
        tabs(context, web, table)
        killed(page, rig, table)
        bytes_of_a_move(context, web)


def main() -> int:
    """Start private servers and a browser, and measure."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("chromium is not installed", file=sys.stderr)
        return 1
    directory = Path(tempfile.mkdtemp(prefix="syncapp-bench-"))
    try:
        with Rig(directory) as rig, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            measure(rig, browser)
            browser.close()
    finally:
        end_leftovers(directory)
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
