"""What a page has a screen reader say. The texts are gone again after some seconds, so they are written down."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.support.web_clients import wait_until

_WRITE_DOWN = """() => {
  window.heard = []
  new MutationObserver((changes) => {
    for (const {target, addedNodes} of changes) {
      if (!target.closest?.('[role=log], [role=alert]')) continue
      for (const {textContent} of addedNodes) window.heard.push(textContent)
    }
  }).observe(document.body, {subtree: true, childList: true})
}"""


def listen(page: Page) -> None:
    """Begin to write down what this page says, until it is reloaded."""
    page.evaluate(_WRITE_DOWN)


def wait_until_heard(page: Page, text: str) -> None:
    # Not `wait_for_function`: the pages' Content-Security-Policy forbids what it does when it looks again.
    wait_until(lambda: text in heard(page))


def heard(page: Page) -> list[str]:
    """Return what was said so far."""
    texts: list[str] = page.evaluate("window.heard")
    return texts
