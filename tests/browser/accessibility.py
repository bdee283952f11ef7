"""What axe-core finds wrong with a page."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_STEADY = """() => Promise.allSettled(
  document.getAnimations().filter((each) => each.effect.getComputedTiming().endTime < Infinity)
    .map((each) => each.finished))"""


def violations(page: Page) -> list[str]:
    """Return a line for each violation in what the page shows: the rule, what is wrong, and the elements.

    Waits for animations and transitions: the contrast of colours on their way says nothing.
    """
    page.evaluate(_STEADY)
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['help']}: {', '.join(' '.join(node['target']) for node in each['nodes'])}"
        for each in found
    ]
