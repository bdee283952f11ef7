"""Instants as text and as numbers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncapp.domain.instants import iso, ms_of

LAST_MS = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * 1000


@given(st.integers(0, LAST_MS))
def test_a_number_is_the_same_after_a_round_trip(ms: int) -> None:
    assert ms_of(iso(ms)) == ms


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (4_102_488_000_001, "2100-01-01T12:00:00.001Z"), (None, None)],
)
def test_an_instant_in_both_forms(ms: int | None, text: str | None) -> None:
    assert iso(ms) == text
    assert ms_of(text) == ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [("1970-01-01T00:00:00.001999Z", 1), ("1970-01-01T02:00:00+02:00", 0), ("1970-01-01T00:00:01Z", 1000)],
)
def test_other_forms_are_read_and_rounded_down(text: str, ms: int) -> None:
    assert ms_of(text) == ms
