"""The JavaScript client in a page: opens a session as `window.game`, and notes what it says."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

from tests.support.web_clients import wait_until

_OPEN = """async ([sdk, base, id, options]) => {
  const client = await import(sdk);
  window.client = client;
  window.changes = [];
  window.statuses = [];
  if (options.tokens) {
    const {tokens} = options;
    window.asked = [];
    options.token = ({refused}) => { asked.push(refused); return tokens.length ? tokens.shift() : null; };
    delete options.tokens;
  }
  window.game = client.open(base, id, options);
  game.on("change", ({state, event, skipped}) => changes.push([state.version, event?.type ?? null, skipped]));
  game.on("status", ({status, reason}) => statuses.push([status, reason?.code ?? null, reason?.final ?? null]));
}"""


def open_session(page: Page, base: str, session_id: str, *, page_url: str = "", sdk: str = "", **options: Any) -> None:
    """Load an empty page (by default of the service) and open a session there, without waiting.

    `tokens`: what the page's token function returns, one after the other.
    """
    page.context.route("**/favicon.ico", lambda route: route.fulfill(status=204))  # browsers ask for it
    if page.url == "about:blank" or page_url:
        page.goto(page_url or f"{base}/health")
    page.evaluate(_OPEN, [sdk or f"{base}/sdk/syncapp.js", base, session_id, options])


def is_live(page: Page) -> bool:
    """Whether the session is live."""
    return status(page) == "live"


def status(page: Page) -> str:
    """Return the session's status."""
    text: str = page.evaluate("game.status")
    return text


def live(page: Page) -> None:
    """Wait until the session is live."""
    wait_until(lambda: is_live(page))


def closed(page: Page) -> dict[str, Any]:
    """Wait until the session is closed, and return why."""
    wait_until(lambda: status(page) == "closed")
    reason: dict[str, Any] = page.evaluate("game.reason")
    return reason


def version(page: Page) -> int | None:
    """Return the version that the page has."""
    number: int | None = page.evaluate("game.state?.version ?? null")
    return number


def reached(page: Page, number: int) -> None:
    """Wait until the page has a version."""
    wait_until(lambda: version(page) == number)


def changes(page: Page) -> list[list[Any]]:
    """Return version, event type and number of skipped versions of each change that the page has seen."""
    seen: list[list[Any]] = page.evaluate("changes")
    return seen


def command(page: Page, name: str, **fields: Any) -> dict[str, Any]:
    """Send a command, and return what it has done, or the error's code and whether its outcome is unknown."""
    answer: dict[str, Any] = page.evaluate(
        "([name, fields]) => game.command(name, fields).catch(({code, outcomeUnknown}) => ({code, outcomeUnknown}))",
        [name, fields],
    )
    return answer
