"""Random games with time controls in which an arbiter intervenes, to a store and to the plain model."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from syncapp.domain.session import Session
from tests.support.arbiter_model import ArbiterModel
from tests.support.clock_machine import who
from tests.support.clock_records import LIVE
from tests.support.control_machine import (
    ControlLedger,
    ControlMachine,
    EchoingModel,
    amounts,
    control_bodies,
    lengths,
    steps,
)
from tests.support.store import dump_session

clock_changes = st.fixed_dictionaries(
    {},
    optional={
        "stage": st.sampled_from([1, 2, 3]),
        "moves_to_next_stage": st.sampled_from([1, 2, 3]),
        "periods_left": st.sampled_from([1, 2, 5]),
        "period_remaining_ms": lengths,
        "block_moves_left": st.sampled_from([1, 2]),
    },
)
one_change = st.one_of(
    st.sampled_from([1, 2, 3]).map(lambda value: {"stage": value}),
    st.sampled_from([1, 2]).map(lambda value: {"moves_to_next_stage": value}),
    st.sampled_from([1, 2, 5]).map(lambda value: {"periods_left": value}),
    lengths.map(lambda value: {"period_remaining_ms": value}),
    st.sampled_from([1, 2]).map(lambda value: {"block_moves_left": value}),
)


class EchoingArbiterModel(ArbiterModel, EchoingModel):
    """The model, with what a state repeats of the request."""


class ArbiterLedger(ControlLedger):
    """A ledger of a session in which cycles are taken back."""

    def _enter_budget_changes(self, event: dict[str, Any], before: Session, after: Session) -> None:
        if event["type"] == "cycles_taken_back":
            self._take_back(after)
        elif event["type"] == "time_adjusted" and "adjusted" in event:
            owner = self._owner(before)
            for name, change in event["adjusted"].items():
                self.total_ms += change["adjusted_ms"]
                self.adjusted_in_turn += change["adjusted_ms"] if name == owner else 0
        else:
            super()._enter_budget_changes(event, before, after)
        if "stage" in event and event["type"] == "time_adjusted":
            self.turn_began_with = None  # a delay may count for a part of the turn only

    def _take_back(self, after: Session) -> None:
        """Forget the time that is charged to nobody now; the sum of an hourglass is what it was."""
        for name, person in zip(after.definition.participant_ids, after.participants, strict=True):
            self.ran[name] = person.time_used_ms
        self.running_ms = sum(person.time_used_ms for person in after.participants)
        owner, self.adjusted_in_turn = self._owner(after), 0
        clocks = dict(zip(self._main_times(after), after.clocks, strict=True))
        assert owner is not None
        self.turn_began_with = None if clocks[owner].overtime else self._main_times(after)[owner]
        assert not self.is_hourglass or self.total_ms == sum(self._main_times(after).values())


class ArbiterMachine(ControlMachine):
    """One session with time controls after another, in one mode, with an arbiter."""

    model_type = EchoingArbiterModel
    ledger_type = ArbiterLedger

    @initialize(data=st.data(), starts=st.sampled_from([True, True, False]))
    def begin(self, data: st.DataObject, starts: bool) -> None:
        kept = data.draw(st.sampled_from([3, 1, 2, 100, None]))
        more = {} if kept is None else {"takeback_cycles": kept}
        self._create(data.draw(control_bodies(self.mode)) | more)
        if starts:
            self._do(("by", 0), "start")

    @rule(move=steps, cycles=st.sampled_from([1, 1, 2, 3, 4]))
    def take_back(self, move: tuple[str, int], cycles: int) -> None:
        self._do_or_change_nothing(move, "takeback", cycles=cycles, reason="an illegal move" if cycles == 2 else None)

    @precondition(lambda self: self.model.status not in LIVE)
    @rule(move=steps)
    def reopen(self, move: tuple[str, int]) -> None:
        self._do_or_change_nothing(move, "reopen")

    @precondition(lambda self: self.model.status in LIVE)
    @rule(move=steps)
    def reopen_what_is_live(self, move: tuple[str, int]) -> None:
        self._move(move)
        self._check()
        if self.model.status in LIVE:
            self._do_or_change_nothing(("by", 0), "reopen")

    @precondition(lambda self: self.model.status in LIVE)
    @rule(move=steps, changes=one_change | clock_changes, whose=who)
    def adjust_a_stage(self, move: tuple[str, int], changes: dict[str, int], whose: int | None) -> None:
        self._do_or_change_nothing(move, "adjust", participant_id=self._name(whose), **changes)

    @precondition(lambda self: self.model.status in LIVE)
    @rule(
        move=steps,
        op=st.sampled_from(["add", "set", "at_least"]),
        ms=amounts,
        places=st.none() | st.lists(st.integers(0, 3), min_size=1, max_size=4),
        changes=st.just({}) | one_change,
        unknown=st.sampled_from([False, False, False, False, True]),
    )
    def adjust_several(
        self,
        move: tuple[str, int],
        op: str,
        ms: int,
        places: list[int] | None,
        changes: dict[str, int],
        unknown: bool,
    ) -> None:
        names = list(self.model.budgets)
        targets: Any = "all" if places is None else [names[place % len(names)] for place in places]
        if unknown and targets != "all":
            targets.append("nobody")
        ms = ms if op == "add" else abs(ms)
        self._do_or_change_nothing(move, "adjust", op=op, ms=ms, targets=targets, **changes)

    def _do_or_change_nothing(self, move: tuple[str, int], command: str, **args: Any) -> None:
        """Run a command; if it is refused, compare all that the store has of the session."""
        self._move(move)
        self._check()
        version, before = self.model.version, dump_session(self.client, self.session_id)
        self._do(("by", 0), command, **args)
        if self.model.version == version:
            assert dump_session(self.client, self.session_id) == before
