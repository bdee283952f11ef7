"""Clocks with a time control, computed for an instant (docs/time-controls.md). Nothing here reads a clock.

`lua/_boundaries.lua` has the same rules, and applies them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from syncapp.domain.time_control import Stage, TimeControl

CLOCK_WIDTH = 37
_CLOCK = "%1d%1d%4d%4d%11d%11d%5d"  # the same as in lua/_time_control.lua


class OwnerClock(Struct, frozen=True):
    """What an owner's clock holds besides its main time, settled to the session's `cycle_started_ms`.

    stage: from 1. overtime: whether a period or block runs or would run. moves_left: to the next stage; 0 without one.
    count: periods left, counting the running one; or, in overtime, moves left in the block. period_ms: what is left of
    the period or block, 0 unless in overtime. turn_ms: the time used in the owner's present turn. lag_left_ms: how much
    lag may still be compensated.
    """

    stage: int
    overtime: bool
    moves_left: int
    count: int
    period_ms: int
    turn_ms: int
    lag_left_ms: int = 0

    def document(self, stage: Stage, *, has_lag: bool) -> dict[str, Any]:
        """Return the members that a state and a patch have for an owner in this stage.

        has_lag: whether lag is compensated.
        """
        in_block = self.overtime and stage.period_moves is not None
        document = {
            "stage": self.stage,
            "moves_to_next_stage": None if stage.moves is None else self.moves_left,
            "periods_left": None if stage.periods is None else self.count,
            "period_remaining_ms": self.period_ms if self.overtime else None,
            "block_moves_left": self.count if in_block else None,
            "turn_ms": self.turn_ms,
        }
        return document | ({"lag_left_ms": self.lag_left_ms} if has_lag else {})

    @classmethod
    def from_patch(cls, values: Mapping[str, Any]) -> OwnerClock:
        """Return the clock after a patch with the members of `document`."""
        counts = [values[name] for name in ("periods_left", "block_moves_left") if values[name] is not None]
        return cls(
            stage=values["stage"],
            overtime=values["period_remaining_ms"] is not None,
            moves_left=values["moves_to_next_stage"] or 0,
            count=counts[0] if counts else 0,
            period_ms=values["period_remaining_ms"] or 0,
            turn_ms=values["turn_ms"],
            lag_left_ms=values.get("lag_left_ms", 0),
        )


def patched_clocks(
    clocks: Iterable[OwnerClock], index: Mapping[str, int], owners: Mapping[str, Mapping[str, Any]]
) -> tuple[OwnerClock, ...]:
    """Return the clocks after a patch of participants or groups, of which one kind has clocks.

    index: places among the clocks, by id.
    """
    patched = list(clocks)
    for name, new in owners.items():
        if "stage" in new:
            patched[index[name]] = OwnerClock.from_patch(new)
    return tuple(patched)


def first_clock(control: TimeControl, lag_quota_ms: int) -> tuple[int, OwnerClock]:
    """Return an owner's main time (ms) and clock at the start of a session; its lag quota is full."""
    stage = control.stages[0]
    main_ms = stage.per_move_ms or stage.time_ms or 0
    if control.first_bonus == "before_move":
        if stage.delay == "bronstein":
            main_ms += stage.delay_ms or 0
        main_ms = with_increment(main_ms, stage)
    clock = OwnerClock(
        stage=1,
        overtime=False,
        moves_left=stage.moves or 0,
        count=stage.periods or 0,
        period_ms=0,
        turn_ms=0,
        lag_left_ms=lag_quota_ms,
    )
    return main_ms, clock


def with_increment(main_ms: int, stage: Stage) -> int:
    """Return the main time after an increment, which does not raise it above the cap."""
    raised = main_ms + (stage.increment_ms or 0)
    return raised if stage.cap_ms is None else max(main_ms, min(raised, stage.cap_ms))


class RunningControl(Struct, frozen=True):
    """The clock of the owner whose turn it is, settled to `started_ms` (None: it is stopped).

    main_ms: its main time. has_expired: it has run out already. overtime: a clock that has run out runs on (`notify`).
    """

    control: TimeControl
    clock: OwnerClock
    main_ms: int
    has_expired: bool
    started_ms: int | None
    overtime: bool

    @property
    def stage(self) -> Stage:
        """The stage that the owner is in."""
        return self.control.stages[self.clock.stage - 1]

    def shown(self, now_ms: int) -> dict[str, Any]:
        """Return the members of the state's `clock` at `now_ms` that depend on the control."""
        clock, stage = self.clock, self.stage
        left = self.left_at(now_ms)
        delay_left = max(0, self._delay_ms - clock.turn_ms - self._ran_ms(now_ms))
        flag_ms = self._instant_of(self._until_flag)
        phase = "main" if not clock.overtime else "period" if stage.periods else "block"
        next_ms = flag_ms
        if self._boundary_follows:
            next_ms = self._instant_of(self.left_ms)
        if delay_left:
            phase = "delay"
            next_ms = None if self.started_ms is None else now_ms + delay_left
        main_ms = self.main_ms if clock.overtime else left
        return {
            "phase": phase,
            "remaining_ms": main_ms,
            "phase_remaining_ms": delay_left if phase == "delay" else left,
            "next_at_ms": next_ms,
            "deadline_ms": flag_ms,
        }

    def left_at(self, now_ms: int) -> int:
        """Return what is left of the main time, or in overtime of the period or block, in ms."""
        turn_ms = self.clock.turn_ms
        left = self.left_ms - (self._chargeable(turn_ms + self._ran_ms(now_ms)) - self._chargeable(turn_ms))
        if self.overtime:
            return left
        # Below that only until the commit that applies what is due. A part of a charge unit may be below 0.
        lowest = 0 if self._boundary_follows else -self.control.margin_ms
        return max(left, lowest - self.control.charge_unit_ms + 1)

    def _ran_ms(self, now_ms: int) -> int:
        return 0 if self.started_ms is None else max(0, now_ms - self.started_ms)

    @property
    def _delay_ms(self) -> int:
        return self.stage.delay_ms or 0 if self.stage.delay == "simple" else 0

    @property
    def left_ms(self) -> int:
        """What was left of the main time, or in overtime of the period or block, when it was settled."""
        return self.clock.period_ms if self.clock.overtime else self.main_ms

    @property
    def _boundary_follows(self) -> bool:
        if self.clock.overtime:
            return self.stage.periods is not None and self.clock.count > 1
        return self.stage.period_ms is not None

    @property
    def _until_flag(self) -> int:
        stage, clock = self.stage, self.clock
        periods = clock.count if stage.periods else 1 if stage.period_moves else 0
        periods -= 1 if clock.overtime else 0
        return self.left_ms + periods * (stage.period_ms or 0) + self.control.margin_ms

    def _chargeable(self, turn_ms: int) -> int:
        return max(0, turn_ms - self._delay_ms)

    def _instant_of(self, left: int) -> int | None:
        """Return the instant (ms) at which an account with `left` ms runs out; None if the clock is stopped."""
        if self.started_ms is None or self.has_expired:
            return None
        total = left + self._chargeable(self.clock.turn_ms)
        if self.control.min_charge_ms > 0 and total <= self.control.min_charge_ms:
            return self.started_ms
        needed = max(0, -(-total // self.control.charge_unit_ms) * self.control.charge_unit_ms)
        return self.started_ms + max(0, needed + self._delay_ms - self.clock.turn_ms)


def write_clocks(clocks: Iterable[OwnerClock]) -> str:
    """Return clocks as the scripts store them: a text of CLOCK_WIDTH characters each."""
    return "".join(
        _CLOCK
        % (
            *(each.stage, each.overtime, each.moves_left, each.count),
            *(each.period_ms, each.turn_ms, each.lag_left_ms),
        )
        for each in clocks
    )


def read_clocks(text: str) -> tuple[OwnerClock, ...]:
    """Return the clocks in a text of the scripts."""
    return tuple(
        OwnerClock(
            stage=int(text[at]),
            overtime=text[at + 1] == "1",
            moves_left=int(text[at + 2 : at + 6]),
            count=int(text[at + 6 : at + 10]),
            period_ms=int(text[at + 10 : at + 21]),
            turn_ms=int(text[at + 21 : at + 32]),
            lag_left_ms=int(text[at + 32 : at + 37]),
        )
        for at in range(0, len(text), CLOCK_WIDTH)
    )
