"""Random commands to a store and to the model of docs/clock.md, compared after each step."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import orjson
import redis as redis_py
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from syncapp.domain.instants import iso
from syncapp.domain.patches import patch_of
from syncapp.domain.results import ExpiryResult, Result
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session import Session
from syncapp.errors import InvalidTransition, NotActiveParticipant, SyncError, ValidationFailed
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.topic import SessionUpdate, patch_between
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.clock_model import Model
from tests.support.clock_records import LIVE, Refused
from tests.support.invariants import Ledger
from tests.support.patches import apply_patch
from tests.support.store import NOON_MS, ManualClock, make_store, published

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "20"))
STEPS = 40
MAX_UNATTENDED = 7
MODES = ("per_participant", "per_cycle", "per_group", "global", "count_up")
PHASES = [phase for phase in Phase if phase is not Phase.shrink or not {"CI", "MUTANT_LUA_DIR"} & set(os.environ)]
"""In CI and in a mutant a failure is not made shorter, because that takes minutes; the printed blob reproduces it."""
ERRORS: dict[str, tuple[type[SyncError], str | None, str | None]] = {
    "invalid_transition": (InvalidTransition, None, None),
    "not_active_participant": (NotActiveParticipant, None, None),
    "unknown_participant": (ValidationFailed, "participant_id", "unknown_participant"),
    "unknown_next_participant": (ValidationFailed, "next_participant_id", "unknown_participant"),
    "expired_next_participant": (ValidationFailed, "next_participant_id", "expired_participant"),
    "unknown_group": (ValidationFailed, "group_id", "unknown_group"),
    "no_participant_budget": (ValidationFailed, "participant_id", "no_budget"),
    "no_group_budget": (ValidationFailed, "group_id", "no_budget"),
    "no_budget": (ValidationFailed, "op", "no_budget"),
    "unknown_target": (ValidationFailed, "targets", "unknown_target"),
    "no_such_stage": (ValidationFailed, "stage", "no_such_stage"),
    "no_moves": (ValidationFailed, "moves_to_next_stage", "no_moves"),
    "no_periods": (ValidationFailed, "periods_left", "no_periods"),
    "no_period": (ValidationFailed, "period_remaining_ms", "no_period"),
    "no_block": (ValidationFailed, "block_moves_left", "no_block"),
    "no_takebacks": (ValidationFailed, "cycles", "no_takebacks"),
    "too_few_turns": (ValidationFailed, "cycles", "too_few_turns"),
    "no_cycles_left": (InvalidTransition, None, None),
}
"""What each word of the model is as an error: its class, and its field and code."""
budgets = st.sampled_from([1000, 1000, 1001, 1500, 2000, 3000, 5000])
increments = st.sampled_from([0, 0, 1, 500, 1000])
thresholds = st.lists(
    st.sampled_from([1, 2, 500, 999, 1000, 1001, 1500, 2000, 4000]), min_size=1, max_size=4, unique=True
)
actions = st.one_of(
    st.none(),
    st.sampled_from(["end_session", "skip_cycle", "notify"]).map(lambda kind: {"type": kind}),
    st.sampled_from(["end_session", "skip_cycle", "notify"]).map(
        lambda kind: {"type": kind, "action": "fold", "penalty": {"ms": [1, 2.5]}}
    ),
)


@st.composite
def bodies(draw: st.DrawFn, mode: str) -> dict[str, Any]:
    """Draw the body of a create request."""
    body: dict[str, Any] = {"sync_mode": mode}
    if mode in ("per_participant", "per_group"):
        body["increment_ms"] = draw(increments)
    people: list[dict[str, Any]] = [{"participant_id": f"p{i}"} for i in range(draw(_people(mode)))]
    if mode == "per_participant":
        people = [person | {"total_time_ms": draw(budgets)} for person in people]
    if mode == "per_group":
        people, groups = draw(teams(people))
        body |= {"groups": groups} if groups else {}
    times = {"per_cycle": "time_per_cycle_ms", "global": "total_time_ms", "count_up": "max_time_ms"}
    if mode != "global" and draw(st.sampled_from([False, False, True])):
        body["total_time_ms"] = draw(budgets)
    if mode in times and (mode != "count_up" or draw(st.sampled_from([True, True, False]))):
        body[times[mode]] = draw(budgets)
    names_nobody: bool = draw(st.booleans())
    if people or names_nobody:
        body["participants"] = people
    optional: dict[str, st.SearchStrategy[Any]] = {
        "action_on_timeout": actions,
        "warn_at_ms": st.none() | thresholds,
        "max_cycles": st.sampled_from([None, None, None, 1, 2, 5]),
        "idle_timeout_s": st.sampled_from([None, None, None, 1, 2, 60]),
        "metadata": st.sampled_from([None, {"round": 1}]),
    }
    found = {name: draw(strategy) for name, strategy in optional.items()}
    return body | {name: value for name, value in found.items() if value is not None}


def _people(mode: str) -> st.SearchStrategy[int]:
    least = 1 if mode in ("per_participant", "per_group") else 0
    return st.sampled_from([count for count in (2, 3, 1, 0, 4, 6) if count >= least])


@st.composite
def teams(draw: st.DrawFn, people: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Draw the participants' groups, and the list of groups: empty, so that the participants make it, or given."""
    names = [f"g{i}" for i in range(draw(st.sampled_from([2, 3, 1, 4])))]
    people = [person | {"group_id": draw(st.sampled_from(names))} for person in people]
    given_groups = draw(st.booleans())
    groups: list[dict[str, Any]] = []
    owners = set()
    if given_groups:
        for name in names:
            peopled = any(person["group_id"] == name for person in people)
            if not peopled or draw(st.booleans()):
                owners.add(name)
                groups.append({"group_id": name, "total_time_ms": draw(budgets)})
            else:
                groups.append({"group_id": name})
    members = [
        person if person["group_id"] in owners and draw(st.booleans()) else person | {"total_time_ms": draw(budgets)}
        for person in people
    ]
    return members, groups


offsets = st.sampled_from([0, 0, -1, 1])
moves = st.one_of(
    st.tuples(st.just("by"), st.sampled_from([0, 0, 0, 1, 2, 499, 500, 501, 999, 1000])),
    st.tuples(st.just("by"), st.integers(0, 1500)),
    st.tuples(st.sampled_from(["due", "due", "timeout", "warning", "idle"]), offsets),
    st.tuples(st.just("by"), st.sampled_from([-1, -1000, -10_000, 10_000])),
    st.tuples(st.sampled_from(["by", "due", "idle"]), st.sampled_from([0, 5000, 5000, 70_000])),
)
places = st.integers(0, 5)
who = st.one_of(st.none(), st.none(), places)
amounts = st.sampled_from([0, 1, -1, 499, 500, 1000, 1001, 2000, 5000, -500, -1000, -5000])
stops = st.one_of(st.none(), st.none(), st.sampled_from([-5000, -1, 0, 1, 500, 1000, 3000]))
completions = st.fixed_dictionaries(
    {}, optional={"reason": st.just("it is over"), "result": st.sampled_from([0, "a draw", {"a b": [1, None]}])}
)


def machine_settings(examples: int = EXAMPLES, steps: int = STEPS) -> settings:
    """Return the settings of a test that runs a machine."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        phases=PHASES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        report_multiple_bugs=False,
    )


def run_machine(machine: type[ClockMachine], client: redis_py.Redis, redis_url: str, mode: str) -> None:
    """Run random sequences of a machine's rules, on two stores."""
    stores = [make_store(redis_url, max_unattended_cycles=MAX_UNATTENDED) for _ in range(2)]
    run_state_machine_as_test(
        lambda: machine(client, stores, redis_url, mode),  # type: ignore[arg-type]  # anything that makes one
        settings=machine_settings(),
    )


class ClockMachine(RuleBasedStateMachine):
    """One session after another, in one mode."""

    model_type: ClassVar[type[Model]] = Model
    ledger_type: ClassVar[type[Ledger]] = Ledger

    def __init__(self, client: redis_py.Redis, stores: list[SessionStore], redis_url: str, mode: str) -> None:
        super().__init__()
        client.flushdb()
        self.client, self.stores, self.redis_url, self.mode = client, stores, redis_url, mode
        self.clock = ManualClock(client)
        self.turns = 0
        self.agreed = False
        self.folded: Session | None = None

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self._create(data.draw(bodies(self.mode)))

    @precondition(lambda self: self.model.status not in LIVE)
    @rule(data=st.data(), move=moves)
    def begin_another(self, data: st.DataObject, move: tuple[str, int]) -> None:
        self._check_with_a_fresh_store()
        self._move(move)
        self._create(data.draw(bodies(self.mode)))

    @precondition(lambda self: self.model.status == "pending")
    @rule(move=moves, first=who)
    def start(self, move: tuple[str, int], first: int | None) -> None:
        self._do(move, "start", participant_id=self._name(first))

    @precondition(lambda self: self.model.status == "running")
    @rule(move=moves, following=who, named=st.sampled_from([False, False, True]))
    def switch(self, move: tuple[str, int], following: int | None, named: bool) -> None:
        mover = self.model.active if named else None
        self._do(move, "switch", participant_id=mover, next_participant_id=self._name(following))

    @precondition(lambda self: self.model.status in ("running", "paused"))
    @rule(move=moves)
    def pause_or_resume(self, move: tuple[str, int]) -> None:
        self._do(move, "pause" if self.model.status == "running" else "resume")

    @precondition(lambda self: self.model.status in LIVE)
    @rule(move=moves, op=st.sampled_from(["add", "set", "at_least"]), ms=amounts, whose=who, stop=stops)
    def adjust(self, move: tuple[str, int], op: str, ms: int, whose: int | None, stop: int | None) -> None:
        named: dict[str, Any] = {}
        if self.mode == "per_group" and whose is not None and whose % 2:
            names = list(self.model.budgets)
            named["group_id"] = names[whose // 2 % len(names)]
        elif self.mode in ("per_participant", "per_group"):
            named["participant_id"] = self._name(whose)
        self._move(move)
        if stop is not None:
            named["not_after_ms"] = max(self.clock.now_ms, self.model.now) + stop
        if whose == 0:
            named["reason"] = 'the "judge"\n'
        self._do(("by", 0), "adjust", op=op, ms=ms if op == "add" else abs(ms), **named)

    @rule(move=moves, sweep=st.booleans())
    def look(self, move: tuple[str, int], sweep: bool) -> None:
        self._move(move)
        if not sweep:
            self._check()
            return
        known = len(self.model.events)
        self.model.settle(self.clock.now_ms)
        applied: list[int] = []
        while True:
            (swept,) = self.stores[0].expire([self.session_id])
            assert isinstance(swept, ExpiryResult)
            applied += swept.instants_ms
            if not swept.more:
                break
        assert applied == [event["at_ms"] for event in self.model.events[known:]]
        self._check()

    @rule(move=moves, look=st.booleans())
    def watch(self, move: tuple[str, int], look: bool) -> None:
        self._move(move)
        assert self.stores[0].attend([self.session_id]) == [None]
        self.model.attend(self.clock.now_ms)
        held = self.folded
        if held and held.idle_ms != self.model.idle_at:  # it changes without a commit
            self.folded = replace(held, idle_ms=self.model.idle_at)
            self.client_state["idle_at"] = iso(self.model.idle_at)
        assert not self._new_events()
        self.agreed = False
        if look:
            self._check()

    @rule(move=moves, value=st.integers(0, 3))
    def update(self, move: tuple[str, int], value: int) -> None:
        self._do(move, "update", {"value": value})

    @precondition(lambda self: self.model.status in LIVE)
    @rule(move=moves, how=st.sampled_from(["get", "get", "get", "complete", "cancel"]), told=completions)
    def finish(self, move: tuple[str, int], how: str, told: dict[str, Any]) -> None:
        if how == "get":
            self._move(move)
            self._check()
        else:
            self._do(move, how, **(told if how == "complete" else {}))

    @rule(
        move=moves,
        command=st.sampled_from(["start", "switch", "pause", "resume", "adjust", "complete", "cancel"]),
        fault=st.sampled_from(["none", "participant", "next", "turn", "group", "budget"]),
        whose=places,
    )
    def run_an_invalid_command(self, move: tuple[str, int], command: str, fault: str, whose: int) -> None:
        args: dict[str, Any] = {"op": "add", "ms": 1} if command == "adjust" else {}
        if command in ("complete", "cancel") and self.model.status in LIVE:
            command = "start" if self.model.status != "pending" else "pause"
        if fault == "participant" and command in ("start", "switch", "adjust"):
            args["participant_id"] = "nobody"
        if fault == "next" and command == "switch":
            args["next_participant_id"] = "nobody"
        if fault == "turn" and command == "switch":
            args["participant_id"] = self._name(whose)
        if fault == "group" and command == "adjust":
            args["group_id"] = "nobody"
        if fault == "budget" and command == "adjust":
            args["participant_id"] = self._name(whose)
        if command == "cancel":
            args["reason"] = "rain"
        self._do(move, command, **args)

    def teardown(self) -> None:
        if self.agreed:
            self._check_with_a_fresh_store()

    # Comparisons of the store with the model.

    def _create(self, body: dict[str, Any]) -> None:
        note(f"body = {body}")
        made = self.stores[0].create(CreateSession.parse(orjson.loads(orjson.dumps(body))))
        self.session_id = made.found.session_id
        self.model = self.model_type(body, self.clock.now_ms, max_unattended=MAX_UNATTENDED)
        self.seen = "-"
        self.known = 0
        self.folded = None
        self.client_state: dict[str, Any] = {}
        self.body = body
        assert made.event == self.model.events[0]
        self._check()

    def _name(self, place: int | None) -> str | None:
        names = list(self.model.people)
        return names[place % len(names)] if names and place is not None else None

    def _move(self, move: tuple[str, int]) -> None:
        kind, offset = move
        due = self.model.next_due()
        zero_ms = self.model.deadline()
        base = self.clock.now_ms
        if kind == "due" and due is not None:
            base = due.at_ms
        if kind == "idle" and self.model.idle_at is not None:
            base = self.model.idle_at
        if kind == "timeout" and zero_ms is not None:
            base = zero_ms
        if kind == "warning" and zero_ms is not None:
            base = zero_ms - min(self.body.get("warn_at_ms") or [0])
        # At most 10 s ahead, because settling an hour of one-second cycles would take too long.
        self.clock.set(max(NOON_MS - 100_000, min(base, self.clock.now_ms + 10_000) + offset))
        note(f"now = NOON_MS + {self.clock.now_ms - NOON_MS}")

    def _do(self, move: tuple[str, int], command: str, *values: Any, **args: Any) -> None:
        self._move(move)
        args = {name: value for name, value in args.items() if value is not None}
        note(f"{command} {values or ''}{args}, {self.model.status}")
        expected: dict[str, Any] | Refused | None
        try:
            expected = getattr(self.model, command)(self.clock.now_ms, *values, **args)
        except Refused as refused:
            expected = refused
        self.turns += 1
        self.agreed = False
        found: Result | SyncError
        try:
            found = getattr(self.stores[self.turns % 2], command)(self.session_id, *values, **args)
        except SyncError as error:
            found = error
        if isinstance(expected, Refused):
            self._compare_refusal(expected.word, found)
        else:
            assert isinstance(found, Result), found
            assert found.event == expected
        self._check()

    def _compare_refusal(self, word: str, found: Result | SyncError) -> None:
        kind, field, code = ERRORS[word]
        assert type(found) is kind, f"{found!r} instead of {word}"
        if field:
            assert (found.details[0]["field"], found.details[0]["code"]) == (field, code)

    def _check(self) -> None:
        """Compare the commits and the state of the store with those of the model."""
        self.agreed = False
        events = self._new_events()
        result = self.stores[(self.turns + 1) % 2].get(self.session_id)
        late = self._new_events()
        self.model.settle(self.clock.now_ms)
        assert events + late == self.model.events[self.known :]
        self.known = len(self.model.events)
        assert result.found == self.folded
        assert document(result) == {"session_id": self.session_id, **self.model.state()}
        score = self.client.zscore(Keyspace().deadlines(Keyspace().bucket(self.session_id)), self.session_id)
        due = self.model.next_due()
        assert score == (due.at_ms if due else None)
        self.agreed = True

    def _new_events(self) -> list[dict[str, Any]]:
        """Read the commits since the last call, apply their patches, and enter them in the ledger."""
        outbox = Keyspace().outbox(Keyspace().bucket(self.session_id))
        entries: Any = self.client.xrange(outbox, min=self.seen if self.seen == "-" else f"({self.seen}")
        events = []
        for entry_id, fields in entries:
            self.seen = entry_id.decode()
            message = published(fields[b"message"])
            if message["session_id"] != self.session_id:
                continue
            events.append(message["event"])
            self._fold(message)
        return events

    def _fold(self, message: dict[str, Any]) -> None:
        if self.folded is None:
            self.folded = Session.from_snapshot(self.session_id, message["snapshot"])
            self.ledger = self.ledger_type(self.body, self.folded)
            self.client_state = orjson.loads(orjson.dumps(self.folded.state(0)))
        elif message["event"]["type"] == "session_restored":
            self.folded = Session.from_snapshot(self.session_id, message["snapshot"])
            self.ledger.reopen(self.folded)
            self.client_state = orjson.loads(orjson.dumps(self.folded.state(0)))
        else:
            before, self.folded = self.folded, self.folded.fold(*patch_of(message))
            patch = patch_between(patch_of(message)[0], before, self.folded)
            update = SessionUpdate(self.session_id, 0, session=self.folded, event=message["event"], patch=patch)
            self.client_state = apply_patch(self.client_state, orjson.loads(update.payload(Outgoing.STATE_PATCH)))
            assert self.client_state == orjson.loads(orjson.dumps(self.folded.state(update.at_ms)))
            if "snapshot" in message:
                assert Session.from_snapshot(self.session_id, message["snapshot"]) == self.folded
            self.ledger.enter(message["event"], self.folded)

    def _check_with_a_fresh_store(self) -> None:
        self.model.settle(self.clock.now_ms)
        fresh = make_store(self.redis_url, max_unattended_cycles=MAX_UNATTENDED).get(self.session_id)
        assert fresh.found == self.folded
        assert document(fresh) == {"session_id": self.session_id, **self.model.state()}


def document(result: Result) -> Any:
    """Return the state document as a client reads it."""
    return orjson.loads(orjson.dumps(result.found.state(result.now_ms)))
