"""The order of a session's states: (epoch, version). A later state compares as greater."""

from __future__ import annotations

Order = tuple[int, int]
"""(epoch, version). Versions count the commits of an epoch from 1. A session created again has a later epoch."""
NEVER: Order = (0, 0)
"""Precedes every state of every session."""
