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

import orjson
from expected_clocks import Document, Step, boundary_of, case, end_of, later
from random_bodies import LABELS, Bodies

from syncapp.cli.time_control import private_store
from syncapp.dev.set_clock import NOON_MS, ManualClock
from syncapp.domain.patches import patch_of
from syncapp.domain.results import Claim
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session import LIVE, Session
from syncapp.errors import SyncError
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.topic import SessionUpdate, patch_between
from syncapp.store.sessions import SessionStore
from tests.support.store import outbox_messages

CASES_EACH = 250
"""At least so many cases of each mode and kind."""
MAX_STEPS = 25


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
