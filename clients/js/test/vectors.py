"""Write cases for the tests of the JavaScript client: states, and what the server says that their clocks show later.

    PYTHONPATH=. AUTH=off python clients/js/test/vectors.py OUT.json SEED

Random games are played with the real scripts, on a private store whose clock is set. The file has

- `moments`: {label, state, cases: [{at_ms, readings, elapsed_ms}]}. label: one of LABELS. readings: by owner ('' for
  none), with the members of the client's `Reading`; None where the client shall not know it. at_ms: None while the time
  is not known.
- `chains`: {state, steps: [{message, state}]}: what each `STATE_PATCH` makes of the state before.
- `counts`: how many cases there are, by label and by further rules. `past`: how many are about an instant after a
  boundary, after the end of the time, or while the server waits for a move that may be on its way.

What is due is not applied before a case's time, so the client has to foresee the boundaries of periods and blocks. From
the end of the time on, the expected clocks are those of that instant: what follows comes with the server's next state.
"""  # noqa: INP001  # a folder of the JavaScript package

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from syncapp.cli.time_control import private_store
from syncapp.dev.set_clock import NOON_MS, ManualClock
from syncapp.domain.owner_clocks import clocks
from syncapp.domain.patches import patch_of
from syncapp.domain.results import Claim
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session import LIVE, Session
from syncapp.errors import SyncError
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.topic import SessionUpdate, patch_between
from syncapp.store.sessions import SessionStore
from tests.support.store import outbox_messages

Document = dict[str, Any]
Step = tuple[Document, Session]
"""An event, and the session after it."""
CASES_EACH = 250
"""At least so many cases of each mode and kind."""
MAX_STEPS = 25
FOREVER_MS = 10**15
BUDGETS = {"per_cycle": "time_per_cycle_ms", "global": "total_time_ms", "count_up": "max_time_ms"}
KINDS = (
    *("absolute", "fischer", "capped", "simple", "bronstein", "byo_yomi", "csa", "canadian", "per_move"),
    *("hourglass", "stages"),
)
PLAIN = ("per_participant", "per_group", "per_cycle", "global", "count_up", "stopwatch")
LABELS = (
    *(f"{mode} {kind}" for mode in ("per_participant", "per_group") for kind in KINDS),
    *(f"{mode} plain" for mode in PLAIN),
)
BOUNDARIES = ("period_started", "period_lost", "block_started")
TIMEOUTS = ("participant_expired", "group_expired", "cycle_timed_out", "session_expired")


# What the server says.


def owners_of(session: Session) -> list[str]:
    """Return '' and the ids of participants and groups, of many only some, and one that is unknown."""
    definition = session.definition
    return ["", *definition.participant_ids[:4], *definition.group_ids[:3], "nobody"]


def end_of(session: Session) -> int:
    """Return the instant (ms) at which the running clock stands, because the time is used up."""
    deadline_ms = session.clock(session.updated_ms)["deadline_ms"]
    notifies = session.definition.action_on_timeout["type"] == "notify"
    return FOREVER_MS if notifies or deadline_ms is None else deadline_ms


def boundary_of(session: Session) -> int:
    """Return the instant (ms) of the next boundary of a period or block."""
    control = session.running_control()
    if control is None or control.started_ms is None or control.has_expired:
        return FOREVER_MS
    stage, clock = control.stage, control.clock
    if not stage.period_ms or (clock.overtime and not (stage.periods and clock.count > 1)):
        return FOREVER_MS
    return int(control.shown(control.started_ms)["next_at_ms"])


def holder_of(session: Session, owner: str) -> tuple[str, int] | None:
    """Return whose budget an owner has: the list and the place in it; the list is '' if all share one budget."""
    definition = session.definition
    mover = session.turn or 0
    if owner in definition.group_index:
        return "groups", definition.group_index[owner]
    if owner and owner not in definition.index:
        return None
    place = definition.index[owner] if owner else mover
    if session.groups:
        return "groups", definition.group_of[place]
    return ("participants", place) if session.sync_mode == "per_participant" else ("", 0)


def reading(session: Session, at_ms: int, owner: str, *, is_over: bool = False) -> Document | None:
    """Return what an owner's clock shows at an instant, with the members of the client's `Reading`.

    is_over: the time was used up at that instant. Before a commit that waits for lag, clocks stand at what is due.
    """
    holder = holder_of(session, owner)
    if holder is None:
        return None
    kind, place = holder
    until_ms = min(at_ms, end_of(session))
    shown_ms = min(until_ms, boundary_of(session))
    clock, live = session.clock(shown_ms), clocks(session, shown_ms)
    mover = holder_of(session, "")
    hourglass = bool(session.clocks and session.definition.controls[0].stages[0].hourglass)
    changes = session.status == "running" and (holder == mover or hourglass)
    found = {
        "ms": live[kind][place]["remaining_ms"] if kind else clock["remaining_ms"],
        "running": changes and not is_over and at_ms < end_of(session),
        "usedMs": used_ms(session, until_ms, owner),
    }
    found |= {"phase": "main", "delayMs": 0, "periodsLeft": None, "blockMovesLeft": None}
    if not session.clocks:
        return found
    own, shown = session.clocks[place], session.state(shown_ms)[kind][place]
    stage = session.definition.controls[place].stages[own.stage - 1]
    found |= {"periodsLeft": shown["periods_left"], "blockMovesLeft": shown["block_moves_left"]}
    if own.overtime:
        return found | {"ms": live[kind][place]["period_remaining_ms"], "phase": "period" if stage.periods else "block"}
    delay_ms = max(0, (stage.delay_ms or 0) - own.turn_ms) if stage.delay == "simple" else 0
    if holder == mover:
        delay_ms = clock["phase_remaining_ms"] if clock["phase"] == "delay" else 0
    return found | {"phase": "delay" if delay_ms else "main", "delayMs": delay_ms}


def used_ms(session: Session, at_ms: int, owner: str) -> int:
    """Return the time that an owner, or for '' the session, has used until an instant."""
    live = clocks(session, at_ms)
    for kind, name in (("participants", "participant_id"), ("groups", "group_id")):
        for each in live.get(kind, []):
            if each[name] == owner:
                return int(each["used_ms"])
    if session.time_used_ms is None:
        return sum(each["used_ms"] for each in live["participants"])
    ran_ms = at_ms - session.cycle_started_ms if session.status == "running" and session.cycle_started_ms else 0
    return session.time_used_ms + max(0, ran_ms)


def case(session: Session, at_ms: int, told_ms: int | None, *, is_over: bool = False) -> Document:
    """Return a case: what the client shall say at told_ms, which is what the server says at at_ms."""
    readings = {owner: reading(session, at_ms, owner, is_over=is_over) for owner in owners_of(session)}
    if session.status not in LIVE and not is_over and not any(each.turn_ms for each in session.clocks):
        # The state does not say whose clock the finished session's is.
        readings[""] = {
            name: value for name, value in (readings[""] or {}).items() if name in ("ms", "running", "usedMs")
        }
    elapsed_ms = session.clock(min(at_ms, end_of(session)))["elapsed_ms"]
    if told_ms is None and session.status == "running":
        readings = {owner: found if found and not found["running"] else None for owner, found in readings.items()}
        elapsed_ms = None
        if session.sync_mode not in ("per_participant", "per_group"):
            readings = dict.fromkeys(readings)
    return {"at_ms": told_ms, "readings": readings, "elapsed_ms": elapsed_ms}


def later(session: Session, steps: list[Step], at_ms: int) -> tuple[str, Document | None]:
    """Return what a client shall say at at_ms that has a session before these steps; None if it cannot know.

    Before it, what has happened: 'boundary', 'end', 'wait' (for a move that may be on its way) or ''.
    """
    happened = ""
    for event, after in steps:
        control = session.running_control()
        lag_ms = control.clock.lag_left_ms if control and event["type"] in (*BOUNDARIES, *TIMEOUTS) else 0
        if event["at_ms"] + lag_ms > at_ms:
            return "", None  # a command has ended the wait
        if event["type"] in TIMEOUTS and after.definition.action_on_timeout["type"] != "notify":
            flag = case(session, event["at_ms"], at_ms, is_over=True)
            if after.status != "expired":
                return "end", flag
            said = case(after, at_ms, at_ms, is_over=True)
            return "end", said if after.sync_mode == "count_up" else said | {"elapsed_ms": flag["elapsed_ms"]}
        if event["type"] not in (*BOUNDARIES, *TIMEOUTS, "time_warning"):
            return "", None
        happened = "boundary" if event["type"] in BOUNDARIES else happened
        session = after
    waits = session.status == "running" and at_ms >= min(boundary_of(session), end_of(session))
    return "wait" if waits else happened, case(session, at_ms, at_ms)


# Random games.


class Bodies:
    """Random bodies of create requests. rng: where chance comes from."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.scale = 1

    def draw(self, label: str) -> tuple[set[str], Document]:
        """Return the names of further rules, and a body of one of LABELS."""
        rng = self.rng
        mode, kind = label.split()
        self.scale = rng.choice([1, 1000, 997])
        action = rng.choice(["end_session", "end_session", "skip_cycle", "notify"])
        if kind == "hourglass" and action == "skip_cycle":
            action = "end_session"
        body: Document = {"action_on_timeout": {"type": action}, "metadata": {"round": 1}}
        if rng.random() < 0.3:
            body["warn_at_ms"] = [self.time(1, 5, 10)]
        if kind == "plain":
            return {action}, body | self._plain(mode)
        people, groups = self._people(mode, least=2)
        control, rules = self._control(kind)
        body |= {"sync_mode": mode, "participants": people, "time_control": control, "takeback_cycles": 3} | groups
        if kind != "hourglass" and rng.random() < 0.3:
            (groups["groups"] if groups else people)[0]["time_control"] = self._control(rng.choice(KINDS[:-2]))[0]
            rules.add("odds")
        if rng.random() < 0.45:
            body["lag_compensation"] = {
                "per_move_ms": rng.choice([0, 5, 50]),
                "quota_ms": rng.choice([1, 7, 300, 5000]),
            }
            rules.add("lag")
        return {action, *rules}, body

    def time(self, *units: int) -> int:
        """Return one of these times, in ms."""
        return self.rng.choice(units) * self.scale

    def _plain(self, name: str) -> Document:
        mode = "count_up" if name == "stopwatch" else name
        budget_ms = self.rng.choice([1000, 1001, 5000, 60_000, 3_600_000])
        has_owners = mode in ("per_participant", "per_group")
        people, groups = self._people(mode, least=1 if has_owners else 0)
        body: Document = {"sync_mode": mode, "participants": people} | groups
        if has_owners:
            for each in groups.get("groups", people):
                each["total_time_ms"] = budget_ms + self.rng.choice([0, 0, 500])
            return body | {"increment_ms": self.rng.choice([0, 0, 1, 500]), "takeback_cycles": 3}
        return body if name == "stopwatch" else body | {BUDGETS[mode]: budget_ms}

    def _people(self, mode: str, least: int) -> tuple[list[Document], Document]:
        people: list[Document] = [{"participant_id": f"p{i}"} for i in range(self.rng.randint(least, 4))]
        if mode != "per_group":
            return people, {}
        names = [f"g{i}" for i in range(min(len(people), self.rng.choice([2, 2, 3])))]
        for place, each in enumerate(people):
            each["group_id"] = names[place % len(names)]
        return people, {"groups": [{"group_id": name} for name in self.rng.sample(names, len(names))]}

    def _control(self, kind: str) -> tuple[Document, set[str]]:
        rng = self.rng
        control: Document = {"stages": [{"time_ms": self.time(5, 10, 30), "hourglass": True}]}
        rules: set[str] = set()
        if kind == "stages":
            control = {"stages": [self._stage(rng.choice(KINDS[:-2])) for _ in range(rng.randint(2, 3))]}
            for stage in control["stages"]:
                stage["moves"] = rng.choice([1, 1, 2])
            control["stages"][-1]["repeat"] = True
        elif kind != "hourglass":
            control = {"stages": [self._stage(kind)]}
        options: Document = {"margin_ms": self.time(1, 5)}
        if kind != "hourglass":
            options |= {"charge_unit_ms": self.time(2, 5, 1), "min_charge_ms": self.time(1, 3)}
            options["first_bonus"] = "before_move"
        for name, value in options.items():
            if rng.random() < 0.3:
                control[name] = value
                rules.add(name)
        return control, rules

    def _stage(self, kind: str) -> Document:
        bonus_ms, period_ms = self.time(1, 2, 5), self.time(1, 3, 5, 10)
        stages: dict[str, Document] = {
            "absolute": {},
            "fischer": {"increment_ms": bonus_ms},
            "capped": {"increment_ms": bonus_ms, "cap_ms": self.time(10, 20)},
            "simple": {"delay": "simple", "delay_ms": bonus_ms},
            "bronstein": {"delay": "bronstein", "delay_ms": bonus_ms},
            "byo_yomi": {"periods": self.rng.randint(1, 4), "period_ms": period_ms},
            "csa": {"periods": self.rng.randint(1, 3), "period_ms": period_ms, "increment_ms": bonus_ms},
            "canadian": {"period_moves": self.rng.randint(1, 3), "period_ms": period_ms},
            "per_move": {"per_move_ms": period_ms},
        }
        return stages[kind] | ({} if kind == "per_move" else {"time_ms": self.time(2, 5, 10, 30)})


class Game:
    """A session that is played at random. moments, chain: what is known of it, for the file.

    past: how many cases are about an instant after a boundary, after the end of the time, and so on.
    """

    def __init__(self, store: SessionStore, clock: ManualClock, rng: random.Random, body: Document) -> None:
        self.store, self.clock, self.rng = store, clock, rng
        self.session_id = store.create(CreateSession.parse(body)).found.session_id
        self.known = 1
        (made,) = outbox_messages(clock.client, self.session_id)
        self.session = Session.from_snapshot(self.session_id, made["snapshot"])
        self.client_state = plain(self.session.state(clock.now_ms))
        self.chain: Document = {"state": self.client_state, "steps": []}
        self.moments: list[Document] = []
        self.past: Counter[str] = Counter()

    def play(self) -> None:
        """Play it to its end, or for MAX_STEPS steps."""
        for step in range(MAX_STEPS):
            self._wait()
            self._command(is_first=not step)
            seen: list[tuple[Document, Session]] = []
            steps = self._sync(seen)
            # Between a command's commit and what it made due at once.
            self._add(seen, [self._told(each, steps[place + 1 :]) for place, (_, each) in enumerate(seen)])
            if self.session.status not in LIVE and self.rng.random() < 0.6:
                break

    def _wait(self) -> None:
        """Let time pass, in up to four steps, and add the cases of the present state and of those that it leads to."""
        session, now_ms = self.session, self.clock.now_ms
        seen = [(plain(session.state(now_ms)), session)]
        found: list[list[Document]] = [self._cases_now()]
        steps: list[Step] = []
        for _ in range(self.rng.randint(1, 4)):
            self.clock.set(self._later_ms())
            self.store.get(self.session_id)
            steps += self._sync(seen)
            found += [[] for _ in seen[len(found) :]]
            for place, (_, each) in enumerate(seen[:5]):
                found[place] += self._told(each, steps[place:])
        self._add(seen, found)

    def _add(self, seen: list[tuple[Document, Session]], found: list[list[Document]]) -> None:
        self.moments += [
            {"state": state, "cases": cases} for (state, _), cases in zip(seen, found, strict=True) if cases
        ]

    def _told(self, session: Session, steps: list[Step]) -> list[Document]:
        """Return the case of what a client shall say now that has a session before these steps, if it can know it."""
        happened, said = later(session, steps, self.clock.now_ms)
        if said is None:
            return []
        self.past[happened or "neither"] += 1
        return [said]

    def _cases_now(self) -> list[Document]:
        """Return cases of the present state, before anything is due."""
        rng, session, now_ms = self.rng, self.session, self.clock.now_ms
        due_ms = min(boundary_of(session), end_of(session))
        if now_ms >= due_ms:
            return []
        last_ms = min(due_ms - 1, now_ms + rng.choice([10, 10_000]))
        cases = [case(session, at_ms, at_ms) for at_ms in (now_ms, rng.randint(now_ms, last_ms))]
        if rng.random() < 0.3:
            cases += [case(session, now_ms, now_ms - rng.randint(1, 500)), case(session, now_ms, None)]
        return cases

    def _later_ms(self) -> int:
        """Return a random instant from now on, often one at which something is due, or just beside it."""
        rng, now_ms, clock = self.rng, self.clock.now_ms, self.session.clock(self.clock.now_ms)
        dues = [clock.get("next_at_ms"), clock.get("next_at_ms"), clock["deadline_ms"]]
        dues = [each for each in dues if each is not None]
        due_ms = rng.choice(dues or [now_ms + rng.choice([1, 10, 5000])])
        lag_ms = rng.choice([each.lag_left_ms for each in self.session.clocks] or [0])
        at_ms: int = rng.choice(
            [
                due_ms + rng.choice([-1, 0, 1]),
                due_ms + lag_ms + rng.choice([-1, 0, 1]),
                due_ms + rng.randint(0, max(1, lag_ms)),
                due_ms + rng.randint(0, max(1, due_ms - now_ms)),
                now_ms + rng.randint(0, max(1, due_ms - now_ms)),
            ]
        )
        return min(max(now_ms, at_ms), now_ms + 50_000_000)

    def _command(self, *, is_first: bool) -> None:
        rng, store, session_id = self.rng, self.store, self.session_id
        status = self.session.status
        amounts = [-500, -5, -1, 0, 1, 5, 20, 3000]
        names = self.session.definition.participant_ids
        more: Document = {"participant_id": rng.choice(names)} if names and rng.random() < 0.5 else {}
        changes: list[Document] = [
            *({"op": "add", "ms": rng.choice(amounts)}, {"op": "set", "ms": abs(rng.choice(amounts))}),
            *({"period_remaining_ms": rng.choice([1, 10, 4000])}, {"periods_left": rng.randint(1, 3)}),
            {"stage": rng.randint(1, 2)},
        ]
        change = rng.choice(changes) | more
        running: list[tuple[str, int, Document]] = [
            *(("switch", 12, {}), ("pause", 2, {}), ("adjust", 2, change), ("takeback", 1, {"cycles": 1})),
            *(("update", 1, {"metadata": {"round": 2}}), ("complete", 0 if is_first else 1, {"result": "draw"})),
        ]
        commands: list[tuple[str, int, Document]] = {
            "pending": [("start", 12, {}), ("adjust", 1, change)],
            "running": running,
            "paused": [("resume", 6, {}), ("adjust", 1, change), ("cancel", 1, {})],
        }.get(status, [("reopen", 1, {})])
        name, _, args = rng.choices(commands, [weight for _, weight, _ in commands])[0]
        claim = Claim()
        if name == "switch" and self.session.clocks and rng.random() < 0.5:
            claim, args = Claim(lag_limit_ms=10_000), {"spent_ms": rng.randint(0, 10_000)}
        try:
            if name == "update":
                store.update(session_id, args["metadata"], claim)
            else:
                getattr(store, name)(session_id, claim, **args)
        except SyncError:
            return  # it does not fit the session; what was due is applied all the same

    def _sync(self, seen: list[tuple[Document, Session]] | None = None) -> list[Step]:
        """Apply the new commits as a client does; add its states to `seen`, and return the commits."""
        messages = outbox_messages(self.clock.client, self.session_id)[self.known :]
        self.known += len(messages)
        steps = []
        for message in messages:
            old, self.session = self.session, self.session.fold(*patch_of(message))
            patch = patch_between(patch_of(message)[0], old, self.session)
            at_ms = self.rng.choice([0, self.clock.now_ms])
            update = SessionUpdate(self.session_id, at_ms, session=self.session, event=message["event"], patch=patch)
            self.client_state = plain(self.session.state(update.at_ms))
            sent = orjson.loads(update.payload(Outgoing.STATE_PATCH))
            self.chain["steps"].append({"message": sent, "state": self.client_state})
            steps.append((message["event"], self.session))
            if seen is not None:
                seen.append((self.client_state, self.session))
        return steps


def plain(document: Document) -> Document:
    """Return a document as a client reads it."""
    return dict(orjson.loads(orjson.dumps(document)))


def main(path: Path, seed: int) -> None:
    """Write the file."""
    rng = random.Random(seed)
    bodies, counts, past = Bodies(rng), Counter(dict.fromkeys(LABELS, 0)), Counter[str]()
    moments: list[Document] = []
    chains: list[Document] = []
    with private_store() as (store, clock):
        while (label := min(LABELS, key=counts.__getitem__)) and counts[label] < CASES_EACH:
            clock.client.flushdb()
            clock.set(NOON_MS + rng.randint(0, 999))
            rules, body = bodies.draw(label)
            try:
                game = Game(store, clock, rng, body)
            except SyncError:
                continue  # such as a control without time for the first move
            game.play()
            moments += [moment | {"label": label} for moment in game.moments]
            chains += [game.chain] if counts[label] < CASES_EACH // 2 else []
            past += game.past
            for name in (label, *rules):
                counts[name] += sum(len(moment["cases"]) for moment in game.moments)
    document = {"seed": seed, "counts": counts, "past": past, "moments": moments, "chains": chains}
    path.write_bytes(orjson.dumps(document))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
