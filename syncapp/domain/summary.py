"""Summaries of sessions, for lists: their size does not depend on the number of participants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import orjson
from msgspec import Struct

from syncapp.domain.control_clock import CLOCK_WIDTH, RunningControl, read_clocks
from syncapp.domain.control_text import read_control
from syncapp.domain.instants import iso
from syncapp.domain.running_clock import clock_of
from syncapp.domain.session_ids import public_id
from syncapp.domain.session_layout import SCALARS, split_tags, values_of


class Summary(Struct, frozen=True):
    """A session without its participants; instants are in ms.

    remaining_ms: the settled remaining time of the budget that runs or would run; None if nothing runs out. control:
    that clock, if it has a time control.
    """

    session_id: str
    sync_mode: str
    status: str
    epoch: int
    version: int
    participant_count: int
    active_participant_id: str | None
    cycle_count: int
    on_timeout: str
    time_used_ms: int | None
    remaining_ms: int | None
    cycle_started_ms: int | None
    session_started_ms: int | None
    session_completed_ms: int | None
    created_ms: int
    updated_ms: int
    metadata: Mapping[str, Any]
    completion: Mapping[str, Any] | None
    control: RunningControl | None = None

    @classmethod
    def from_reply(cls, session_id: str, reply: Sequence[str]) -> Self:
        """Parse what lua/summarize_session.lua returns in place of a state."""
        scalars, metadata, tags, active_id, remaining, clock = reply
        raw = dict(zip(SCALARS, values_of([scalars]), strict=True))
        numbers = {name: int(raw[name]) if raw[name] else None for name in raw if name.endswith("_ms")}
        completion = split_tags(tags)[1]
        return cls(
            session_id=session_id,
            sync_mode=raw["sync_mode"],
            status=raw["status"],
            epoch=int(raw["epoch"]),
            version=int(raw["version"]),
            participant_count=int(raw["participant_count"]),
            active_participant_id=active_id or None,
            cycle_count=int(raw["cycle_count"]),
            on_timeout=raw["on_timeout"],
            time_used_ms=numbers["time_used_ms"],
            remaining_ms=int(remaining) if remaining else None,
            cycle_started_ms=numbers["cycle_started_ms"],
            session_started_ms=numbers["session_started_ms"],
            session_completed_ms=numbers["session_completed_ms"],
            created_ms=int(raw["created_ms"]),
            updated_ms=int(raw["updated_ms"]),
            metadata=orjson.loads(metadata),
            completion=orjson.loads(completion) if completion else None,
            control=_control_of(clock, int(remaining), raw) if clock else None,
        )

    def document(self, now_ms: int) -> dict[str, Any]:
        """Return the document for clients, with the clock at `now_ms` (server time)."""
        document: dict[str, Any] = {
            "session_id": public_id(self.session_id),
            "sync_mode": self.sync_mode,
            "status": self.status,
            "epoch": self.epoch,
            "version": self.version,
            "participant_count": self.participant_count,
            "active_participant_id": self.active_participant_id,
            "cycle_count": self.cycle_count,
            "session_started_at": iso(self.session_started_ms),
            "session_completed_at": iso(self.session_completed_ms),
            "created_at": iso(self.created_ms),
            "updated_at": iso(self.updated_ms),
            "metadata": self.metadata,
            "clock": clock_of(
                self, self.remaining_ms, overtime=self.on_timeout == "notify", now_ms=now_ms, control=self.control
            ),
        }
        return document | ({"completion": self.completion} if self.completion else {})


def _control_of(clock: str, main_ms: int, raw: Mapping[str, str]) -> RunningControl:
    """Return the clock in a reply: its record, whether it has run out, and its control."""
    return RunningControl(
        control=read_control(clock[CLOCK_WIDTH + 1 :]),
        clock=read_clocks(clock[:CLOCK_WIDTH])[0],
        main_ms=main_ms,
        has_expired=clock[CLOCK_WIDTH] == "1",
        started_ms=int(raw["cycle_started_ms"]) if raw["status"] == "running" else None,
        overtime=raw["on_timeout"] == "notify",
    )


def status_of(scalars: str) -> tuple[str, str, int | None]:
    """Return status, mode, and the instant (ms) at which the session changes next by itself, from its scalars."""
    raw = dict(zip(SCALARS, values_of([scalars]), strict=True))
    return raw["status"], raw["sync_mode"], int(raw["look_ms"]) if raw["look_ms"] else None
