"""Compares stored rows of the audit tables with the rows that their messages make."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Set
from datetime import datetime
from typing import Any

from syncapp.audit.event import Row

_SET_TOGETHER = [
    *map(frozenset, (["metadata", "metadata_version"], ["participant_count"], ["participant_index"])),
    *map(frozenset, (["created_at"], ["started_at"], ["completed_at"], ["deleted_at"], ["total_time_ms"])),
]
"""Columns of totals that only some commits set, grouped by the commits that set them."""


def first_difference(expected: Row, found: Row) -> str | None:
    """Return the name of the first column that differs, or None; an absent column is null."""
    return next((name for name in expected | found if not _is_same(expected.get(name), found.get(name))), None)


def first_unexplained(expected: Row, found: Row, branch_rows: Iterable[Row]) -> str | None:
    """Return the name of the first column of totals that differs, unless a fork of its epoch explains it.

    In a fork, both branches may have set a column that only some commits set; it keeps the value that was stored first.
    branch_rows: for each stored commit of the epoch, the columns that it sets; they are read only if they are needed.
    """
    differing = [
        names for names in _SET_TOGETHER if any(not _is_same(expected.get(name), found.get(name)) for name in names)
    ]
    explained: set[str] = set()
    for row in branch_rows if differing else ():
        for names in differing:
            if all(name in row and _is_same(row[name], found.get(name)) for name in names):
                explained |= names
    return first_difference(without(expected, explained), without(found, explained))


def as_stored(expected: Row, found: Row) -> Row:
    """Return the columns that a message makes, as an earlier release makes them if it stored the row.

    Such a release leaves the completion out of `snapshot` and `record`, and nothing else (docs/decisions.md).
    """
    whole = {name: expected[name] for name in ("snapshot", "record") if expected[name]}
    earlier = {name: without(columns, {"completion"}) for name, columns in whole.items()}
    return expected | earlier if earlier and earlier["snapshot"] == found.get("snapshot") else expected


def without(row: Row, names: Set[str]) -> Row:
    """Return a row without the named columns."""
    return {name: value for name, value in row.items() if name not in names}


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str) and one != other:
        with contextlib.suppress(ValueError):  # the same instant can be written in several ways
            return datetime.fromisoformat(one) == datetime.fromisoformat(other)
    return bool(one == other)
