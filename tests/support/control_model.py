"""Sessions whose owners have time controls, as plain Python: slow, in memory, and meant to be obviously right.

A `ControlModel` is one session in `per_participant` or `per_group`. It takes the commands of the plain model.
"""

from __future__ import annotations

from typing import Any

from tests.support.clock_model import Model
from tests.support.clock_records import (
    IDLE,
    LIVE,
    SCOPES,
    TIMEOUT,
    WARNING,
    Budget,
    Due,
    Refused,
    body_groups,
    body_people,
)
from tests.support.owner_clock import FLAG, OwnerClock, first_ms


class ControlModel(Model):
    """One session whose owners have time controls, made from the body of a create request."""

    def _budgets(self) -> dict[str, Budget]:
        owners = body_people(self.body) if self.mode == "per_participant" else body_groups(self.body)
        name = f"{SCOPES[self.mode]}_id"
        plain = {"increment_ms": self.body.get("increment_ms", 0)}
        clocks: dict[str, Budget] = {}
        for owner in owners:
            shorthand = {"stages": [plain | {"time_ms": owner.get("total_time_ms")}]}
            control = owner.get("time_control") or self.body.get("time_control") or shorthand
            clocks[owner[name]] = clock = OwnerClock.beginning(control)
            if self.mode == "per_participant":
                self.people[owner[name]].granted = clock.granted
        return clocks

    # Commands that differ from those of the plain model.

    def switch(
        self,
        now_ms: int,
        participant_id: str | None = None,
        next_participant_id: str | None = None,
        *,
        is_free: bool = False,
    ) -> dict[str, Any]:
        """End the turn; a free move, of the opening book, is neither charged nor rewarded."""
        self._begin(now_ms, "running")
        self._known(participant_id, "unknown_participant")
        self._known(next_participant_id, "unknown_next_participant")
        if participant_id not in (None, self.active):
            raise Refused("not_active_participant")
        if next_participant_id and self.has_expired(next_participant_id) and self.action["type"] != "notify":
            raise Refused("expired_next_participant")
        self._charge(self.now)
        mover, actors = self.running_clock(), self._actors()
        spent_ms = mover.turn_ms
        bonus_ms, follows = mover.complete_move(is_free=is_free)
        following = self._end_cycle(next_participant_id or self._next_in_rotation(), self.now)
        event = self._commit(
            "cycle_switched",
            self.now,
            **actors,
            next_participant_id=following,
            remaining_ms=mover.remaining,
            spent_ms=spent_ms,
            bonus_ms=bonus_ms,
        )
        if follows and self.status == "running":
            entered = self._entered(follows, mover)
            self._commit(follows, self.now, **actors, **entered).update(entered)  # null is told, too
        self._touch()
        self.settle(self.now)
        return event

    def adjust(
        self,
        now_ms: int,
        op: str,
        ms: int,
        participant_id: str | None = None,
        group_id: str | None = None,
        not_after_ms: int | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Change the main time of one clock; if that is more than 0, its overtime ends. It begins a new run."""
        self._begin(now_ms, *LIVE)
        owner = self._adjusted(participant_id, group_id)
        self._charge(self.now)
        is_current = owner == self.owner()
        shown = self.shown(owner)
        target = {"add": shown + ms, "set": ms, "at_least": max(shown, ms)}[op]
        clock = self.clock(owner)
        if clock.overtime or not (is_current and self.status == "running" and self.action["type"] == "notify"):
            target = max(min(0, shown), target)
        if not_after_ms is not None and self.now + target > not_after_ms:
            target = max(not_after_ms - self.now, min(target, shown))
        if clock.overtime and target > 0:
            clock.overtime = False
        clock.remaining += target - shown
        if clock.left_until_flag > 0:
            clock.has_expired = False
            self.crossed = self.crossed and not is_current
        if is_current:
            self.fired = {threshold for threshold in self.fired if threshold >= target}
        named = {f"{SCOPES[self.mode]}_id": owner}
        return self._finish("time_adjusted", **named, remaining_ms=target, adjusted_ms=target - shown, reason=reason)

    # What is due without a command.

    def next_due(self) -> Due | None:
        """Return what is due next; what the last commit made overdue is due at that commit's instant."""
        if self.status not in LIVE:
            return None
        dues = [Due(self.idle_at, IDLE)] if self.idle_at is not None else []
        if self.run_started is not None:
            clock = self.running_clock()
            for threshold in self._unfired():
                after_ms = first_ms(lambda ran_ms, ms=threshold: clock.left - clock.cost(ran_ms) <= ms)  # type: ignore[misc]  # a lambda's default has no type
                dues.append(Due(max(self.run_started + after_ms, self.updated), WARNING, -threshold, threshold))
            if not self.crossed:
                dues.append(Due(max(self.run_started + clock.next_end()[0], self.updated), TIMEOUT))
        return min(dues, default=None)

    def _unfired(self) -> list[int]:
        if self.running_clock().overtime and not self._warns_in_periods:
            return []
        return [ms for ms in self.body.get("warn_at_ms") or [] if ms not in self.fired]

    def _warn(self, at_ms: int, threshold_ms: int) -> None:
        self.fired.add(threshold_ms)
        clock = self.running_clock()
        left = clock.left - clock.cost(self._ran_until(at_ms))
        self._commit("time_warning", at_ms, **self._actors(), remaining_ms=left, threshold_ms=threshold_ms)

    def _time_out(self, at_ms: int) -> None:
        clock = self.running_clock()
        what = clock.next_end()[1]
        if what != FLAG:
            self._charge(at_ms)
            clock.cross(what)
            self._fire_passed()
            self._commit(what, at_ms, **self._actors(), **self._entered(what, clock))
            return
        clock.has_expired = True
        self._act_on_timeout(at_ms, self.shown_at(self.owner() or "", at_ms))

    @staticmethod
    def _entered(what: str, clock: OwnerClock) -> dict[str, Any]:
        """Return what the event of a new stage, period or block tells besides whose it is."""
        names = {
            "stage_entered": ("stage", "moves_to_next_stage"),
            "period_started": ("periods_left", "period_remaining_ms"),
            "period_lost": ("periods_left", "period_remaining_ms"),
            "block_started": ("block_moves_left", "period_remaining_ms"),
        }[what]
        return {"remaining_ms": clock.remaining} | {name: clock.values()[name] for name in names}

    # Values that the rules depend on.

    def clock(self, owner: str) -> OwnerClock:
        """Return the clock of a participant or group."""
        clock = self.budgets[owner]
        assert isinstance(clock, OwnerClock)
        return clock

    def running_clock(self) -> OwnerClock:
        """Return the clock that runs, would run, or ran last."""
        return self.clock(self.owner() or "")

    @property
    def _warns_in_periods(self) -> bool:
        return self.body.get("warn_scope") == "period"

    def _ran_until(self, at_ms: int) -> int:
        return 0 if self.run_started is None else at_ms - self.run_started

    def shown(self, owner: str | None = None) -> int:
        """Return the main time of an owner; by default, of the clock that runs or would run."""
        return self.shown_at(owner or self.owner() or "", self.now)

    def shown_at(self, owner: str, at_ms: int) -> int:
        """Return the main time of an owner at an instant of the present run."""
        running = self.running_clock()
        cost = running.cost(self._ran_until(at_ms))
        if owner != self.owner():
            return self.clock(owner).remaining + (self._shares(cost)[owner] if running.is_hourglass else 0)
        return running.remaining - (0 if running.overtime else cost)

    def _shares(self, cost: int) -> dict[str, int]:
        """Return what each other owner gains in an hourglass."""
        others = [name for name in self.budgets if name != self.owner()]
        return {name: (cost + place) // len(others) for place, name in enumerate(others)}

    def deadline(self) -> int | None:
        """Return the instant of the flag; None if it has fallen."""
        if self.run_started is None or self.crossed:
            return None
        return self.run_started + self.running_clock().until_flag()

    # Changes.

    def _charge(self, at_ms: int) -> None:
        if self.run_started is None:
            return
        ran_ms = self._ran_until(at_ms)
        self.run_started = at_ms
        self.running_time += ran_ms
        clock = self.running_clock()
        cost = clock.charge(ran_ms)
        if clock.is_hourglass:
            for name, share in self._shares(cost).items():
                self.clock(name).add(share)
        if self.turn:
            self.people[self.turn].used += ran_ms

    def _start_cycle(self, participant_id: str | None, at_ms: int) -> None:
        super()._start_cycle(participant_id, at_ms)
        self._fire_passed()

    def _fire_passed(self) -> None:
        """Count the thresholds at or above what is left as fired, and no others."""
        clock = self.running_clock()
        left = clock.left if self._warns_in_periods else clock.remaining
        self.fired = {ms for ms in self.body.get("warn_at_ms") or [] if ms >= left}

    def _end_cycle(self, following: str | None, at_ms: int) -> str | None:
        self.running_clock().turn_ms = 0
        return super()._end_cycle(following, at_ms)

    # The state document.

    def state(self) -> dict[str, Any]:
        """Return the state document as of the last settling, without the session's id."""
        shown = super().state()
        listed = shown["participants"] if self.mode == "per_participant" else shown["groups"]
        for holder, owner in zip(listed, self.budgets, strict=True):
            holder.update(self.clock(owner).values())
        shown["clock"] |= self._phase()
        return shown

    def _phase(self) -> dict[str, Any]:
        clock, ran_ms = self.running_clock(), self.elapsed()
        left_of_delay = clock.delay_ms - clock.turn_ms - ran_ms
        if left_of_delay > 0:
            phase, left = "delay", left_of_delay
        elif clock.overtime:
            phase, left = "period" if "periods" in clock.stage else "block", clock.left - clock.cost(ran_ms)
        else:
            phase, left = "main", self.shown()
        next_at = None
        if self.run_started is not None:
            end_ms = self.now + left_of_delay if left_of_delay > 0 else None
            if not self.crossed:
                runs_out_ms = self.run_started + clock.next_end()[0]
                end_ms = runs_out_ms if end_ms is None else min(end_ms, runs_out_ms)
            next_at = end_ms
        return {"phase": phase, "phase_remaining_ms": left, "next_at_ms": next_at}
