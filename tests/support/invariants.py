"""A ledger of a session, made from its definition and events alone, to check invariants against."""

from __future__ import annotations

from collections import Counter
from typing import Any

from syncapp.domain.session import TERMINAL, Session
from tests.support.clock_records import SHARED, body_groups, body_people

ENDS_A_CYCLE = ("cycle_switched", "participant_expired", "group_expired", "cycle_timed_out")


class Ledger:
    """The running time of each owner, and the time granted, credited and adjusted for each budget, in ms."""

    def __init__(self, body: dict[str, Any], session: Session) -> None:
        self.mode: str = body["sync_mode"]
        self.notify = (body.get("action_on_timeout") or {}).get("type") == "notify"
        self.group_of = {person["participant_id"]: person.get("group_id") for person in body_people(body)}
        self.increment_ms: int = body.get("increment_ms", 0)
        self.ran: Counter[str] = Counter()
        self.running_ms = 0
        self.cycle_ms = 0
        self.granted: Counter[str] = Counter()
        self.credited: Counter[str] = Counter()
        self.adjusted: Counter[str] = Counter()
        self.last = session
        for name, budget in zip(self.group_of, session.definition.budgets_ms, strict=True):
            self.granted[name] = budget or 0
        if self.mode == "per_group":
            for group, budget in zip(body_groups(body), session.definition.group_budgets_ms, strict=True):
                self.granted[f"group {group['group_id']}"] = budget
        own = {"per_cycle": "time_per_cycle_ms", "global": "total_time_ms", "count_up": "max_time_ms"}
        self.granted[SHARED] = body.get(own.get(self.mode, "")) or 0

    def enter(self, event: dict[str, Any], after: Session) -> None:
        """Enter a commit, and check that the state after it agrees with the ledger."""
        before, self.last = self.last, after
        at_ms: int = event["at_ms"]
        assert after.version == before.version + 1
        assert at_ms == after.updated_ms >= before.updated_ms
        self._enter_time(before, at_ms)
        self._enter_budget_changes(event, before, after)
        self._check(after)

    def reopen(self, after: Session) -> None:
        """Enter a restore; no clock has run since the last commit."""
        assert after.epoch > self.last.epoch
        assert after.version == 1
        self.last = after
        self._check(after)

    def _enter_time(self, before: Session, at_ms: int) -> None:
        if before.status != "running":
            return
        ran_ms = at_ms - before.updated_ms
        self.running_ms += ran_ms
        self.cycle_ms += ran_ms
        if before.active_participant_id is not None:
            self.ran[before.active_participant_id] += ran_ms
            self.ran[f"group {self.group_of[before.active_participant_id]}"] += ran_ms

    def _enter_budget_changes(self, event: dict[str, Any], before: Session, after: Session) -> None:
        if event["type"] == "time_adjusted":
            group = event.get("group_id")
            self.adjusted[f"group {group}" if group else event.get("participant_id", SHARED)] += event["adjusted_ms"]
        if event["type"] == "cycle_switched" and before.active_participant_id is not None:
            mover = before.active_participant_id
            place = before.definition.index[mover]
            if not before.participants[place].has_expired:
                owner = f"group {self.group_of[mover]}" if self.mode == "per_group" else mover
                self.credited[owner] += self.increment_ms
        if event["type"] in ENDS_A_CYCLE and after.cycle_count > before.cycle_count:
            assert after.cycle_count == before.cycle_count + 1
            if self.mode == "per_cycle" and after.status == "running":
                self.adjusted[SHARED] = self.cycle_ms = 0

    def _check(self, session: Session) -> None:
        state = session.state(session.updated_ms)
        running = state["clock"]["elapsed_ms"] if session.status == "running" and self.mode != "count_up" else 0
        if self.mode == "count_up":
            assert state["clock"]["elapsed_ms"] == self.running_ms
            running = session.updated_ms - (session.cycle_started_ms or session.updated_ms)
        active = [person for person in state["participants"] if person["is_active"]]
        assert [person["participant_id"] for person in active] == [
            name for name in [state["active_participant_id"]] if name
        ]
        assert not (active and session.status not in ("running", "paused"))
        for person in state["participants"]:
            name = person["participant_id"]
            live_ms = running if person["is_active"] else 0
            assert person["time_used_ms"] + live_ms == self.ran[name]
            if self.mode == "per_participant":
                assert person["time_used_ms"] + person["time_remaining_ms"] == self._owned(name)
                assert self.notify or person["time_remaining_ms"] - live_ms >= 0
            assert self.notify or not (person["is_active"] and person["has_expired"])
        for group in state.get("groups", []):
            name = f"group {group['group_id']}"
            assert group["time_used_ms"] + group["time_remaining_ms"] == self._owned(name)
            runs = any(person["group_id"] == group["group_id"] for person in active)
            assert group["time_used_ms"] + (running if runs else 0) == self.ran[name]
        if state["participants"]:
            assert sum(person["time_used_ms"] for person in state["participants"]) + running == self.running_ms
        if self.granted[SHARED]:
            used_ms = self.cycle_ms if self.mode == "per_cycle" else self.running_ms
            assert state["clock"]["remaining_ms"] + used_ms == self._owned(SHARED)
        if state["clock"]["deadline_ms"] is not None:
            assert state["clock"]["deadline_ms"] - session.updated_ms == state["clock"]["remaining_ms"]
        assert state["clock"]["running"] == (session.status == "running")
        assert (session.session_completed_ms is not None) == (session.status in TERMINAL)

    def _owned(self, owner: str) -> int:
        return self.granted[owner] + self.credited[owner] + self.adjusted[owner]
