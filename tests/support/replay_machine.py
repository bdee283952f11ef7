"""Random sequences whose past states are read from the log, and whose lost sessions are restored from it."""

from __future__ import annotations

import os
from typing import Any

import orjson
import redis as redis_py
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import rule

from syncapp.audit.verify import VerifyResult, verify
from syncapp.domain.instants import iso
from syncapp.domain.session import Session
from syncapp.history.query_params import AtQuery
from syncapp.history.recovery import Outcome
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import AuditServices
from tests.support.clock_machine import ClockMachine, document, moves
from tests.support.outboxes import KEYS

REPLAY_EXAMPLES = int(os.environ.get("REPLAY_EXAMPLES", "6"))
REPLAY_STEPS = 40


class ReplayMachine(ClockMachine):
    """Records the states, loses sessions, and compares the states with the log."""

    def __init__(
        self, log: AuditServices, client: redis_py.Redis, stores: list[SessionStore], redis_url: str, mode: str
    ) -> None:
        super().__init__(client, stores, redis_url, mode)
        self.log = log
        self.said: dict[int, Any] = {}
        self.after: dict[tuple[int, int], tuple[Session, dict[str, Any]]] = {}

    @rule(move=moves, clock=st.sampled_from(["run", "run", "run", "freeze", "credit"]), twice=st.booleans())
    def lose(self, move: tuple[str, int], clock: str, twice: bool) -> None:
        self._check()
        self.log.store()
        self.client.delete(KEYS.session(self.session_id))
        self.client.zrem(KEYS.deadlines(KEYS.bucket(self.session_id)), self.session_id)
        self._move(move)
        note(f"lost, {clock}")
        recovery = self.log.recoveries[clock]
        assert recovery.recover(self.session_id) is Outcome.RESTORED
        found = self.stores[0].position(self.session_id)
        assert found
        assert found.epoch > self.model.epoch
        self.model.restore(self.clock.now_ms, found.epoch, clock)
        self._check()
        if twice:
            assert recovery.recover(self.session_id) is Outcome.CURRENT
            self._check()

    def teardown(self) -> None:
        super().teardown()
        if self.agreed:
            self._replay()

    def _create(self, body: dict[str, Any]) -> None:
        if hasattr(self, "model") and self.agreed:
            self._replay()
        self.said, self.after = {}, {}
        super()._create(body)

    def _check(self) -> None:
        super()._check()
        result = self.stores[0].get(self.session_id)
        if result.now_ms >= result.found.epoch:  # not in an epoch that is later only to be unique
            self.said[result.now_ms] = document(result) | {"idle_at": self.logged_idle_at}

    def _fold(self, message: dict[str, Any]) -> None:
        super()._fold(message)
        assert self.folded
        self.logged_idle_at = iso(self.folded.idle_ms)  # the log has no watchers
        self.after[self.folded.order] = (self.folded, message["event"])
        # A state is outdated if the clock was set back behind it, or another commit came at its instant.
        restored = message["event"]["type"] == "session_restored"
        since_ms = message["epoch"] if restored else message["event"]["at_ms"]
        self.said = {at_ms: state for at_ms, state in self.said.items() if at_ms < since_ms}

    def _replay(self) -> None:
        self.log.store()
        for at_ms, state in self.said.items():
            moment = self.log.history.state_at(self.session_id, AtQuery(time=at_ms))
            told = orjson.loads(orjson.dumps(moment.document()))
            assert (told.pop("event")["at_ms"], told.pop("clocks") is not None) == (moment.commit.at_ms, True)
            assert told == state, at_ms
        for (epoch, version), (session, event) in self.after.items():
            moment = self.log.history.state_at(self.session_id, AtQuery(version=version, epoch=epoch))
            assert moment.session == session
            assert moment.commit.event == event
            assert moment.at_ms == event["at_ms"]
        found = self.log.history.statistics(self.session_id)
        last = next(reversed(self.after.values()))[0]
        assert [(each.cycles, each.total_ms) for each in found.participants.values()] == [
            (person.cycle_count, person.time_used_ms) for person in last.participants
        ]
        assert found.whole.cycles == last.cycle_count
        assert list(verify(self.log.url, VerifyResult(), self.session_id)) == []
