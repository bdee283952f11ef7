"""Random time controls and commands, to a store and to the plain model of time controls, compared after each step.

All times are a few ms, so that what runs out often does so in the ms of a command, or beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from syncapp.domain.notation import format_control
from syncapp.domain.records import Group, Participant
from syncapp.domain.session import Session
from syncapp.domain.time_control import TimeControl
from syncapp.errors import InvalidTransition
from tests.support.clock_machine import ClockMachine, actions, teams, who
from tests.support.clock_records import LIVE, SHARED, body_people
from tests.support.control_model import ControlModel
from tests.support.invariants import Ledger

BOUNDARIES = ("period_started", "period_lost", "block_started")
KINDS = ("absolute", "fischer", "capped", "simple", "bronstein", "byo_yomi", "csa", "canadian", "per_move")
main_times = st.sampled_from([10, 20, 0, 1, 2, 5, 30])
bonuses = st.sampled_from([5, 1, 2, 10, 0])
lengths = st.sampled_from([5, 10, 1, 2, 7])
counts = st.sampled_from([2, 3, 1])
amounts = st.sampled_from([0, 1, -1, 5, 10, 11, 20, 50, -5, -10, -50])
stops = st.one_of(st.none(), st.none(), st.sampled_from([-50, -1, 0, 1, 5, 10, 30]))
thresholds = st.lists(st.sampled_from([5, 1, 2, 4, 9, 10, 20]), min_size=1, max_size=4, unique=True)
steps = st.one_of(
    st.tuples(st.just("by"), st.integers(0, 7)),
    st.tuples(st.just("by"), st.sampled_from([0, 1, 2, 5, 10])),
    st.tuples(st.just("due"), st.sampled_from([0, -1, 1, 2, -2])),
    st.tuples(st.sampled_from(["due", "due", "timeout", "warning", "by"]), st.sampled_from([0, 0, -1, 1, 20, -20])),
)
units = st.sampled_from([1, 1, 1, 2, 5, 10])
least_charges = st.sampled_from([0, 0, 0, 1, 5])
margins = st.sampled_from([0, 0, 1, 5])


@st.composite
def stages(draw: st.DrawFn, *, is_last: bool) -> dict[str, Any]:
    """Draw a stage of any kind, other than an hourglass."""
    kind = draw(st.sampled_from(KINDS))
    stage: dict[str, Any] = {"per_move_ms": draw(lengths)} if kind == "per_move" else {"time_ms": draw(main_times)}
    if kind in ("fischer", "capped", "csa"):
        stage["increment_ms"] = draw(bonuses)
    if kind == "capped":
        stage["cap_ms"] = draw(st.sampled_from([10, 20, 30]))
    if kind in ("simple", "bronstein"):
        stage |= {"delay": kind, "delay_ms": draw(bonuses)}
    if kind in ("byo_yomi", "csa"):
        stage |= {"periods": draw(counts), "period_ms": draw(lengths)}
    if kind == "canadian":
        stage |= {"period_moves": draw(counts), "period_ms": draw(lengths)}
    if not is_last or draw(st.sampled_from([False, False, True])):
        stage["moves"] = draw(counts)
        stage |= {"repeat": True} if is_last else {}
    return stage


@st.composite
def controls(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a time control, other than an hourglass."""
    count = draw(st.sampled_from([1, 1, 2, 3]))
    control: dict[str, Any] = {"stages": [draw(stages(is_last=place + 1 == count)) for place in range(count)]}
    optional = {"margin_ms": margins, "charge_unit_ms": units, "min_charge_ms": least_charges}
    control |= {name: draw(strategy) for name, strategy in optional.items()}
    control["first_bonus"] = draw(st.sampled_from(["after_move", "before_move"]))
    before: dict[str, Any] = {"per_move_ms": 0}
    for stage in control["stages"]:
        # No time is left of a time for each move. A stage that follows it needs time of its own, as the first one does.
        if "per_move_ms" in before and stage.get("time_ms") == 0 and "period_ms" not in stage:
            bonus = stage.get("increment_ms") or stage.get("delay_ms")
            is_in_time = bonus and (stage.get("delay") == "simple" or control["first_bonus"] == "before_move")
            stage["time_ms"] = 0 if is_in_time else draw(lengths)
        before = stage
    return control


@st.composite
def control_bodies(draw: st.DrawFn, mode: str) -> dict[str, Any]:
    """Draw the body of a create request with time controls."""
    people: list[dict[str, Any]] = [{"participant_id": f"p{i}"} for i in range(draw(st.sampled_from([2, 2, 1, 3, 4])))]
    body: dict[str, Any] = {"sync_mode": mode}
    if mode == "per_group":
        people, groups = draw(teams(people))
        names = [group["group_id"] for group in groups] or list(dict.fromkeys(each["group_id"] for each in people))
        people = [{name: each[name] for name in ("participant_id", "group_id")} for each in people]
        body["groups"] = owners = [{"group_id": name} for name in names]
    else:
        owners = people
    body["participants"] = people
    optional: dict[str, st.SearchStrategy[Any]] = {
        "action_on_timeout": actions,
        "warn_at_ms": st.none() | thresholds,
        "warn_scope": st.sampled_from([None, "main", "period", "period"]),
        "max_cycles": st.sampled_from([None, None, None, None, 3, 7]),
        "idle_timeout_s": st.sampled_from([None, None, None, 1]),
    }
    found = {name: draw(strategy) for name, strategy in optional.items()}
    body |= {name: value for name, value in found.items() if value is not None}
    skips = (found["action_on_timeout"] or {}).get("type") == "skip_cycle"
    has_all_members = mode != "per_group" or {each["group_id"] for each in people} == {o["group_id"] for o in owners}
    if len(owners) > 1 and has_all_members and not skips and draw(st.sampled_from([False, False, False, True])):
        stage = {"time_ms": draw(lengths) + draw(main_times), "hourglass": True}
        return body | {"time_control": {"stages": [stage], "margin_ms": draw(margins)}}
    if draw(st.sampled_from([True, True, False])):
        body["time_control"] = draw(controls())
        for owner in owners[1:]:
            if draw(st.sampled_from([False, True])):
                owner["time_control"] = draw(controls())
        return body
    owners[0]["time_control"] = draw(controls())
    body["increment_ms"] = draw(bonuses)
    for owner in owners[1:]:
        owner.update(draw(st.sampled_from([{"total_time_ms": 1000}, {"time_control": draw(controls())}])))
    return body


class EchoingModel(ControlModel):
    """The model, with what a state repeats of the request."""

    def state(self) -> dict[str, Any]:
        """Return the state document as of the last settling, without the session's id."""
        shown = super().state()
        shown["warn_scope"] = self.body.get("warn_scope", "main")
        if "time_control" in self.body:
            shown |= echo(self.body["time_control"])
        holders = shown["participants"] if self.mode == "per_participant" else shown["groups"]
        for holder, owner in zip(holders, self.budgets, strict=True):
            control = self.clock(owner).control
            if control != self.body.get("time_control") or "time_control" in self._owner_body(owner):
                holder.update(echo(control))
        return shown

    def _owner_body(self, owner: str) -> dict[str, Any]:
        listed: list[dict[str, Any]] = [*(self.body.get("groups") or []), *body_people(self.body)]
        name = "participant_id" if self.mode == "per_participant" else "group_id"
        return next(each for each in listed if each.get(name) == owner)


def echo(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a state that repeat a time control."""
    control = TimeControl.model_validate(raw).normalized()
    return {"time_control": control.document(), "time_control_notation": format_control(control)}


class ControlLedger(Ledger):
    """A ledger of a session with time controls."""

    def __init__(self, body: dict[str, Any], session: Session) -> None:
        super().__init__(body, session)
        self.is_hourglass = (body.get("time_control") or {"stages": [{}]})["stages"][0].get("hourglass", False)
        self.total_ms = sum(self._main_times(session).values())
        self.turn_began_with: int | None = None
        self.adjusted_in_turn = 0

    def _main_times(self, session: Session) -> dict[str, int]:
        names = session.definition.group_ids or session.definition.participant_ids
        owners: Sequence[Participant | Group] = session.groups or session.participants
        return {name: owner.time_remaining_ms for name, owner in zip(names, owners, strict=True)}

    def _owner(self, session: Session) -> str | None:
        active = session.active_participant_id
        return active if self.mode == "per_participant" or active is None else self.group_of[active]

    def _enter_budget_changes(self, event: dict[str, Any], before: Session, after: Session) -> None:
        mover = self._owner(before)
        if event["type"] == "time_adjusted":
            self.total_ms += event["adjusted_ms"]
            if event.get("participant_id", event.get("group_id")) == mover:
                self.adjusted_in_turn += event["adjusted_ms"]
        if event["type"] in BOUNDARIES and before.active_participant_id == event["participant_id"]:
            self.turn_began_with = None
        if event["type"] == "cycle_switched" and self.turn_began_with is not None and mover is not None:
            expected = self.turn_began_with + self.adjusted_in_turn - event["spent_ms"] + event["bonus_ms"]
            assert event["remaining_ms"] == self._main_times(after)[mover] == expected
        if event["type"] == "session_started" or after.cycle_count > before.cycle_count:
            self.adjusted_in_turn = 0
            owner = self._owner(after)
            clocks = dict(zip(self._main_times(after), after.clocks, strict=True))
            self.turn_began_with = (
                self._main_times(after)[owner] if owner is not None and not clocks[owner].overtime else None
            )
        assert not self.is_hourglass or self.total_ms == sum(self._main_times(after).values())

    def _check(self, session: Session) -> None:
        state = session.state(session.updated_ms)
        running = state["clock"]["elapsed_ms"] if session.status == "running" else 0
        active = [person for person in state["participants"] if person["is_active"]]
        assert bool(active) == (session.status in ("running", "paused"))
        used: Counter[str] = Counter()
        for person in state["participants"]:
            used[person["participant_id"]] = person["time_used_ms"] + (running if person["is_active"] else 0)
            assert self.notify or not (person["is_active"] and person["has_expired"])
        assert all(used[name] == self.ran[name] for name in used)
        assert used.total() == self.running_ms
        assert self.granted[SHARED] == 0


class ControlMachine(ClockMachine):
    """One session with time controls after another, in one mode."""

    model_type = EchoingModel
    ledger_type = ControlLedger

    watch = update = None  # type: ignore[assignment]  # what concerns no clock is left to the plain machine

    @initialize(data=st.data(), starts=st.sampled_from([True, True, False]))
    def begin(self, data: st.DataObject, starts: bool) -> None:
        self._create(data.draw(control_bodies(self.mode)))
        if starts:
            self._do(("by", 0), "start")

    @precondition(lambda self: self.model.status not in LIVE)
    @rule(data=st.data(), starts=st.sampled_from([True, True, False]))
    def begin_another(self, data: st.DataObject, starts: bool) -> None:
        self._check_with_a_fresh_store()
        self.begin(data, starts)

    @precondition(lambda self: self.model.status == "pending")
    @rule(move=steps, first=who)
    def start(self, move: tuple[str, int], first: int | None) -> None:
        self._do(move, "start", participant_id=self._name(first))

    @precondition(lambda self: self.model.status == "running")
    @rule(move=steps)
    def switch(self, move: tuple[str, int]) -> None:
        self._do(move, "switch")

    @precondition(lambda self: self.model.status == "running")
    @rule(move=steps, following=who, named=st.booleans())
    def switch_with_names(self, move: tuple[str, int], following: int | None, named: bool) -> None:
        mover = self.model.active if named else None
        self._do(move, "switch", participant_id=mover, next_participant_id=self._name(following))

    # An hourglass has no opening book: what the others gained is not taken back from them.
    @precondition(lambda self: self.model.status == "running" and not self.model.running_clock().is_hourglass)
    @rule(move=steps)
    def play_a_book_move(self, move: tuple[str, int]) -> None:
        self._do(move, "switch", is_free=True)

    @precondition(lambda self: self.model.status in ("running", "paused"))
    @rule(move=steps)
    def pause_or_resume(self, move: tuple[str, int]) -> None:
        self._do(move, "pause" if self.model.status == "running" else "resume")

    @precondition(lambda self: self.model.status in LIVE)
    @rule(move=steps, op=st.sampled_from(["add", "set", "at_least"]), ms=amounts, whose=who, stop=stops)
    def adjust(self, move: tuple[str, int], op: str, ms: int, whose: int | None, stop: int | None) -> None:
        self._move(move)
        named: dict[str, Any] = {"participant_id": self._name(whose)}
        if stop is not None:
            named["not_after_ms"] = max(self.clock.now_ms, self.model.now) + stop
        self._do(("by", 0), "adjust", op=op, ms=ms if op == "add" else abs(ms), **named)

    @precondition(lambda self: self.model.status in LIVE)
    @rule(move=steps, sweep=st.booleans())
    def look(self, move: tuple[str, int], sweep: bool) -> None:
        super().look(move, sweep)

    @precondition(lambda self: self.model.status in LIVE)
    @rule(how=st.sampled_from([None, None, None, "complete", "cancel"]))
    def finish(self, how: str | None) -> None:
        if how is not None:
            self._do(("by", 0), how)

    @rule(move=steps, command=st.sampled_from(["start", "pause", "resume"]))
    def run_an_invalid_command(self, move: tuple[str, int], command: str) -> None:
        self._do(move, command)

    @precondition(lambda self: self.model.status not in LIVE)
    @rule(command=st.sampled_from(["start", "switch", "pause", "resume"]))
    def try_after_the_end(self, command: str) -> None:
        before = self.model.version
        with pytest.raises(InvalidTransition):
            getattr(self.stores[0], command)(self.session_id)
        self._check()
        assert self.model.version == before
