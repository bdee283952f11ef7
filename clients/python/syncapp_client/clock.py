"""What the clocks of a session show at an instant. Nothing here reads a clock.

docs/clock.md and docs/time-controls.md have the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from syncapp_client.values import Group, Owner, Participant, Phase, Reading, Stage, State, TimeControl

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def reading(state: State, now_ms: float, owner: str | None = None) -> Reading:
    """Return what a clock shows at `now_ms`, the server's time.

    owner: a participant, which in `per_group` shows its group's clock, or a group; by default the clock that runs or
    would run. No clock shows less than the server could show before the next version. Raises `KeyError` if there is no
    such owner.
    """
    ran_ms = _ran_ms(state, int(now_ms))
    if owner is None:
        return _running_clock(state, ran_ms)
    person = next((each for each in state["participants"] if each["participant_id"] == owner), None)
    group_id = owner if person is None else person.get("group_id")
    group = next((each for each in state.get("groups", ()) if each["group_id"] == group_id), None)
    asked, holder = person or group, group or person
    if asked is None or holder is None:
        raise KeyError(f"the session has neither a participant nor a group {owner!r}")
    found = _owner_clock(state, holder, ran_ms)
    is_used = person["is_active"] if person else found.running
    used_ms = asked["time_used_ms"] + (ran_ms if is_used else 0)
    return Reading(
        found.ms, found.running, found.phase, found.delay_ms, found.periods_left, found.block_moves_left, used_ms
    )


def elapsed_ms(state: State, now_ms: float) -> int:
    """Return how long the running cycle, or the stopwatch, has run at `now_ms`; 0 for a cycle that is stopped."""
    before_ms = state.get("time_used_ms", 0) if state["clock"]["direction"] == "up" else 0
    return before_ms + _ran_ms(state, int(now_ms))


def _ran_ms(state: State, now_ms: int) -> int:
    """Return how long the clock has run since the state's totals were settled."""
    started_at = state["cycle_started_at"]
    if state["status"] != "running" or started_at is None:
        return 0
    started_ms = (datetime.fromisoformat(started_at) - _UNIX_EPOCH) // timedelta(milliseconds=1)
    return max(0, now_ms - started_ms)


def _runs_below_zero(state: State) -> bool:
    return bool(state["action_on_timeout"]["type"] == "notify")


def _running_clock(state: State, ran_ms: int) -> Reading:
    clock = state["clock"]
    holder = _turn(state)
    used_ms = state.get("time_used_ms", sum(each["time_used_ms"] for each in state["participants"])) + ran_ms
    phase = clock.get("phase", "main")
    if holder is not None and clock["scope"] in ("participant", "group"):
        found = _owner_clock(state, holder, ran_ms)
        if state["status"] == "running":
            return Reading(
                found.ms, True, found.phase, found.delay_ms, found.periods_left, found.block_moves_left, used_ms
            )
        periods_left, block_moves_left = found.periods_left, found.block_moves_left
    else:
        periods_left = block_moves_left = None
    if state["status"] != "running":
        left_ms = clock.get("phase_remaining_ms", 0)
        ms = left_ms if phase in ("period", "block") else clock["remaining_ms"]
        return Reading(ms, False, phase, left_ms if phase == "delay" else 0, periods_left, block_moves_left, used_ms)
    settled_ms = state.get("time_remaining_ms")
    return Reading(_plain_ms(state, settled_ms, ran_ms), True, "main", 0, None, None, used_ms)


def _turn(state: State) -> Owner | None:
    """Return whose clock runs or would run; None if the session has ended, or nobody has a clock."""
    if not state["participants"]:
        return None
    active_id = state["active_participant_id"]
    if active_id is None and state["status"] != "pending":
        return None
    people: Sequence[Participant] = state["participants"]
    person = next((each for each in people if each["participant_id"] == active_id), people[0])
    groups: Sequence[Group] = state.get("groups", ())
    return next((each for each in groups if each["group_id"] == person.get("group_id")), person)


def _plain_ms(state: State, settled_ms: int | None, ran_ms: int) -> int | None:
    if settled_ms is None or not ran_ms:
        return settled_ms
    # Below 0 only in overtime: else the next version is the timeout.
    return settled_ms - ran_ms if _runs_below_zero(state) else max(0, settled_ms - ran_ms)


def _owner_clock(state: State, holder: Owner, ran_ms: int) -> Reading:
    is_running = state["status"] == "running" and _turn(state) is holder
    ran_ms_of_it = ran_ms if is_running else 0
    clock = _controlled(state, holder)
    if clock is None:
        ms = _plain_ms(state, holder["time_remaining_ms"], ran_ms_of_it)
        return Reading(ms, is_running, "main", 0, None, None, 0)
    left_ms = clock.left_ms(ran_ms) if is_running else clock.settled_ms + _gained_ms(state, holder, ran_ms)
    return Reading(
        left_ms,
        is_running,
        clock.phase(ran_ms_of_it),
        clock.delay_left_ms(ran_ms_of_it),
        holder.get("periods_left"),
        holder.get("block_moves_left"),
        0,
    )


def _gained_ms(state: State, holder: Owner, ran_ms: int) -> int:
    """Return what has run from another's hourglass into this owner's; odd ms go to the last ones in order."""
    giver = _turn(state)
    clock = None if giver is None or state["status"] != "running" else _controlled(state, giver)
    if clock is None or not clock.stage.get("hourglass"):
        return 0
    owners: Sequence[Owner] = state.get("groups") or state["participants"]
    others = [each for each in owners if each is not giver]
    place = next(index for index, each in enumerate(others) if each is holder)
    return (clock.settled_ms - clock.left_ms(ran_ms) + place) // len(others)


def _controlled(state: State, owner: Owner) -> _Controlled | None:
    """Return an owner's clock with its time control; None if it has a plain budget, or none."""
    control = owner.get("time_control") or state.get("time_control")
    if "stage" not in owner or control is None:
        return None
    return _Controlled(owner, control, below_zero=_runs_below_zero(state))


@dataclass(frozen=True)
class _Controlled:
    """A clock with a time control, as it was when the state's totals were settled.

    below_zero: a clock that has run out runs on (`notify`).
    """

    owner: Owner
    control: TimeControl
    below_zero: bool

    @property
    def stage(self) -> Stage:
        return self.control["stages"][self.owner["stage"] - 1]

    @property
    def _in_period(self) -> bool:
        return self.owner["period_remaining_ms"] is not None

    @property
    def settled_ms(self) -> int:
        period_ms = self.owner["period_remaining_ms"]
        return self.owner["time_remaining_ms"] or 0 if period_ms is None else period_ms

    @property
    def _delay_ms(self) -> int:
        return self.stage.get("delay_ms") or 0 if self.stage.get("delay") == "simple" else 0

    def delay_left_ms(self, ran_ms: int) -> int:
        return max(0, self._delay_ms - self.owner["turn_ms"] - ran_ms)

    def phase(self, ran_ms: int) -> Phase:
        if self.delay_left_ms(ran_ms):
            return "delay"
        if not self._in_period:
            return "main"
        return "period" if self.stage.get("periods") else "block"

    def left_ms(self, ran_ms: int) -> int:
        """Return what is left of the main time, or of the running period or block, after `ran_ms` more."""
        turn_ms = self.owner["turn_ms"]
        left_ms = self.settled_ms - (self._charged_ms(turn_ms + ran_ms) - self._charged_ms(turn_ms))
        if self.below_zero:
            return left_ms
        # At a boundary, and after the margin, there is a new version. A part of a charge unit may be below that.
        lowest_ms = 0 if self._more_follows else -self.control["margin_ms"]
        return max(left_ms, lowest_ms - self.control["charge_unit_ms"] + 1)

    def _charged_ms(self, turn_ms: int) -> int:
        return max(0, turn_ms - self._delay_ms)

    @property
    def _more_follows(self) -> bool:
        """Whether a period or block begins where this one, or the main time, ends."""
        if self._in_period:
            return self.stage.get("periods") is not None and (self.owner["periods_left"] or 0) > 1
        return self.stage.get("period_ms") is not None
