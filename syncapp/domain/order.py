"""The order of a session's states: (epoch, version); a later one compares as greater."""

from __future__ import annotations

Order = tuple[int, int]
"""(epoch, version). Versions count an epoch's commits from 1; a session that is created again has a later epoch."""
NEVER: Order = (0, 0)
"""Comes before every state of every session."""
