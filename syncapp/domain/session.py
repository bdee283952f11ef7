"""A session as a value: parsed from a script's reply, advanced by patches, and rendered as JSON.

Instants are milliseconds since the Unix epoch; only `Session.state` and `public_patch` convert them to ISO 8601 (fields
that end in `_at`). Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import replace

from syncapp.domain.control_clock import OwnerClock, RunningControl, patched_clocks, read_clocks
from syncapp.domain.definition import Definition, shown_control
from syncapp.domain.instants import iso
from syncapp.domain.modes import MODES
from syncapp.domain.records import Group, Participant, participants_of, split_blocks
from syncapp.domain.running_clock import clock_of
from syncapp.domain.session_ids import public_id
from syncapp.domain.session_layout import (
    BLOCKS,
    DEFINITION,
    SCALARS,
    TAGS,
    split_tags,
    values_of_snapshot,
)

LIVE = frozenset({"pending", "running", "paused"})
TERMINAL = frozenset({"completed", "expired", "cancelled"})


class Session(Struct, frozen=True, gc=False):
    """A session at one (epoch, version).

    clocks: with time controls, the clock of each participant, in `per_group` of each group; otherwise empty.
    idle_ms: the instant at which the session ends for being idle, None while idle time does not count. Watchers
    postpone it without a commit. completion: the reason and the result of the `complete` command, if given.
    """

    session_id: str
    epoch: int
    version: int
    status: str
    sync_mode: str
    increment_ms: int
    idle_timeout_ms: int
    idle_ms: int | None
    turn: int | None
    cycle_count: int
    time_used_ms: int | None
    time_remaining_ms: int | None
    cycle_started_ms: int | None
    session_started_ms: int | None
    session_completed_ms: int | None
    created_ms: int
    updated_ms: int
    metadata_version: int
    metadata: Mapping[str, Any]
    participants: tuple[Participant, ...]
    groups: tuple[Group, ...]
    definition: Definition
    completion: Mapping[str, Any] | None = None
    clocks: tuple[OwnerClock, ...] = ()

    @classmethod
    def from_reply(
        cls,
        session_id: str,
        values: Sequence[str],
        definition: Definition,
        records: Sequence[Participant],
        clocks: Sequence[OwnerClock],
    ) -> Session:
        """Parse a script's state reply; records: those of the participants, then those of the groups."""
        raw = dict(zip(SCALARS, values, strict=False))
        completion = split_tags(values[TAGS])[1]
        return cls(
            session_id=session_id,
            epoch=int(raw["epoch"]),
            version=int(raw["version"]),
            status=raw["status"],
            sync_mode=raw["sync_mode"],
            increment_ms=int(raw["increment_ms"]),
            idle_timeout_ms=int(raw["idle_timeout_ms"]),
            idle_ms=_int(raw["idle_ms"]) if raw["idling"] == "1" else None,
            turn=_int(raw["turn"]),
            cycle_count=int(raw["cycle_count"]),
            time_used_ms=_int(raw["time_used_ms"]),
            time_remaining_ms=_int(raw["time_remaining_ms"]),
            cycle_started_ms=_int(raw["cycle_started_ms"]),
            session_started_ms=_int(raw["session_started_ms"]),
            session_completed_ms=_int(raw["session_completed_ms"]),
            created_ms=int(raw["created_ms"]),
            updated_ms=int(raw["updated_ms"]),
            metadata_version=int(raw["metadata_version"]),
            metadata=orjson.loads(values[len(SCALARS)]),
            participants=tuple(records[: len(definition.participant_ids)]),
            groups=tuple(
                Group(record.time_used_ms, record.time_remaining_ms, record.has_expired)
                for record in records[len(definition.participant_ids) :]
            ),
            definition=definition,
            completion=orjson.loads(completion) if completion else None,
            clocks=tuple(clocks),
        )

    @classmethod
    def from_snapshot(cls, session_id: str, snapshot: Sequence[str]) -> Session:
        """Parse the `snapshot` of a message, which includes the definition."""
        values = values_of_snapshot(snapshot)
        definition = Definition.from_json(values[DEFINITION])
        records, clocks = split_blocks(definition, values[BLOCKS:])
        return cls.from_reply(
            session_id,
            values,
            definition,
            tuple(chain.from_iterable(map(participants_of, records))),
            tuple(chain.from_iterable(map(read_clocks, clocks))),
        )

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, version); newer states compare as greater."""
        return (self.epoch, self.version)

    @property
    def etag(self) -> str:
        """The entity tag of this version, quotes included."""
        return f'"{self.epoch}-{self.version}"'

    @property
    def active_participant_id(self) -> str | None:
        """The id of the active participant; None in pending and terminal sessions."""
        index = self.active_index
        return None if index is None else self.definition.participant_ids[index]

    @property
    def active_index(self) -> int | None:
        """The index of the active participant; None in pending and terminal sessions."""
        return self.turn if self.status in ("running", "paused") else None

    def fold(self, patch: Mapping[str, Any], idle_ms: int | None) -> Session:
        """Return the session after the commit with this patch, equal to what a read would return (`patch_of`)."""
        changes: dict[str, Any] = {
            name: value
            for name, value in patch.items()
            if name not in ("active_participant_id", "participants", "groups")
        }
        if patch.get("status", "completed") != "completed":  # reopened
            changes["completion"] = None
        if patch.get("active_participant_id") is not None:
            changes["turn"] = self.definition.index[patch["active_participant_id"]]
        if "metadata" in patch:
            changes["metadata_version"] = patch["version"]
        if "participants" in patch:
            participants = list(self.participants)
            for name, new in patch["participants"].items():
                participants[self.definition.index[name]] = Participant(
                    new["time_used_ms"], new["time_remaining_ms"] or 0, new["cycle_count"], new["has_expired"]
                )
            changes["participants"] = tuple(participants)
            changes["clocks"] = patched_clocks(self.clocks, self.definition.index, patch["participants"])
        if "groups" in patch:
            groups = list(self.groups)
            for name, new in patch["groups"].items():
                groups[self.definition.group_index[name]] = Group(
                    new["time_used_ms"], new["time_remaining_ms"], new["has_expired"]
                )
            changes["groups"] = tuple(groups)
            changes["clocks"] = patched_clocks(self.clocks, self.definition.group_index, patch["groups"])
        return replace(self, idle_ms=idle_ms, **changes)

    def clock(self, now_ms: int) -> dict[str, Any]:
        """Return the clock that runs, or would run, at `now_ms` (docs/protocol.md)."""
        overtime = self.definition.action_on_timeout["type"] == "notify"
        return clock_of(self, self.budget_ms(), overtime=overtime, now_ms=now_ms, control=self.running_control())

    def running_control(self) -> RunningControl | None:
        """Return the clock that runs or would run; None without time controls."""
        if not self.clocks:
            return None
        owners: Sequence[Participant | Group] = self.groups or self.participants
        index = self.definition.group_of[self.turn or 0] if self.groups else self.turn or 0
        return RunningControl(
            control=self.definition.controls[index],
            clock=self.clocks[index],
            main_ms=owners[index].time_remaining_ms,
            has_expired=owners[index].has_expired,
            started_ms=self.cycle_started_ms if self.status == "running" else None,
            overtime=self.definition.action_on_timeout["type"] == "notify",
        )

    def budget_ms(self) -> int | None:
        """Return the settled remaining time of the budget that runs or would run, in ms; None if nothing runs out."""
        traits = MODES[self.sync_mode]
        if traits.has_participant_budgets:
            return self.participants[self.turn or 0].time_remaining_ms
        if traits.has_group_budgets:
            return self.groups[self.definition.group_of[self.turn or 0]].time_remaining_ms
        return self.time_remaining_ms

    def state(self, now_ms: int) -> dict[str, Any]:
        """Return the state document with the clock at `now_ms` (server time)."""
        definition = self.definition
        document: dict[str, Any] = {
            "session_id": public_id(self.session_id),
            "sync_mode": self.sync_mode,
            "status": self.status,
            "epoch": self.epoch,
            "version": self.version,
            "participants": self._participants(),
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
            "idle_timeout_s": self.idle_timeout_ms // 1000,
            "idle_at": iso(self.idle_ms),
            "action_on_timeout": definition.action_on_timeout,
            "metadata": self.metadata,
            "server_time_ms": now_ms,
            "clock": self.clock(now_ms),
        }
        if self.groups:
            document["groups"] = [
                {"group_id": name, "total_time_ms": definition.group_budgets_ms[index]}
                | {field: getattr(group, field) for field in ("time_used_ms", "time_remaining_ms", "has_expired")}
                | (definition.clock_members(index, self.clocks[index]) if self.clocks else {})
                for index, (name, group) in enumerate(zip(definition.group_ids, self.groups, strict=True))
            ]
        if self.time_used_ms is not None:
            document |= {"time_used_ms": self.time_used_ms, "time_remaining_ms": self.time_remaining_ms}
        if self.completion:
            document["completion"] = self.completion
        if definition.control:
            document |= shown_control(definition.control)
        if self.clocks:
            rules = definition.session_rules
            document["warn_scope"] = "period" if rules.warns_in_periods else "main"
            if rules.lag_quota_ms:
                quota = {"per_move_ms": rules.lag_per_move_ms, "quota_ms": rules.lag_quota_ms}
                document["lag_compensation"] = quota
        for name in ("max_time_ms", "max_cycles", "warn_at_ms", "takeback_cycles"):
            if getattr(definition, name):
                document[name] = getattr(definition, name)
        return document

    def _participants(self) -> list[dict[str, Any]]:
        active = self.active_index
        definition = self.definition
        has_budgets = MODES[self.sync_mode].has_participant_budgets
        documents = []
        for index, (name, budget, participant) in enumerate(
            zip(definition.participant_ids, definition.budgets_ms, self.participants, strict=True)
        ):
            document = {
                "participant_id": name,
                "participant_index": index,
                "total_time_ms": budget,
                "time_used_ms": participant.time_used_ms,
                "time_remaining_ms": participant.time_remaining_ms if has_budgets else None,
                "cycle_count": participant.cycle_count,
                "is_active": index == active,
                "has_expired": participant.has_expired,
            }
            if definition.group_of:
                document["group_id"] = definition.group_ids[definition.group_of[index]]
            elif self.clocks:
                document |= definition.clock_members(index, self.clocks[index])
            documents.append(document)
        return documents


def _int(text: str) -> int | None:
    return int(text) if text else None
