"""The parts of sessions that this process has read, so that scripts need not send them again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain

from msgspec import Struct

from syncapp.domain.definition import Definition
from syncapp.domain.session import Participant, Session, participants_of
from syncapp.domain.session_layout import BLOCKS, DEFINITION, TAGS, split_tags, values_of

MAX_SESSIONS = 2048
MAX_PARTICIPANTS = 50_000
"""About 12 MB."""


class SessionCache:
    """Keeps the sessions that were read last, bounded by their number and by that of their participants."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, CachedSession] = OrderedDict()
        self._participants = 0

    def get(self, session_id: str) -> CachedSession | None:
        """Return what is kept of a session."""
        return self._sessions.get(session_id)

    def read(self, session_id: str, cached: CachedSession | None, state: Sequence[str]) -> Session:
        """Return the session of a state reply to a call that named `cached`, and keep its parts."""
        read = CachedSession.from_reply(session_id, state, cached)
        before = self._sessions.pop(session_id, None)
        self._sessions[session_id] = read
        self._participants += read.size - (before.size if before else 0)
        while len(self._sessions) > MAX_SESSIONS or self._participants > MAX_PARTICIPANTS:
            self._participants -= self._sessions.popitem(last=False)[1].size
        return read.session


class CachedSession(Struct, frozen=True):
    """What a process keeps of a session so as not to be sent it again: never an answer by itself.

    The definition does not change within an epoch; a block of participants does not change while its
    tag stays the same. A script leaves out of its reply just what is named to it.
    """

    definition: Definition
    tags: str
    blocks: tuple[tuple[Participant, ...], ...]
    reply: Sequence[str]
    session: Session

    @property
    def epoch(self) -> int:
        """The epoch it is of."""
        return self.session.epoch

    @property
    def size(self) -> int:
        """How many participants it is about."""
        return len(self.definition.participant_ids)

    @classmethod
    def from_reply(cls, session_id: str, reply: Sequence[str], cached: CachedSession | None) -> CachedSession:
        """Read a state reply to a call that named `cached`; one that says the same again need not be read."""
        if cached and cached.reply == reply:
            return cached
        state = values_of(reply)
        had = cached.blocks if cached else ()
        blocks = tuple(participants_of(block) if block else had[i] for i, block in enumerate(state[BLOCKS:]))
        text = state[DEFINITION]
        if not text and cached is None:
            raise LookupError("a script left out a definition that nobody knows")
        definition = Definition.from_json(text) if text or cached is None else cached.definition
        session = Session.from_reply(session_id, state, definition, tuple(chain.from_iterable(blocks)))
        return cls(definition, split_tags(state[TAGS])[0], blocks, reply, session)
