"""Limits of creates, stored bytes, and commits that sessions make by themselves; here is decided which of them apply.

A principal has quotas, which the store counts. Without one (`AUTH=off`), only the address distinguishes clients, and
its limits are counted in this process (docs/decisions.md). A command is refused before the store is asked: it changes
nothing, and its idempotency key stays unused.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType

import orjson
from msgspec.structs import replace

from syncapp.access.client_address import group_of
from syncapp.config import Settings
from syncapp.domain.command_bodies import Complete, Update
from syncapp.domain.control_clock import CLOCK_WIDTH
from syncapp.domain.control_text import SessionRules, write_control
from syncapp.domain.modes import MODES
from syncapp.domain.principal import Principal
from syncapp.domain.results import Claim, Costs, Result
from syncapp.domain.schemas import CreateSession, NewGroup, NewParticipant
from syncapp.domain.session import Session
from syncapp.domain.validation import Request
from syncapp.errors import RateLimited, SessionNotFound, StoreUnavailable, SyncError
from syncapp.metrics import LIMITED
from syncapp.token_bucket import TokenBuckets

RECORD_BYTES = 1024
_MAX_LEASES = 10_000
_HOUR_S = 3600.0
_RESUMING = frozenset({"start", "switch", "resume", "adjust", "takeback", "update"})


def refused(setting: str, limit: float, wait_s: float, message: str) -> RateLimited:
    """Count a refusal and return its error; setting: the name of the limit; wait_s: until a retry can succeed."""
    LIMITED.labels(setting).inc()
    details = {"reason": setting, "limit": limit, "retry_after_s": max(1, round(wait_s + 0.5))}
    return RateLimited(message, details)


class Charge:
    """The charge of one command; as a context manager, it refunds the charge if the command changed nothing.

    claim: the command's, with what it costs of the principal's quotas.

    The charge stays if the store did not answer, because the command may have taken effect.
    """

    __slots__ = ("_bytes", "_creates", "_group", "_limits", "_now_s", "claim")

    def __init__(self, limits: RateLimits, claim: Claim, group: str, now_s: float, creates: int, size: int) -> None:
        self.claim = claim
        self._limits = limits
        self._group = group
        self._now_s = now_s
        self._creates = creates
        self._bytes = size

    def settle(self, result: Result) -> Result:
        """Charge the commits that the session may make by itself, or refund a replay; return the result."""
        if result.replayed:
            self._limits.refund(self._group, self._now_s, self._creates, self._bytes)
        elif result.session:
            self._limits.charge_commits(self._group, self._now_s, result.session)
        return result

    def __enter__(self) -> Charge:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, SyncError) and not isinstance(error, StoreUnavailable):
            self._limits.refund(self._group, self._now_s, self._creates, self._bytes)


class QuotaCharge(Charge):
    """The charge of a principal's command: the store counts it, so nothing is counted or refunded here."""

    __slots__ = ()

    def settle(self, result: Result) -> Result:
        """Return the result."""
        return result

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass


class RateLimits:
    """What one address may add to the store; a limit is off when its setting is 0.

    known(session_id) returns the last state that this process has seen of a session, read(session_id) the
    present one, and raises `SessionNotFound`.
    A principal has quotas that all processes share (`syncapp.store.quotas`) instead of limits of its address.

    A command is charged before it runs. The charge is refunded if the command was refused or turned out to be a
    replay, but not if the store did not answer: the command may have taken effect.
    """

    def __init__(
        self,
        settings: Settings,
        known: Callable[[str], Session | None],
        read: Callable[[str], tuple[Session, int]] | None = None,
    ) -> None:
        self._settings = settings
        self._links = _buckets(settings.principal_creates_per_minute, 60, 60)
        self._known = known
        self._read = read
        self._creates = _buckets(settings.creates_per_minute, 60, 60)
        self._bytes = _buckets(settings.address_store_bytes_per_hour, _HOUR_S, _HOUR_S / 4)
        self._commits = _buckets(settings.self_commits_per_hour, _HOUR_S, _HOUR_S)
        self._lock = threading.Lock()
        self._leases: OrderedDict[str, float] = OrderedDict()
        self._max_cycles = settings.max_unattended_cycles

    def charge_link(self, principal: Principal) -> None:
        """Charge a principal for a new link; each process counts by itself. Raises `RateLimited`."""
        owner = f"{principal.tenant}/{principal.sub}"
        if self._links and (wait_s := self._links.take(owner, time.monotonic())):
            limit = self._settings.principal_creates_per_minute
            message = f"this principal may create {limit} links a minute"
            raise refused("principal_creates_per_minute", limit, wait_s, message)

    def charge(self, address: str, command: str, session_id: str, body: Request, claim: Claim) -> Charge:
        """Charge an address for a command, or its principal if there is one. Raises `RateLimited`."""
        if claim.principal.sub:
            costs = self._costs(command, session_id, body, claim)
            return QuotaCharge(self, replace(claim, costs=costs) if costs else claim, "", 0.0, 0, 0)
        group, now_s = group_of(address), time.monotonic()
        self._check_commits(group, now_s, command, session_id, body)
        creates = 1 if isinstance(body, CreateSession) else 0
        size = stored_bytes(body, claim)
        self._take(group, now_s, creates, size)
        return Charge(self, claim, group, now_s, creates, size)

    def _costs(self, command: str, session_id: str, body: Request, claim: Claim) -> Costs | None:
        """Return what a command uses of the quotas, if anything.

        Only a start and a resume are charged for commits to come.
        """
        commits, goes_on = 0.0, command in ("start", "resume")
        if goes_on and self._settings.tenant_self_commits_per_hour and (session := self._found(session_id)):
            commits = commits_ahead(session, self._max_cycles)[0]
        adds_session = isinstance(body, CreateSession) or command == "reopen"
        creates, size = 1 if adds_session else 0, stored_bytes(body, claim)
        return Costs(creates, size, commits) if creates or size or commits else None

    def _found(self, session_id: str) -> Session | None:
        """Return the last known state of a session, or read it; None if there is no such session."""
        with suppress(SessionNotFound):
            return self._known(session_id) or (self._read(session_id)[0] if self._read else None)
        return None

    def _take(self, group: str, now_s: float, creates: int, size: int) -> None:
        if creates and self._creates and (wait_s := self._creates.take(group, now_s)):
            limit = self._settings.creates_per_minute
            raise refused("creates_per_minute", limit, wait_s, f"this address may create {limit} sessions a minute")
        if size and self._bytes and (wait_s := self._bytes.take(group, now_s, size)):
            self.refund(group, now_s, creates, 0)
            limit = self._settings.address_store_bytes_per_hour
            message = (
                f"this address may add {limit} bytes to the store an hour: sessions, metadata and idempotency keys"
            )
            raise refused("address_store_bytes_per_hour", limit, wait_s, message)

    def refund(self, group: str, now_s: float, creates: int, size: int) -> None:
        """Refund the charge of a command that added nothing to the store."""
        if creates and self._creates:
            self._creates.add(group, now_s, creates)
        if size and self._bytes:
            self._bytes.add(group, now_s, size)

    def _check_commits(self, group: str, now_s: float, command: str, session_id: str, body: Request) -> None:
        """Refuse a command after which a session makes commits by itself, if sessions of this address make too many."""
        if not self._commits or not (owed_s := self._commits.wait_s(group, now_s)):
            return
        if isinstance(body, CreateSession):
            goes_on = MODES[body.sync_mode].has_turns and _skips(body)
        else:
            known = self._known(session_id) if command in _RESUMING else None
            goes_on = known is not None and commits_ahead(known, self._max_cycles)[0] > 0
        if goes_on:
            limit = self._settings.self_commits_per_hour
            message = f"sessions of this address may make {limit} commits an hour by themselves, by skip_cycle"
            raise refused("self_commits_per_hour", limit, owed_s, message)

    def charge_commits(self, group: str, now_s: float, session: Session) -> None:
        """Charge the commits that a session may make by itself within an hour, minus those already charged."""
        if not self._commits:
            return
        commits, window_s = commits_ahead(session, self._max_cycles)
        if not commits:
            return
        with self._lock:
            last_s = self._leases.pop(session.session_id, now_s - window_s)
            self._leases[session.session_id] = now_s
            while len(self._leases) > _MAX_LEASES:
                self._leases.popitem(last=False)
        self._commits.add(group, now_s, -commits * min(1.0, (now_s - last_s) / window_s))


def _buckets(limit: float, per_s: float, burst_s: float) -> TokenBuckets | None:
    """Return buckets that gain `limit` tokens in `per_s` seconds and hold those of `burst_s`; None without a limit."""
    return TokenBuckets(limit / per_s, limit * burst_s / per_s) if limit else None


def _skips(asked: CreateSession) -> bool:
    action = asked.action_on_timeout
    return (action.type if action else MODES[asked.sync_mode].on_timeout) == "skip_cycle"


def commits_ahead(session: Session, max_cycles: int) -> tuple[float, float]:
    """Return how many commits a session may make by itself within an hour, and within how many seconds; 0 if none.

    With a time control: one for each period, and for each of its warnings. With `skip_cycle`, in modes with turns, one
    for each timeout and each warning, too. Any other session makes at most nine commits by itself after a command.
    """
    definition, traits = session.definition, MODES[session.sync_mode]
    if session.status not in ("pending", "running", "paused"):
        return 0.0, 1.0
    per_cycle = 1 + len(definition.warn_at_ms)
    periods = float(definition.period_count * (per_cycle if definition.session_rules.warns_in_periods else 1))
    if not traits.has_turns or definition.action_on_timeout["type"] != "skip_cycle":
        return periods, _HOUR_S if periods else 1.0
    if not traits.renews_budget:  # each budget runs out once
        return min(definition.owner_count, max_cycles) * per_cycle + periods, _HOUR_S
    cycle_s = (definition.time_per_cycle_ms or 1000) / 1000
    cycles = min(float(max_cycles), _HOUR_S / cycle_s)
    if definition.max_cycles:
        cycles = min(cycles, float(definition.max_cycles - session.cycle_count))
    return cycles * per_cycle, max(1.0, cycles * cycle_s)


def stored_bytes(asked: Request, claim: Claim) -> int:
    """Return what a command may add to the store: its record, metadata, a result, a new session's ids and documents.

    A session's ids and documents are kept in its hash, its first event and that event's snapshot. The numbers are
    measured, and rounded up.
    """
    size = RECORD_BYTES + len(claim.idempotency_key) if claim.idempotency_key else 0
    if isinstance(asked, Update):
        return size + len(orjson.dumps(asked.metadata))
    if isinstance(asked, Complete):
        return size + sum(len(orjson.dumps(each)) for each in (asked.reason, asked.result) if each is not None)
    if not isinstance(asked, CreateSession):
        return size
    action = asked.action_on_timeout
    # Metadata are in the hash and, as a private part, beside the event. An action is in both and in the snapshot.
    size += 2560 + 3 * len(orjson.dumps(asked.metadata)) + (4 * len(orjson.dumps(action.model_dump())) if action else 0)
    size += sum(200 + 5 * len(each.participant_id) + (100 if each.group_id else 0) for each in asked.participants)
    size += sum(200 + 5 * len(each.group_id) for each in asked.in_groups())
    return size + _control_bytes(asked)


def _control_bytes(asked: CreateSession) -> int:
    """Return what time controls and takebacks of a new session add to the store, at most."""
    owners: Sequence[NewGroup | NewParticipant] = asked.in_groups() or asked.participants
    own = [owner.time_control for owner in owners if owner.time_control]
    texts = [write_control(each, SessionRules()) for each in (asked.time_control, *own) if each]
    has_clocks = bool(texts or asked.lag_compensation)
    # A control is in the hash, and in the definition there and in the snapshot; a clock in the hash and the snapshot.
    size = sum(100 + 3 * len(text) for text in texts) + (2 * CLOCK_WIDTH + 150) * len(owners) * has_clocks
    if not asked.takeback_cycles:
        return size
    is_hourglass = asked.time_control is not None and asked.time_control.is_hourglass
    turn_bytes = 90 + CLOCK_WIDTH * has_clocks + 34 * len(owners) * is_hourglass
    return size + (asked.takeback_cycles + 1) * turn_bytes
