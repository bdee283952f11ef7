"""Attendance: reports to the store which sessions this process watches, so that they do not end as idle.

The idle end of a watched session is postponed when its watch begins and then once per quarter of its idle timeout, so
that it can end as idle only after three failed attempts in a row. This is not a commit (docs/clock.md, Idle).
"""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import structlog
from redis.exceptions import RedisError

from syncapp.domain.session import LIVE, Session
from syncapp.errors import StoreUnavailable

log = structlog.get_logger(__name__)

CHECK_S = 5.0
"""Longest time between two checks of a watched session: it may be created again with a shorter idle timeout."""
SOON_S = 0.2
"""When to check a session again that has not been read yet."""
RETRY_S = 1.0
"""When to try again after a failure, at the latest."""
BATCH = 128
"""Sessions reported in one round trip."""
_MAX_REMEMBERED = 50_000


class Attendance:
    """Checks watched sessions in memory often, and reports each to the store rarely.

    attend(session_ids) reports them to the store, in one round trip; the result has an exception for each session that
    failed, otherwise None. find(session_id) returns the session as its watchers know it, or None if it has not been
    read yet; it raises `LookupError` if the session is not watched. `begin` may be called from any thread, `run_once`
    from one only.
    """

    def __init__(
        self,
        attend: Callable[[Sequence[str]], Sequence[Exception | None]],
        find: Callable[[str], Session | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._attend = attend
        self._find = find
        self._clock = clock
        self._begun: deque[str] = deque()
        self._checks: list[tuple[float, str]] = []
        self._planned: dict[str, float] = {}
        # Kept after a watch has ended: a long poll begins a new one every few seconds.
        self._reported_s: OrderedDict[str, float] = OrderedDict()
        self._failures = 0

    def begin(self, session_id: str) -> None:
        """Note that a watch begins."""
        self._begun.append(session_id)

    def run_once(self) -> int:
        """Report the sessions that are due, at most one batch; return how many were reported. Never raises."""
        now_s = self._clock()
        while self._begun:
            self._plan(self._begun.popleft(), now_s)
        due: list[tuple[str, float]] = []
        while self._checks and self._checks[0][0] <= now_s and len(due) < BATCH:
            at_s, session_id = heapq.heappop(self._checks)
            if self._planned.get(session_id) != at_s:
                continue  # it has been planned again since
            try:
                quarter_s = self._check(session_id, now_s)
            except LookupError:
                del self._planned[session_id]
                continue
            if quarter_s is not None:
                due.append((session_id, quarter_s))
        return self._report(due, now_s) if due else 0

    def _check(self, session_id: str, now_s: float) -> float | None:
        """Plan the next check of a session; return a quarter of its timeout (s) if it has to be reported now."""
        session = self._find(session_id)
        if session is None or session.status not in LIVE:
            self._plan(session_id, now_s + (SOON_S if session is None else CHECK_S))
            return None
        quarter_s = session.idle_timeout_ms / 4000
        due_s = self._reported_s.get(session_id, float("-inf")) + quarter_s
        if due_s <= now_s:
            self._plan(session_id, now_s + min(quarter_s, CHECK_S))
            return quarter_s
        self._plan(session_id, min(due_s, now_s + CHECK_S))
        return None

    def _plan(self, session_id: str, at_s: float) -> None:
        self._planned[session_id] = at_s
        heapq.heappush(self._checks, (at_s, session_id))

    def _report(self, due: Sequence[tuple[str, float]], now_s: float) -> int:
        try:
            errors = self._attend([session_id for session_id, _ in due])
        except (RedisError, StoreUnavailable) as error:
            self._record_failure(f"{type(error).__name__}: {error}")
        except Exception:  # the hub's other work must go on, whatever the error
            if not self._failures:
                log.exception("attendance_failed")
            self._failures += 1
        else:
            if self._failures:
                log.info("attendance_recovered", failures=self._failures)
                self._failures = 0
            return self._record_reports(due, errors, now_s)
        for session_id, quarter_s in due:
            self._plan(session_id, now_s + min(quarter_s, RETRY_S))
        return 0

    def _record_reports(
        self,
        due: Sequence[tuple[str, float]],
        errors: Sequence[Exception | None],
        now_s: float,
    ) -> int:
        reported = 0
        for (session_id, quarter_s), error in zip(due, errors, strict=True):
            if isinstance(error, StoreUnavailable):  # its master is lost; those of the others were reported
                self._plan(session_id, now_s + min(quarter_s, RETRY_S))
                continue
            if error:  # the next check tries again
                log.error("session_not_attended", session_id=session_id, error=str(error))
                continue
            reported += 1
            self._reported_s[session_id] = now_s
            self._reported_s.move_to_end(session_id)
        while len(self._reported_s) > _MAX_REMEMBERED:
            self._reported_s.popitem(last=False)
        return reported

    def _record_failure(self, error: str) -> None:
        if not self._failures:
            log.warning("attendance_without_store", error=error)
        self._failures += 1
