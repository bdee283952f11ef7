"""One owner's clock under a time control, as plain Python.

Instants at which time runs out are searched for, not computed: the first ms of the turn at which a condition holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.clock_records import Budget

MAX_REMAINING_MS = 99_999_999_999
FLAG = "flag"
"""What follows when nothing is left to run; all else that follows is named as its event."""


def first_ms(holds: Callable[[int], bool], start: int = 0) -> int:
    """Return the first whole number from `start` on for which a condition holds that, once it holds, keeps holding."""
    if holds(start):
        return start
    step = 1
    while not holds(start + step):
        step *= 2
    low, high = start + step // 2, start + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@dataclass
class OwnerClock(Budget):
    """One owner's clock; `remaining` is its main time, and times are as of the start of the run, or of its end.

    turn_ms: how long the owner's turn has lasted, without pauses, until the last charge.
    count: periods left, or moves left in the block. period_left: time left in the period or block, in overtime only.
    """

    control: dict[str, Any] = field(default_factory=dict)
    stage_number: int = 1
    moves_left: int = 0
    overtime: bool = False
    count: int = 0
    period_left: int = 0
    turn_ms: int = 0

    @classmethod
    def beginning(cls, control: dict[str, Any]) -> OwnerClock:
        """Return the clock before the first move."""
        clock = cls(0, 0, control=control)
        clock._enter_stage(1)
        if clock.first_bonus_is_before_move:
            clock._credit_increment()
            clock.add(clock.bronstein_ms)
        clock.granted = clock.remaining
        return clock

    # The control.

    @property
    def stage(self) -> dict[str, Any]:
        """The fields of the current stage."""
        stage: dict[str, Any] = self.control["stages"][self.stage_number - 1]
        return stage

    @property
    def delay_ms(self) -> int:
        """The simple delay of each move."""
        return int(self.stage["delay_ms"]) if self.stage.get("delay") == "simple" else 0

    @property
    def bronstein_ms(self) -> int:
        """The Bronstein delay of each move."""
        return int(self.stage["delay_ms"]) if self.stage.get("delay") == "bronstein" else 0

    @property
    def first_bonus_is_before_move(self) -> bool:
        """Whether the bonus of a move is granted before it."""
        return self.control.get("first_bonus") == "before_move"

    @property
    def is_hourglass(self) -> bool:
        """Whether the others gain what this owner uses."""
        return self.stage.get("hourglass") is True

    def setting(self, name: str, default: int = 0) -> int:
        """Return a number that holds in all stages."""
        return int(self.control.get(name, default))

    # Time that passes.

    @property
    def left(self) -> int:
        """What is left of what runs: the period or block in overtime, else the main time."""
        return self.period_left if self.overtime else self.remaining

    def chargeable(self, turn_ms: int) -> int:
        """Return how much of a turn is charged if nothing is rounded: all but the simple delay."""
        return max(0, turn_ms - self.delay_ms)

    def cost(self, ran_ms: int) -> int:
        """Return how much a run takes from the clock."""
        return self.chargeable(self.turn_ms + ran_ms) - self.chargeable(self.turn_ms)

    def charge(self, ran_ms: int) -> int:
        """Charge a run of the clock; return how much it took."""
        cost = self.cost(ran_ms)
        self.turn_ms += ran_ms
        self.used += ran_ms
        self._add_to_running(-cost)
        return cost

    def next_end(self) -> tuple[int, str]:
        """Return after how many ms of further running something runs out, and what follows: an event, or `FLAG`."""
        if not self.overtime and "periods" in self.stage:
            return self._until_used_up(self.left), "period_started"
        if not self.overtime and "period_moves" in self.stage:
            return self._until_used_up(self.left), "block_started"
        if self.overtime and "periods" in self.stage and self.count > 1:
            return self._until_used_up(self.left), "period_lost"
        return self._until_used_up(self.left + self.setting("margin_ms")), FLAG

    @property
    def left_until_flag(self) -> int:
        """What is left until the flag, without the margin: of what runs, and the periods or the block that follow."""
        to_come = self.count if "periods" in self.stage else int("period_moves" in self.stage)
        return self.left + (to_come - self.overtime) * int(self.stage.get("period_ms", 0))

    def until_flag(self) -> int:
        """Return after how many ms of further running the flag falls: play on, in a copy, until it does."""
        probe, passed_ms = replace(self), 0
        while True:
            ran_ms, what = probe.next_end()
            passed_ms += ran_ms
            if what == FLAG:
                return passed_ms
            probe.charge(ran_ms)
            probe.cross(what)

    def cross(self, what: str) -> None:
        """Go on to the next period or block; the elapsed time has been charged."""
        if what == "period_lost":
            self.count -= 1
            self.period_left += self.stage["period_ms"]
            return
        self.overtime = True
        self.period_left = self.stage["period_ms"] + self.remaining
        self.remaining = 0
        if what == "block_started":
            self.count = self.stage["period_moves"]

    def _until_used_up(self, left: int) -> int:
        """Return after how many ms of further running an account with `left` now would be charged as a whole.

        The charge of a move depends on the whole turn. So compare it with what the account would hold if the turn had
        cost nothing so far.
        """
        total = left + self.chargeable(self.turn_ms)
        if self.setting("min_charge_ms") > 0 and total <= self.setting("min_charge_ms"):
            return 0
        unit = self.setting("charge_unit_ms", 1)

        def used_up(turn_ms: int) -> bool:
            return turn_ms >= self.delay_ms and self.chargeable(turn_ms) // unit * unit >= total

        return first_ms(used_up, self.turn_ms) - self.turn_ms

    # Moves.

    def complete_move(self, *, is_free: bool = False) -> tuple[int, str | None]:
        """Settle the move that ends now; return the bonus, and the event that follows, if any."""
        before = self.remaining
        delayed = self.turn_ms - self.chargeable(self.turn_ms)
        self._round_charge(is_free)
        follows = None
        if not self.has_expired:
            if not is_free:
                follows = self._renew_period()
                self.add(min(self.turn_ms, self.bronstein_ms))
                if not self.first_bonus_is_before_move:
                    self._credit_increment()
            if self._count_move():
                follows = "stage_entered"
            if self.first_bonus_is_before_move and not is_free:
                self._credit_increment()
            if self.remaining > 0:
                self.overtime = False
        return delayed + self.remaining - before, follows

    def _round_charge(self, is_free: bool) -> None:
        """Replace the exact charge of the turn by the one in whole units, at least the least charge."""
        exact = self.chargeable(self.turn_ms)
        unit = self.setting("charge_unit_ms", 1)
        whole = 0 if is_free else max(self.setting("min_charge_ms"), exact // unit * unit)
        self._add_to_running(exact - whole)

    def _renew_period(self) -> str | None:
        if "per_move_ms" in self.stage:
            self.remaining = self.stage["per_move_ms"]
        elif self.overtime and "periods" in self.stage:
            self.period_left = self.stage["period_ms"]
        elif self.overtime:
            self.count -= 1
            if self.count == 0:
                self.count, self.period_left = self.stage["period_moves"], self.stage["period_ms"]
                return "block_started"
        return None

    def _count_move(self) -> bool:
        """Count the move in the stage; return whether a stage begins."""
        if self.moves_left == 0:
            return False
        self.moves_left -= 1
        if self.moves_left > 0:
            return False
        if self.first_bonus_is_before_move:
            self.remaining -= self.bronstein_ms
        if "per_move_ms" in self.stage:
            self.remaining = 0
        self._enter_stage(self.stage_number + (0 if self.stage.get("repeat") else 1))
        if self.first_bonus_is_before_move:
            self.add(self.bronstein_ms)
        return True

    def _enter_stage(self, number: int) -> None:
        self.stage_number = number
        stage = self.stage
        self.moves_left = stage.get("moves") or 0
        self.count = stage.get("periods") or stage.get("period_moves") or 0
        self.overtime = False
        if "per_move_ms" in stage:
            self.remaining = stage["per_move_ms"]
        else:
            self.add(stage["time_ms"])

    def _credit_increment(self) -> None:
        raised = self.remaining + (self.stage.get("increment_ms") or 0)
        cap = self.stage.get("cap_ms")
        self.add(max(self.remaining, raised if cap is None else min(raised, cap)) - self.remaining)

    def add(self, ms: int) -> None:
        """Add to the main time, up to the largest time that is stored."""
        self.remaining = min(self.remaining + ms, MAX_REMAINING_MS)

    def _add_to_running(self, ms: int) -> None:
        if self.overtime:
            self.period_left += ms
        else:
            self.add(ms)

    def values(self) -> dict[str, Any]:
        """Return what a state shows of this clock, besides what it shows of every budget."""
        return {
            "stage": self.stage_number,
            "moves_to_next_stage": self.moves_left or None,
            "periods_left": self.count if "periods" in self.stage else None,
            "period_remaining_ms": self.period_left if self.overtime else None,
            "block_moves_left": self.count if self.overtime and "period_moves" in self.stage else None,
            "turn_ms": self.turn_ms,
        }
