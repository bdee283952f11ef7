"""A session as a value: read from a script's reply, folded forward by patches, shown as JSON.

Instants in here are milliseconds since the Unix epoch; only `Session.state` and `public_patch`
turn them into ISO 8601 (fields ending in `_at`). Nothing in here reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from typing import Any

import orjson

# The order of lua/_session.lua's SCALARS; a contract test compares the two.
SCALARS = (
    "epoch",
    "version",
    "status",
    "sync_mode",
    "participant_count",
    "increment_ms",
    "on_timeout",
    "idle_timeout_ms",
    "turn",
    "cycle_count",
    "cycle_started_ms",
    "session_started_ms",
    "session_completed_ms",
    "created_ms",
    "updated_ms",
    "idle_ms",
    "metadata_version",
)
# The places after the scalars and the metadata in a state reply.
DEFINITION = len(SCALARS) + 1
TAGS = DEFINITION + 1
BLOCKS = TAGS + 1
RECORD_WIDTH = 32
LIVE = frozenset({"pending", "running", "paused"})
TERMINAL = frozenset({"completed", "expired", "cancelled"})
_INSTANTS = ("cycle_started", "session_started", "session_completed", "updated")


def iso(ms: int | None) -> str | None:
    """Return an instant as ISO 8601 UTC with milliseconds and `Z`."""
    if ms is None:
        return None
    whole = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def public_patch(patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a commit's patch under the names of the state: `updated_ms` becomes `updated_at`, ISO 8601."""
    shown = dict(patch)
    for name in _INSTANTS:
        if f"{name}_ms" in shown:
            shown[f"{name}_at"] = iso(shown.pop(f"{name}_ms"))
    return shown


@dataclass(frozen=True)
class Definition:
    """What a session is made with and never changes within its epoch."""

    participant_ids: tuple[str, ...]
    budgets_ms: tuple[int, ...]
    total_time_ms: int | None
    time_per_cycle_ms: int | None
    action_on_timeout: Mapping[str, Any]

    @cached_property
    def index(self) -> dict[str, int]:
        """Place in the rotation by participant id."""
        return {name: place for place, name in enumerate(self.participant_ids)}

    @classmethod
    def from_json(cls, text: str | bytes) -> Definition:
        """Read the text that `to_json` made."""
        raw = orjson.loads(text)
        return cls(
            participant_ids=tuple(raw["participant_ids"]),
            budgets_ms=tuple(raw["budgets_ms"]),
            total_time_ms=raw["total_time_ms"],
            time_per_cycle_ms=raw["time_per_cycle_ms"],
            action_on_timeout=raw["action_on_timeout"],
        )

    def to_json(self) -> bytes:
        """Return the text that a session's hash holds; no script reads it."""
        return orjson.dumps(
            {
                "participant_ids": self.participant_ids,
                "budgets_ms": self.budgets_ms,
                "total_time_ms": self.total_time_ms,
                "time_per_cycle_ms": self.time_per_cycle_ms,
                "action_on_timeout": self.action_on_timeout,
            }
        )


@dataclass(frozen=True, slots=True)
class Participant:
    """A participant's totals, settled: true as of the session's `cycle_started_ms`."""

    time_used_ms: int
    time_remaining_ms: int
    cycle_count: int
    has_expired: bool

    @classmethod
    def from_record(cls, record: str) -> Participant:
        """Read a fixed-width record of lua/_session.lua."""
        return cls(int(record[:11]), int(record[11:22]), int(record[22:31]), record[31] == "1")


def participants_of(block: str) -> tuple[Participant, ...]:
    """Read a block of records."""
    return tuple(Participant.from_record(block[at : at + RECORD_WIDTH]) for at in range(0, len(block), RECORD_WIDTH))


@dataclass(frozen=True, slots=True)
class Session:
    """A session at one (epoch, version)."""

    session_id: str
    epoch: int
    version: int
    status: str
    sync_mode: str
    increment_ms: int
    idle_timeout_ms: int
    turn: int | None
    cycle_count: int
    cycle_started_ms: int | None
    session_started_ms: int | None
    session_completed_ms: int | None
    created_ms: int
    updated_ms: int
    metadata_version: int
    metadata: Mapping[str, Any]
    participants: tuple[Participant, ...]
    definition: Definition

    @classmethod
    def from_reply(
        cls, session_id: str, values: Sequence[str], definition: Definition, participants: tuple[Participant, ...]
    ) -> Session:
        """Read the scalars and the metadata of a script's state reply."""
        raw = dict(zip(SCALARS, values, strict=False))
        return cls(
            session_id=session_id,
            epoch=int(raw["epoch"]),
            version=int(raw["version"]),
            status=raw["status"],
            sync_mode=raw["sync_mode"],
            increment_ms=int(raw["increment_ms"]),
            idle_timeout_ms=int(raw["idle_timeout_ms"]),
            turn=_int(raw["turn"]),
            cycle_count=int(raw["cycle_count"]),
            cycle_started_ms=_int(raw["cycle_started_ms"]),
            session_started_ms=_int(raw["session_started_ms"]),
            session_completed_ms=_int(raw["session_completed_ms"]),
            created_ms=int(raw["created_ms"]),
            updated_ms=int(raw["updated_ms"]),
            metadata_version=int(raw["metadata_version"]),
            metadata=orjson.loads(values[len(SCALARS)]),
            participants=participants,
            definition=definition,
        )

    @classmethod
    def from_snapshot(cls, session_id: str, values: Sequence[str]) -> Session:
        """Read the `snapshot` of a message, which carries its definition."""
        people = chain.from_iterable(map(participants_of, values[BLOCKS:]))
        return cls.from_reply(session_id, values, Definition.from_json(values[DEFINITION]), tuple(people))

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, version): later is newer."""
        return (self.epoch, self.version)

    @property
    def etag(self) -> str:
        """The entity tag of this version, quotes included."""
        return f'"{self.epoch}-{self.version}"'

    @property
    def active_participant_id(self) -> str | None:
        """The id of the active participant; None in pending and terminal sessions."""
        if self.turn is None or self.status not in ("running", "paused"):
            return None
        return self.definition.participant_ids[self.turn]

    def fold(self, patch: Mapping[str, Any]) -> Session:
        """Return the session after the commit that carried this patch, as a fresh read would."""
        changes: dict[str, Any] = {
            name: value for name, value in patch.items() if name not in ("active_participant_id", "participants")
        }
        if patch.get("active_participant_id") is not None:
            changes["turn"] = self.definition.index[patch["active_participant_id"]]
        if "metadata" in patch:
            changes["metadata_version"] = patch["version"]
        if "participants" in patch:
            people = list(self.participants)
            for name, new in patch["participants"].items():
                people[self.definition.index[name]] = Participant(
                    new["time_used_ms"], new["time_remaining_ms"], new["cycle_count"], new["has_expired"]
                )
            changes["participants"] = tuple(people)
        return replace(self, **changes)

    def clock(self, now_ms: int) -> dict[str, Any]:
        """Return the clock that runs, or would run, as it shows at `now_ms` (DESIGN §3)."""
        person = self.participants[self.turn or 0]
        running = self.status == "running"
        elapsed_ms = max(0, now_ms - self.cycle_started_ms) if running and self.cycle_started_ms is not None else 0
        deadline_ms = self.cycle_started_ms + person.time_remaining_ms if running and self.cycle_started_ms else None
        return {
            "scope": "participant",
            "direction": "down",
            "running": running,
            "remaining_ms": person.time_remaining_ms - elapsed_ms,
            "elapsed_ms": elapsed_ms,
            "deadline_ms": deadline_ms,
        }

    def state(self, now_ms: int) -> dict[str, Any]:
        """Return the state document of DESIGN §3, its clock computed for `now_ms` (server time)."""
        active = self.turn if self.status in ("running", "paused") else None
        definition = self.definition
        return {
            "session_id": self.session_id,
            "sync_mode": self.sync_mode,
            "status": self.status,
            "epoch": self.epoch,
            "version": self.version,
            "participants": [
                {
                    "participant_id": name,
                    "participant_index": place,
                    "total_time_ms": budget,
                    "time_used_ms": person.time_used_ms,
                    "time_remaining_ms": person.time_remaining_ms,
                    "cycle_count": person.cycle_count,
                    "is_active": place == active,
                    "has_expired": person.has_expired,
                }
                for place, (name, budget, person) in enumerate(
                    zip(definition.participant_ids, definition.budgets_ms, self.participants, strict=True)
                )
            ],
            "active_participant_id": self.active_participant_id,
            "cycle_count": self.cycle_count,
            "total_time_ms": definition.total_time_ms,
            "time_per_cycle_ms": definition.time_per_cycle_ms,
            "increment_ms": self.increment_ms,
            "cycle_started_at": iso(self.cycle_started_ms),
            "session_started_at": iso(self.session_started_ms),
            "session_completed_at": iso(self.session_completed_ms),
            "created_at": iso(self.created_ms),
            "updated_at": iso(self.updated_ms),
            "action_on_timeout": definition.action_on_timeout,
            "metadata": self.metadata,
            "server_time_ms": now_ms,
            "clock": self.clock(now_ms),
        }


def _int(text: str) -> int | None:
    return int(text) if text else None
