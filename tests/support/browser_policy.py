"""What a browser says about a page's Content-Security-Policy, and about failures in its scripts."""

from __future__ import annotations

from playwright.sync_api import Page

_REPORT = """addEventListener('securitypolicyviolation', (event) => console.error(
  `violation: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));"""


def complaints_of(page: Page) -> list[str]:
    """Return a list that grows with each violation, error and uncaught exception of the pages that the tab shows."""
    found: list[str] = []
    page.add_init_script(_REPORT)
    page.on("console", lambda said: found.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: found.append(f"uncaught: {error}"))
    return found
