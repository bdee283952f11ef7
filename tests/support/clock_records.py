"""The parts of a session in the clock's model: budgets, participants, what is due, and errors."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

LIVE = ("pending", "running", "paused")
WARNING, TIMEOUT, IDLE = range(3)
SHARED = "*"
"""Whose budget it is when it is everybody's: no id may be spelt so."""
SCOPES = {"per_participant": "participant", "per_cycle": "cycle", "per_group": "group"}
TIMEOUT_EVENTS = {
    "per_participant": "participant_expired",
    "per_group": "group_expired",
    "per_cycle": "cycle_timed_out",
    "global": "session_expired",
    "count_up": "session_expired",
}


class Refused(Exception):
    """A refused command, which changes nothing; `word` is the reason."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


@dataclass
class Budget:
    """Time of one clock, in ms; `remaining` and `used` are as of the start of the run, or of its end."""

    granted: int
    remaining: int
    used: int = 0
    has_expired: bool = False


@dataclass
class Person:
    """A participant; `granted` is None if it has no budget of its own."""

    granted: int | None
    group_id: str | None
    used: int = 0
    cycle_count: int = 0


@dataclass(order=True)
class Due:
    """Something that a session must do without a command; the smallest comes first."""

    at_ms: int
    kind: int
    above: int = 0
    threshold_ms: int = 0


def body_people(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the participants of a create request."""
    people: list[dict[str, Any]] = body.get("participants") or []
    return people


def body_groups(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the groups of a create request: the given ones, or else those that the participants name, in order."""
    given: list[dict[str, Any]] = body.get("groups") or []
    return given or [{"group_id": name} for name in dict.fromkeys(p["group_id"] for p in body_people(body))]


def after(ring: list[str], name: str) -> list[str]:
    """Return a rotation of the list in which `name` is last."""
    place = ring.index(name) + 1
    return ring[place:] + ring[:place]


def iso(ms: int | None) -> str | None:
    """Return an instant in ISO 8601, as in the state document."""
    if ms is None:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
