"""What the client reads and gives. Documents are the API's JSON, with its names; times are in ms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

SessionStatus: TypeAlias = Literal["pending", "running", "paused", "completed", "expired", "cancelled"]
Phase: TypeAlias = Literal["delay", "main", "period", "block"]
Event: TypeAlias = dict[str, Any]
"""What happened at a version: `type`, `at_ms`, and the members that docs/protocol.md lists for each type."""


class Stage(TypedDict):
    """One stage of a time control."""

    time_ms: NotRequired[int]
    moves: NotRequired[int]
    repeat: NotRequired[bool]
    increment_ms: NotRequired[int]
    cap_ms: NotRequired[int]
    delay_ms: NotRequired[int]
    delay: NotRequired[Literal["simple", "bronstein"]]
    periods: NotRequired[int]
    period_ms: NotRequired[int]
    period_moves: NotRequired[int]
    per_move_ms: NotRequired[int]
    hourglass: NotRequired[bool]


class TimeControl(TypedDict):
    """All rules of one clock."""

    stages: list[Stage]
    first_bonus: Literal["after_move", "before_move"]
    margin_ms: int
    charge_unit_ms: int
    min_charge_ms: int


class Owner(TypedDict):
    """What participants and groups have in common. The last members come with time controls only."""

    total_time_ms: int | None
    time_used_ms: int
    time_remaining_ms: int | None
    has_expired: bool
    stage: NotRequired[int]
    moves_to_next_stage: NotRequired[int | None]
    periods_left: NotRequired[int | None]
    period_remaining_ms: NotRequired[int | None]
    block_moves_left: NotRequired[int | None]
    turn_ms: NotRequired[int]
    lag_left_ms: NotRequired[int]
    time_control: NotRequired[TimeControl]
    time_control_notation: NotRequired[str]


class Participant(Owner):
    """A participant of a session."""

    participant_id: str
    participant_index: int
    cycle_count: int
    is_active: bool
    group_id: NotRequired[str]


class Group(Owner):
    """A group of participants that share a clock."""

    group_id: str


class ClockState(TypedDict):
    """The clock that runs, or would run, as of the state's `server_time_ms`."""

    scope: Literal["participant", "group", "cycle", "session"]
    direction: Literal["down", "up"]
    running: bool
    remaining_ms: int | None
    elapsed_ms: int
    deadline_ms: int | None
    phase: NotRequired[Phase]
    phase_remaining_ms: NotRequired[int]
    next_at_ms: NotRequired[int | None]


class State(TypedDict):
    """A session at one version: the document that REST returns in `data`. Treat it as read-only."""

    session_id: str
    sync_mode: Literal["per_participant", "per_cycle", "per_group", "global", "count_up"]
    status: SessionStatus
    epoch: int
    version: int
    participants: list[Participant]
    groups: NotRequired[list[Group]]
    active_participant_id: str | None
    cycle_count: int
    total_time_ms: int | None
    time_per_cycle_ms: int | None
    increment_ms: int
    cycle_started_at: str | None
    session_started_at: str | None
    session_completed_at: str | None
    created_at: str
    updated_at: str
    idle_timeout_s: int
    idle_at: str | None
    action_on_timeout: dict[str, Any]
    metadata: dict[str, Any]
    server_time_ms: int
    clock: ClockState
    time_used_ms: NotRequired[int]
    time_remaining_ms: NotRequired[int | None]
    completion: NotRequired[dict[str, Any]]
    time_control: NotRequired[TimeControl]
    time_control_notation: NotRequired[str]
    warn_scope: NotRequired[Literal["main", "period"]]
    lag_compensation: NotRequired[dict[str, int]]
    max_time_ms: NotRequired[int]
    max_cycles: NotRequired[int]
    warn_at_ms: NotRequired[list[int]]
    takeback_cycles: NotRequired[int]


@dataclass(frozen=True)
class Change:
    """A version that arrived.

    event: what happened; None for the first state, and where versions were skipped. skipped: how many versions between
    the last change and this one were not seen; normally 0.
    """

    state: State
    event: Event | None
    skipped: int = 0


@dataclass(frozen=True)
class Done:
    """What a command has done.

    version, epoch: after the command; None after a delete. replayed: an earlier try had already taken effect. state:
    the session at this version or a later one; None after a delete.
    """

    version: int | None
    epoch: int | None
    replayed: bool
    state: State | None = None


@dataclass(frozen=True)
class Reading:
    """What one clock shows, in whole ms; below 0 only in overtime and within a margin.

    ms: the main time, or what is left of the period or block; None for an owner without a budget. running: its time is
    being used. phase: which part runs or would run. delay_ms: in a delay, what is left of it. periods_left: counting
    the running one; None without periods. block_moves_left: None without a block. used_ms: time used so far by the
    participant or group, or by the session if no owner was asked for.
    """

    ms: int | None
    running: bool
    phase: Phase
    delay_ms: int
    periods_left: int | None
    block_moves_left: int | None
    used_ms: int


Status: TypeAlias = Literal["connecting", "live", "stale", "closed"]
"""- `connecting`: there is no state yet.
- `live`: the state is current, and the server's clock is known.
- `stale`: there is a state, but it may be old: the connection is lost, or the server cannot read the session.
- `closed`: nothing more comes.
"""


@dataclass(frozen=True)
class Reason:
    """Why a session is not live.

    code: an error code of docs/protocol.md, or `OFFLINE`, `DELETED`, `CLOSED` (by `close()`). final: connecting again
    would not help. retry_in_s: the pause before the next try; None if there is none, or a try is under way.
    """

    code: str
    message: str
    final: bool = False
    retry_in_s: float | None = None


@dataclass(frozen=True)
class StatusChange:
    """The status of a connection, and why it is not `live`."""

    status: Status
    reason: Reason | None
