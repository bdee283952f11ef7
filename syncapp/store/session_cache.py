"""A cache of the parts of sessions that this process has read, so that scripts can omit them from replies."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain

from msgspec import Struct

from syncapp.domain.control_clock import OwnerClock, read_clocks
from syncapp.domain.definition import Definition
from syncapp.domain.records import Participant, participants_of, split_blocks
from syncapp.domain.session import Session
from syncapp.domain.session_layout import BLOCKS, DEFINITION, TAGS, split_tags, values_of

MAX_SESSIONS = 2048
MAX_PARTICIPANTS = 50_000
"""About 12 MB."""


class SessionCache:
    """Keeps the most recently read sessions, with limits on the numbers of sessions and participants."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, CachedSession] = OrderedDict()
        self._participants = 0

    def get(self, session_id: str) -> CachedSession | None:
        """Return the cached session, or None."""
        return self._sessions.get(session_id)

    def read(self, session_id: str, cached: CachedSession | None, state: Sequence[str]) -> Session:
        """Return the session from the reply to a call that referred to `cached`, and cache it."""
        new = CachedSession.from_reply(session_id, state, cached)
        before = self._sessions.pop(session_id, None)
        self._sessions[session_id] = new
        self._participants += new.size - (before.size if before else 0)
        while len(self._sessions) > MAX_SESSIONS or self._participants > MAX_PARTICIPANTS:
            self._participants -= self._sessions.popitem(last=False)[1].size
        return new.session


class CachedSession(Struct, frozen=True, gc=False):
    """The cached parts of a session. They complete replies, and are never returned without one.

    The definition does not change within an epoch; a block of participants does not change while its tag is the same. A
    script omits from its reply only the parts that its arguments say are cached.
    """

    definition: Definition
    tags: str
    blocks: tuple[tuple[Participant, ...], ...]
    clock_blocks: tuple[tuple[OwnerClock, ...], ...]
    reply: Sequence[str]
    session: Session

    @property
    def epoch(self) -> int:
        """The session's epoch."""
        return self.session.epoch

    @property
    def size(self) -> int:
        """The number of participants."""
        return len(self.definition.participant_ids)

    @classmethod
    def from_reply(cls, session_id: str, reply: Sequence[str], cached: CachedSession | None) -> CachedSession:
        """Parse the reply to a call that referred to `cached`; an identical reply is not parsed again."""
        if cached and cached.reply == reply:
            return cached
        state = values_of(reply)
        cached_blocks = cached.blocks if cached else ()
        text = state[DEFINITION]
        if not text and cached is None:
            raise LookupError("a script omitted a definition that is not cached")
        definition = Definition.from_json(text) if text or cached is None else cached.definition
        records, clocks = split_blocks(definition, state[BLOCKS:])
        blocks = tuple(participants_of(block) if block else cached_blocks[i] for i, block in enumerate(records))
        cached_clocks = cached.clock_blocks if cached else ()
        clock_blocks = tuple(read_clocks(block) if block else cached_clocks[i] for i, block in enumerate(clocks))
        session = Session.from_reply(
            session_id,
            state,
            definition,
            tuple(chain.from_iterable(blocks)),
            tuple(chain.from_iterable(clock_blocks)),
        )
        return cls(definition, split_tags(state[TAGS])[0], blocks, clock_blocks, reply, session)
