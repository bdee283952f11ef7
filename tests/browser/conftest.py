"""A real browser, and a page of another origin than the service's.

Chromium comes from the system (Debian: `apt-get install chromium`); Playwright only drives it. Without it
the tests are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.tabs import Tabs
from tests.support.chromium import CHROMIUM, OPTIONS
from tests.support.cluster import Cluster, MakeCluster
from tests.support.other_site import Site
from tests.support.tokens import SECRET, bearer
from tests.support.types import Redis
from tests.support.web_clients import RestClient

expect.set_options(timeout=60_000)  # for busy machines, also where a test gives no limit


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ONE_CASE=1, run the first case only of each test that has several; CI does, which has little time."""
    if not os.environ.get("ONE_CASE"):
        return
    seen: set[str] = set()
    left_out = []
    for item in list(items):
        name = item.nodeid.partition("[")[0]
        if name in seen and name.startswith("tests/browser/"):
            left_out.append(item)
            items.remove(item)
        seen.add(name)
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here; on Debian or Ubuntu: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A tab with empty caches and storage; a failure shows its console."""
    context = browser.new_context()
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"uncaught: {error}"))
    request.node.said = said
    yield page
    context.close()


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """One web process with `AUTH=off`, on an empty Redis. Modules that need other settings have their own."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    # Some pages act as fast as they can, which on a fast machine is more than clients may.
    return make_cluster(web=1, worker=False, ALLOWED_ORIGINS="", WS_MESSAGES_PER_S="10000", WS_MESSAGES_BURST="10000")


@pytest.fixture(scope="module")
def guarded(make_cluster: MakeCluster) -> RestClient:
    """A client with every right, of one web process that requires tokens."""
    cluster = make_cluster(web=1, worker=False, ALLOWED_ORIGINS="", AUTH="required", AUTH_SECRETS=SECRET)
    return RestClient(cluster.urls[0], bearer())


@pytest.fixture
def api(web: Cluster) -> RestClient:
    """A client of that process, which needs no token."""
    return RestClient(web.urls[0])


@pytest.fixture
def tabs(browser: Browser) -> Iterator[Tabs]:
    """Opens tabs of several people; none of their pages may complain."""
    tabs = Tabs(browser)
    yield tabs
    tabs.close()


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A site of another origin than the service's."""
    with Site() as site:
        yield site


@pytest.fixture
def foreign(page: Page, site: Site) -> Page:
    """The tab, showing an empty page of that site."""
    page.goto(site.url)
    return page


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure what the page's console has said."""
    report = yield
    if report.failed and (said := getattr(item, "said", None)):
        report.sections.append(("console of the page", "\n".join(said)))
    return report
