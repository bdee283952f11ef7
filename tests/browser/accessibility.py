"""What axe-core finds wrong with a page."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


def violations(page: Page) -> list[str]:
    """Return a line for each violation in what the page shows now: the rule, what is wrong, and the elements."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['help']}: {', '.join(' '.join(node['target']) for node in each['nodes'])}"
        for each in found
    ]
