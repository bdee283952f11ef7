"""Tabs of several people, each in a browser context of its own."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.browser_policy import complaints_of

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


class Tabs:
    """The tabs of one test."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.complaints: list[list[str]] = []

    def open(self, url: str, **options: Any) -> Page:
        """Open a page for another person; `options` are those of a browser context."""
        self._contexts.append(self._browser.new_context(**options))
        page = self._contexts[-1].new_page()
        self.complaints.append(complaints_of(page))
        page.goto(url)
        return page

    def close(self) -> None:
        """Close all tabs. None may have reported an error, or broken the pages' Content-Security-Policy."""
        for context in self._contexts:
            context.close()
        assert [each for each in self.complaints if each] == []
