"""An empty database, and a role with few rights on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from syncapp.postgres.schema import upgrade
from tests.support.postgres_roles import empty_database, limited_role


@pytest.fixture
def empty_url(database_url: str) -> Iterator[str]:
    """Where a database without any table is."""
    with empty_database(database_url) as url:
        yield url


@pytest.fixture
def guest(empty_url: str) -> Iterator[str]:
    """Where a role that has no rights yet meets the database of `empty_url`, which is migrated."""
    upgrade(empty_url)
    with limited_role(empty_url) as url:
        yield url
