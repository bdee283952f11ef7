"""The plain model of time controls, with what an arbiter may do: adjust stages and several owners, takeback, reopen."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tests.support.clock_records import LIVE, SCOPES, Budget, Person, Refused
from tests.support.control_model import ControlModel
from tests.support.owner_clock import FLAG, OwnerClock


@dataclass
class Turn:
    """How a turn began: everything that a later takeback restores."""

    participant_id: str | None
    people: dict[str, Person]
    budgets: dict[str, Budget]
    last_of_group: dict[str, str]
    cycle_count: int


class ArbiterModel(ControlModel):
    """One session whose owners have time controls, and in which an arbiter intervenes."""

    def __init__(self, body: dict[str, Any], now_ms: int, *, max_unattended: int = 1000) -> None:
        self.turns: list[Turn] = []
        super().__init__(body, now_ms, max_unattended=max_unattended)

    def takeback(self, now_ms: int, cycles: int, reason: str | None = None) -> dict[str, Any]:
        """Go back to the start of the first of the last `cycles` cycles."""
        self.settle(now_ms)
        if not self.body.get("takeback_cycles"):
            raise Refused("no_takebacks")
        if self.active is None:
            raise Refused("invalid_transition")
        if len(self.turns) <= cycles:
            raise Refused("too_few_turns")
        del self.turns[:cycles]
        turn = deepcopy(self.turns[0])
        self.people, self.budgets = turn.people, turn.budgets
        self.last_of_group, self.cycle_count = turn.last_of_group, turn.cycle_count
        super()._start_cycle(turn.participant_id, self.now)
        if self.status == "paused":
            self.run_started = None
        return self._finish(
            "cycles_taken_back", **self._actors(), cycles=cycles, remaining_ms=self.shown(), reason=reason
        )

    def reopen(self, now_ms: int, reason: str | None = None) -> dict[str, Any]:
        """Undo the end of the session; its clocks stay as they are."""
        self.settle(now_ms)
        if self.status in LIVE:
            raise Refused("invalid_transition")
        if self.body.get("max_cycles") and self.cycle_count >= self.body["max_cycles"]:
            raise Refused("no_cycles_left")
        self.status = "pending" if self.session_started is None else "paused"
        self.session_completed = None
        self.completion = {}
        self.running_clock().has_expired = self.crossed = False
        return self._finish("session_reopened", **self._actors(), remaining_ms=self.shown(), reason=reason)

    def adjust(
        self,
        now_ms: int,
        op: str | None = None,
        ms: int | None = None,
        participant_id: str | None = None,
        group_id: str | None = None,
        not_after_ms: int | None = None,
        reason: str | None = None,
        targets: list[str] | str | None = None,
        **changes: int,
    ) -> dict[str, Any]:
        """Change the clocks of one owner or several, all or none; it begins a new run."""
        self._begin(now_ms, *LIVE)
        if targets is None:
            owners = [self._adjusted(participant_id, group_id)]
        else:
            owners = list(self.budgets) if targets == "all" else list(dict.fromkeys(targets))
            if any(owner not in self.budgets for owner in owners):
                raise Refused("unknown_target")
        names = ("people", "budgets", "running_time", "run_started", "crossed", "fired")
        kept = {name: deepcopy(getattr(self, name)) for name in names}
        self._charge(self.now)
        adjusted = {}
        try:
            for owner in owners:
                adjusted[owner] = self._adjust_clock(owner, op or "add", ms or 0, not_after_ms, changes)
        except Refused:
            vars(self).update(kept)
            raise
        self.turns = []
        if targets is not None:
            return self._finish("time_adjusted", adjusted=adjusted, reason=reason, **changes)
        (owner,) = owners
        named = {f"{SCOPES[self.mode]}_id": owner}
        return self._finish("time_adjusted", **named, **adjusted[owner], reason=reason, **changes)

    def _adjust_clock(
        self, owner: str, op: str, ms: int, not_after_ms: int | None, changes: dict[str, int]
    ) -> dict[str, int]:
        """Change one clock, which is charged; return what is left, and how much that is more."""
        clock, is_current = self.clock(owner), owner == self.owner()
        before = self.shown(owner)
        self._change(clock, changes)
        shown = self.shown(owner)
        target = {"add": shown + ms, "set": ms, "at_least": max(shown, ms)}[op]
        if clock.overtime or not (is_current and self.status == "running" and self.action["type"] == "notify"):
            target = max(min(0, shown), target)
        if not_after_ms is not None and self.now + target > not_after_ms:
            target = max(not_after_ms - self.now, min(target, shown))
        if clock.overtime and target > 0:
            clock.overtime = False
        clock.remaining = target
        if clock.left_until_flag > 0:
            clock.has_expired = False
            self.crossed = self.crossed and not is_current
        if is_current:
            left = clock.left if self._warns_in_periods else clock.remaining
            self.fired = {threshold for threshold in self.fired if threshold >= left}
        return {"remaining_ms": target, "adjusted_ms": target - before}

    @staticmethod
    def _change(clock: OwnerClock, changes: dict[str, int]) -> None:
        """Change a stage, its moves, periods or block, if that makes sense there."""
        if "stage" in changes:
            if changes["stage"] > len(clock.control["stages"]):
                raise Refused("no_such_stage")
            clock.stage_number = changes["stage"]
            clock.moves_left = clock.stage.get("moves") or 0
            clock.count = clock.stage.get("periods") or 0
            clock.overtime = False
        if "periods_left" in changes and clock.has_expired and "periods" in clock.stage:
            clock.overtime, clock.period_left, clock.remaining = True, clock.stage["period_ms"], 0
        blocks = clock.stage.get("period_moves", 0) if clock.overtime else 0
        refusals = {
            "moves_to_next_stage": (
                "no_moves",
                (clock.stage.get("moves") or 0) >= changes.get("moves_to_next_stage", 0),
            ),
            "periods_left": ("no_periods", clock.stage.get("periods", 0) >= changes.get("periods_left", 0)),
            "period_remaining_ms": ("no_period", clock.overtime),
            "block_moves_left": ("no_block", 0 < changes.get("block_moves_left", 0) <= blocks),
        }
        for name, (word, makes_sense) in refusals.items():
            if name in changes and not makes_sense:
                raise Refused(word)
        clock.moves_left = changes.get("moves_to_next_stage", clock.moves_left)
        clock.count = changes.get("periods_left", changes.get("block_moves_left", clock.count))
        clock.period_left = changes.get("period_remaining_ms", clock.period_left)

    def restore(self, now_ms: int, epoch: int, rule: str) -> None:
        """Restore the session from the log; no turn before it can be taken back."""
        self.turns = []
        super().restore(now_ms, epoch, rule)

    def _start_cycle(self, participant_id: str | None, at_ms: int) -> None:
        self.turns.insert(
            0,
            Turn(
                participant_id,
                deepcopy(self.people),
                deepcopy(self.budgets),
                dict(self.last_of_group),
                self.cycle_count,
            ),
        )
        del self.turns[self.body.get("takeback_cycles", 0) + 1 :]
        super()._start_cycle(participant_id, at_ms)

    def _phase(self) -> dict[str, Any]:
        """Return the phase; what a margin left below 0 is shown as 0 once the arbiter lets a period follow."""
        shown, clock = super()._phase(), self.running_clock()
        if self.action["type"] == "notify" or clock.next_end()[1] == FLAG:
            return shown
        least_ms = 1 - clock.setting("charge_unit_ms", 1)
        if shown["phase"] != "delay":
            shown["phase_remaining_ms"] = max(shown["phase_remaining_ms"], least_ms)
        return shown if clock.overtime else shown | {"remaining_ms": max(self.shown(), least_ms)}

    def state(self) -> dict[str, Any]:
        """Return the state document as of the last settling, without the session's id."""
        kept = self.body.get("takeback_cycles")
        return super().state() | ({"takeback_cycles": kept} if kept else {})
