"""Limits of the contents of a session. Plain numbers, so that settings can be loaded without the models."""

from __future__ import annotations

MAX_PARTICIPANTS = 1000
MAX_TAKEBACK_CYCLES = 100
MAX_METADATA_BYTES = 16_384
MAX_ACTION_BYTES = 4096
MAX_RESULT_BYTES = 1024
MAX_IDLE_TIMEOUT_S = 2_592_000
"""30 days."""
