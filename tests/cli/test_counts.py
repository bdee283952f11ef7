"""Counts in what commands print."""

from __future__ import annotations

import pytest

from syncapp.cli.counts import counted


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 dead letters"), (1, "1 dead letter"), (2, "2 dead letters"), (11, "11 dead letters")]
)
def test_one_is_singular_and_all_else_plural(count: int, text: str) -> None:
    assert counted(count, "dead letter") == text
