"""Limits per address, counted in this process: requests, creates, bytes, and commits that sessions make by themselves.

Until there are principals, only the address tells clients apart (docs/decisions.md). A request is refused before the
store is asked: it changes nothing, and its idempotency key stays unused.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any

import orjson

from syncapp.access.client_address import group_of
from syncapp.config import Settings
from syncapp.domain import commands
from syncapp.domain.results import Claim, Result
from syncapp.domain.schemas import Complete, CreateSession, Update
from syncapp.domain.session import Session
from syncapp.domain.validation import Request
from syncapp.errors import RateLimited, StoreUnavailable, SyncError
from syncapp.metrics import LIMITED

MOST_ADDRESSES = 10_000
RECORD_BYTES = 1024
_MOST_LEASES = 10_000
_HOUR_S = 3600.0
_GO_ON = frozenset({"start", "switch", "resume", "adjust", "update"})
_TURNS = frozenset({"per_cycle", "per_participant", "per_group"})


def refused(setting: str, limit: float, wait_s: float, message: str) -> RateLimited:
    """Count a refusal and return its error; setting: the name of the limit."""
    LIMITED.labels(setting).inc()
    details = {"reason": setting, "limit": limit, "retry_after_s": max(1, round(wait_s + 0.5))}
    return RateLimited(message, details)


class Buckets:
    """A token bucket for each address; `burst` is its size.

    The 10,000 addresses seen last are kept. A forgotten address begins anew with a full bucket.
    """

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, address: str, now_s: float, amount: float = 1.0) -> float:
        """Take tokens; returns 0, or the seconds until there are enough. A full bucket is enough for any amount."""
        with self._lock:
            tokens = self._level(address, now_s)
            missing = min(amount, self._burst) - tokens
            if missing <= 0:
                tokens -= amount
            self._levels[address] = (tokens, now_s)
        return max(0.0, missing) / self._per_s

    def add(self, address: str, now_s: float, amount: float) -> None:
        """Give tokens back, or take them if the amount is negative; the debt is at most one full bucket."""
        with self._lock:
            tokens = self._level(address, now_s) + amount
            self._levels[address] = (max(-self._burst, min(self._burst, tokens)), now_s)

    def owed_s(self, address: str, now_s: float) -> float:
        """Return the seconds until there is a token; 0 if there is one."""
        with self._lock:
            tokens, at_s = self._levels.get(address, (self._burst, now_s))
        tokens += (now_s - at_s) * self._per_s
        return max(0.0, min(1.0, self._burst) - tokens) / self._per_s

    def _level(self, address: str, now_s: float) -> float:
        tokens, at_s = self._levels.pop(address, (self._burst, now_s))
        while len(self._levels) >= MOST_ADDRESSES:
            self._levels.popitem(last=False)
        return min(self._burst, tokens + (now_s - at_s) * self._per_s)


class RateLimits:
    """What one address may add to the store; a limit is off when its setting is 0.

    A command is charged before it runs. The charge is refunded if the command was refused or turned out to be a
    replay, but not if the store did not answer: the command may have taken effect.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._creates = _buckets(settings.creates_per_minute, 60, 60)
        self._bytes = _buckets(settings.address_store_bytes_per_hour, _HOUR_S, _HOUR_S / 4)
        self._commits = _buckets(settings.self_commits_per_hour, _HOUR_S, _HOUR_S)
        self._lock = threading.Lock()
        self._leases: OrderedDict[str, float] = OrderedDict()
        self._most_cycles = settings.max_unattended_cycles

    def run(self, store: Any, address: str, command: str, session_id: str, asked: Request, claim: Claim) -> Result:
        """Run a command for an address. Raises `RateLimited`, and what the command itself raises."""
        group, now_s = group_of(address), time.monotonic()
        self._check_commits(group, now_s, store, command, session_id, asked)
        creates = 1 if isinstance(asked, CreateSession) else 0
        size = stored_bytes(asked, claim)
        self._take(group, now_s, creates, size)
        try:
            result = commands.call(store, command, session_id, asked, claim)
        except SyncError as error:
            if not isinstance(error, StoreUnavailable):
                self._give_back(group, now_s, creates, size)
            raise
        if result.replayed:
            self._give_back(group, now_s, creates, size)
        elif result.session:
            self._charge_commits(group, now_s, result.session)
        return result

    def _take(self, group: str, now_s: float, creates: int, size: int) -> None:
        if creates and self._creates and (wait_s := self._creates.wait_s(group, now_s)):
            limit = self._settings.creates_per_minute
            raise refused("creates_per_minute", limit, wait_s, f"this address may create {limit} sessions a minute")
        if size and self._bytes and (wait_s := self._bytes.wait_s(group, now_s, size)):
            self._give_back(group, now_s, creates, 0)
            limit = self._settings.address_store_bytes_per_hour
            message = (
                f"this address may add {limit} bytes to the store an hour: sessions, metadata and idempotency keys"
            )
            raise refused("address_store_bytes_per_hour", limit, wait_s, message)

    def _give_back(self, group: str, now_s: float, creates: int, size: int) -> None:
        if creates and self._creates:
            self._creates.add(group, now_s, creates)
        if size and self._bytes:
            self._bytes.add(group, now_s, size)

    def _check_commits(
        self, group: str, now_s: float, store: Any, command: str, session_id: str, asked: Request
    ) -> None:
        """Refuse a command that lets another session go on by itself if too many do, as far as this process knows."""
        if not self._commits or not (owed_s := self._commits.owed_s(group, now_s)):
            return
        if isinstance(asked, CreateSession):
            goes_on = asked.sync_mode in _TURNS and _skips(asked)
        else:
            known: Session | None = store.known(session_id) if command in _GO_ON else None
            goes_on = known is not None and commits_ahead(known, self._most_cycles)[0] > 0
        if goes_on:
            limit = self._settings.self_commits_per_hour
            message = f"sessions of this address may make {limit} commits an hour by themselves, by skip_cycle"
            raise refused("self_commits_per_hour", limit, owed_s, message)

    def _charge_commits(self, group: str, now_s: float, session: Session) -> None:
        """Charge what a session may commit by itself within an hour, less what was already charged for that time."""
        if not self._commits:
            return
        commits, window_s = commits_ahead(session, self._most_cycles)
        if not commits:
            return
        with self._lock:
            last_s = self._leases.pop(session.session_id, now_s - window_s)
            self._leases[session.session_id] = now_s
            while len(self._leases) > _MOST_LEASES:
                self._leases.popitem(last=False)
        self._commits.add(group, now_s, -commits * min(1.0, (now_s - last_s) / window_s))


def _buckets(limit: float, per_s: float, burst_s: float) -> Buckets | None:
    """Return buckets that gain `limit` tokens in `per_s` seconds and hold those of `burst_s`; None without a limit."""
    return Buckets(limit / per_s, limit * burst_s / per_s) if limit else None


def _skips(asked: CreateSession) -> bool:
    action = asked.action_on_timeout
    return action.type == "skip_cycle" if action else asked.sync_mode == "per_cycle"


def commits_ahead(session: Session, most_cycles: int) -> tuple[float, float]:
    """Return how many commits a session may make by itself within an hour, and in how many seconds; 0 if it ends.

    Only `skip_cycle` lets a session go on, in modes with turns: one commit for each timeout and each warning.
    Any other session makes at most nine by itself after a command.
    """
    definition = session.definition
    if session.sync_mode not in _TURNS or definition.action_on_timeout["type"] != "skip_cycle":
        return 0.0, 1.0
    if session.status not in ("pending", "running", "paused"):
        return 0.0, 1.0
    per_cycle = 1 + len(definition.warn_at_ms)
    if session.sync_mode != "per_cycle":  # each budget runs out once
        budgets = len(definition.group_ids or definition.participant_ids)
        return float(min(budgets, most_cycles) * per_cycle), _HOUR_S
    cycle_s = (definition.time_per_cycle_ms or 1000) / 1000
    cycles = min(float(most_cycles), _HOUR_S / cycle_s)
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
    documents = len(orjson.dumps(asked.metadata)) + (len(orjson.dumps(action.model_dump())) if action else 0)
    size += 2560 + 4 * documents
    size += sum(200 + 5 * len(each.participant_id) + (100 if each.group_id else 0) for each in asked.participants)
    return size + sum(200 + 5 * len(each.group_id) for each in asked.in_groups())
