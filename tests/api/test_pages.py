"""Pages have headers that protect them, and no inline code; every response forbids guessing its type."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from flask.testing import FlaskClient

from syncapp.api.pages import SESSION_PAGES
from syncapp.domain.link_schemas import LinkPage

API_DOCS = ["/api-docs", "/api-docs/", "/api-docs/index.html", "/api-docs/oauth2-redirect.html"]
OF_SESSIONS = [f"/{name}/3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10" for name in SESSION_PAGES]
PAGES = [*API_DOCS, "/", "/console", "/watch", "/watch/", *OF_SESSIONS, "/play/no-uuid"]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_allows_only_files_of_its_own_host_and_no_frames(client: FlaskClient, path: str) -> None:
    with client.get(path) as page:
        headers = page.headers
    rules = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert not re.search("unsafe|https?:|[*]", headers["Content-Security-Policy"])
    assert (headers["X-Frame-Options"], headers["Referrer-Policy"]) == ("DENY", "no-referrer")
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_inline_code(client: FlaskClient, path: str) -> None:
    with client.get(path) as page:
        text = page.get_data(as_text=True)
    assert re.search(r"<script src=", text)
    assert not re.search(r"(?:src|href)=.(?:https?:)?//", text)
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", text)


def test_a_link_can_open_each_page_that_shows_a_session() -> None:
    assert set(get_args(LinkPage)) == {"watch", *SESSION_PAGES}


@pytest.mark.parametrize("path", ["/", "/console", "/watch", *OF_SESSIONS])
def test_the_files_that_a_page_names_exist(client: FlaskClient, path: str) -> None:
    with client.get(path) as page:
        named = re.findall(r'(?:src|href)="(/pages/[^"]+)"', page.get_data(as_text=True))
    assert named
    for name in named:
        with client.get(name) as file:
            assert file.status_code == 200, name


def test_every_response_forbids_guessing_its_type(client: FlaskClient) -> None:
    files = ["/api-docs/swagger-ui.css", "/pages/api-docs.js"]
    for path in [*PAGES, *files, "/v1/sessions", "/nothing", "/ws", "/health"]:
        with client.get(path) as answer:
            assert answer.headers.getlist("X-Content-Type-Options") == ["nosniff"], path


def test_responses_that_are_no_pages_have_no_headers_of_pages(client: FlaskClient) -> None:
    for path in ("/v1/sessions", "/health", "/pages/api-docs.js", "/pages/nothing.js"):
        with client.get(path) as answer:
            assert "Content-Security-Policy" not in answer.headers, path


def test_files_of_pages_have_their_types_and_are_checked_again_before_each_use(client: FlaskClient) -> None:
    with client.get("/pages/api-docs.js") as script:
        assert script.status_code == 200
        # Python before 3.12 says `application`, unless the system has a list of types.
        assert script.mimetype in ("text/javascript", "application/javascript")
        assert script.headers["Cache-Control"] == "no-cache"
        tag = script.headers["ETag"]
    with client.get("/pages/api-docs.js", headers={"If-None-Match": tag}) as script:
        assert script.status_code == 304


@pytest.mark.parametrize("name", ["..", "..%2f__init__.py", "%2e%2e/__init__.py", "watch.html", "nothing"])
def test_only_files_of_pages_are_served(client: FlaskClient, name: str) -> None:
    assert client.get(f"/pages/{name}").status_code == 404
