"""A running session, and tests that run with and without the short way to the hot routes."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from syncapp.api.front import Front
from tests.support.rest import CHESS


@pytest.fixture
def url(client: FlaskClient) -> str:
    """A running session's path."""
    made = client.post("/v1/sessions", json=CHESS)
    client.post(f"{made.headers['Location']}/start")
    return made.headers["Location"]


@pytest.fixture(params=["front", "flask"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test twice: as it is, and with Flask alone."""
    if request.param == "flask":
        monkeypatch.setattr(Front, "__call__", lambda self, environ, start: self._next(environ, start))
