"""Attendance: tells the store which sessions this process watches, so that their idle time does not count.

The idle end of a watched session is postponed when its watch begins and then once per quarter of its idle timeout, so
that it can end as idle only after three failed tries in a row. This is not a commit (docs/clock.md, Idle).
"""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import structlog
from redis.exceptions import RedisError, ResponseError

from syncapp.domain.session import LIVE, Session
from syncapp.errors import StoreUnavailable

log = structlog.get_logger(__name__)

LOOK_S = 5.0
"""Longest time between two looks at a watched session: it may have been replaced by one with a shorter idle timeout."""
SOON_S = 0.2
"""When to look again at a session that has not been read yet."""
RETRY_S = 1.0
"""When to try again after a failure, at the latest."""
BATCH = 128
"""Sessions reported in one round trip."""
_MOST_REMEMBERED = 50_000


class Attendance:
    """Looks at watched sessions in memory, often, and tells the store of each, rarely.

    attend(session_ids) tells the store, in one round trip; in the result, a session that failed has its exception.
    find(session_id) returns the session as its watchers know it, or None if it has not been read yet; it raises
    `LookupError` if the session is not watched. `begin` may be called from any thread, `run_once` from one only.
    """

    def __init__(
        self,
        attend: Callable[[Sequence[str]], Sequence[ResponseError | None]],
        find: Callable[[str], Session | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._attend = attend
        self._find = find
        self._clock = clock
        self._begun: deque[str] = deque()
        self._looks: list[tuple[float, str]] = []
        self._planned: dict[str, float] = {}
        # Kept after a watch has ended: a long poll begins a new one every few seconds.
        self._told_s: OrderedDict[str, float] = OrderedDict()
        self._failures = 0

    def begin(self, session_id: str) -> None:
        """Note that a watch begins."""
        self._begun.append(session_id)

    def run_once(self) -> int:
        """Tell the store of the sessions that are due, at most one batch; return how many. Never raises."""
        now_s = self._clock()
        while self._begun:
            self._plan(self._begun.popleft(), now_s)
        due: list[tuple[str, float]] = []
        while self._looks and self._looks[0][0] <= now_s and len(due) < BATCH:
            at_s, session_id = heapq.heappop(self._looks)
            if self._planned.get(session_id) != at_s:
                continue  # it has been planned again since
            try:
                quarter_s = self._look(session_id, now_s)
            except LookupError:
                del self._planned[session_id]
                continue
            if quarter_s is not None:
                due.append((session_id, quarter_s))
        return self._tell(due, now_s) if due else 0

    def _look(self, session_id: str, now_s: float) -> float | None:
        """Plan the next look at a session; return a quarter of its timeout (s) if the store is to be told now."""
        session = self._find(session_id)
        if session is None or session.status not in LIVE:
            self._plan(session_id, now_s + (SOON_S if session is None else LOOK_S))
            return None
        quarter_s = session.idle_timeout_ms / 4000
        due_s = self._told_s.get(session_id, float("-inf")) + quarter_s
        if due_s <= now_s:
            self._plan(session_id, now_s + min(quarter_s, LOOK_S))
            return quarter_s
        self._plan(session_id, min(due_s, now_s + LOOK_S))
        return None

    def _plan(self, session_id: str, at_s: float) -> None:
        self._planned[session_id] = at_s
        heapq.heappush(self._looks, (at_s, session_id))

    def _tell(self, due: Sequence[tuple[str, float]], now_s: float) -> int:
        try:
            answers = self._attend([session_id for session_id, _ in due])
        except (RedisError, StoreUnavailable) as error:
            self._note_failure(f"{type(error).__name__}: {error}")
        except Exception:  # watchers are told as before, whatever the error
            if not self._failures:
                log.exception("attendance_failed")
            self._failures += 1
        else:
            if self._failures:
                log.info("attendance_recovered", failures=self._failures)
                self._failures = 0
            return self._note_told(due, answers, now_s)
        for session_id, quarter_s in due:
            self._plan(session_id, now_s + min(quarter_s, RETRY_S))
        return 0

    def _note_told(
        self, due: Sequence[tuple[str, float]], answers: Sequence[ResponseError | None], now_s: float
    ) -> int:
        told = 0
        for (session_id, _), error in zip(due, answers, strict=True):
            if error:  # the next look tries again
                log.error("session_not_attended", session_id=session_id, error=str(error))
                continue
            told += 1
            self._told_s[session_id] = now_s
            self._told_s.move_to_end(session_id)
        while len(self._told_s) > _MOST_REMEMBERED:
            self._told_s.popitem(last=False)
        return told

    def _note_failure(self, error: str) -> None:
        if not self._failures:
            log.warning("attendance_without_store", error=error)
        self._failures += 1
