"""A running session."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.support.rest import CHESS


@pytest.fixture
def url(client: FlaskClient) -> str:
    """A running session's path."""
    made = client.post("/v1/sessions", json=CHESS)
    client.post(f"{made.headers['Location']}/start")
    return made.headers["Location"]
