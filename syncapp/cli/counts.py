"""Counts in what commands print."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one: `1 event`, `0 events`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def were(count: int) -> str:
    """Return the verb for a count."""
    return "was" if count == 1 else "were"
