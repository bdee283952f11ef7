"""Runs scripts: sends a command with its claim, and returns the reply as values."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import redis
from msgspec.structs import replace
from redis.exceptions import ResponseError

from syncapp.config import Settings
from syncapp.domain.link_ids import link_epoch
from syncapp.domain.results import NO_CLAIM, Claim, ExpiryResult, Result
from syncapp.domain.session import Session
from syncapp.domain.summary import Summary
from syncapp.store.bucket_record import BucketGuard
from syncapp.store.client import TRANSLATION
from syncapp.store.command_limits import NOT_LIMITED, CommandLimits
from syncapp.store.connection_pool import ConnectionPool
from syncapp.store.keys import PROBE_SESSION, Keyspace
from syncapp.store.replication import Replication
from syncapp.store.reply_errors import refusal
from syncapp.store.script_arguments import fingerprint_of, private_members, session_names, text_of, token_id
from syncapp.store.script_reply import Reply
from syncapp.store.scripts import Scripts
from syncapp.store.session_cache import CachedSession, SessionCache
from syncapp.store.store_probe import probe

SETTLE_S = 2.0
"""How long a command keeps settling what is due, with 64 commits a call; a week of one-second cycles takes longer."""
_UNCONFIRMED = frozenset({"get", "restore", "renew"})
"""Commands that do not wait for replicas. A lost restore is simply repeated."""
_TOOK_EFFECT = ("ok", "session_gone")
"""Replies which say that the command has taken effect, now or when it was first sent."""


class MetadataChanged(Exception):
    """The metadata is not the document that an update was merged with; session: the current one, at `now_ms`."""

    def __init__(self, session: Session, now_ms: int) -> None:
        super().__init__(session.session_id)
        self.session = session
        self.now_ms = now_ms


class ScriptRunner:
    """Runs the scripts of sessions, each in one round trip, for `SessionStore`."""

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        on_nudge: Callable[[int], None],
        partials: Mapping[str, str] | None,
        on_miss: Callable[[str], bool] | None = None,
        guard: BucketGuard | None = None,
    ) -> None:
        self._settings = settings
        self._keys = Keyspace(settings.sync_buckets)
        self._scripts = Scripts(client, partials)
        self._replication = Replication.of(client, settings)
        self._limits = CommandLimits(settings, self._keys)
        self._on_nudge = on_nudge
        self._on_miss = on_miss
        self.require_buckets: Callable[[], None] = guard.require if guard else lambda: None
        self._require_buckets_now = guard.require_now if guard else lambda: None
        self._cache = SessionCache()

    def run(
        self,
        command: str,
        session_id: str,
        claim: Claim,
        args: Sequence[str | bytes | int] = (),
        request: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        reason: bytes = b"",
        is_paid: bool = False,
        limited: tuple[str, Sequence[str]] | None = None,
    ) -> Result:
        """Run a command; raises the error that belongs to the script's reply, or `MetadataChanged`.

        The script is called again while it has more to settle, and once more after a lost session was restored.
        request: the content that the idempotency key's fingerprint is made from; by default `args`. reason: the
        command's reason as JSON, to be sealed as a private part. is_paid: an earlier call for the same command has
        taken the principal's token. limited: an argument `limits` and its keys, instead of what the claim's limits are.
        """
        limits, limit_keys = limited or self._limits_of(command, claim, is_paid=is_paid)
        keys: Sequence[str] = self._keys.commit(session_id)
        fingerprint = ""
        epoch = link_epoch(claim.principal)
        if claim.idempotency_key is not None:
            keys = (*keys, self._keys.idempotency(session_id, claim.idempotency_key, claim.principal))
            fingerprint = fingerprint_of(command, claim, request if request is not None else list(map(text_of, args)))
        if epoch is not None:
            claim = _in_epoch(claim, epoch, command)
        replication = None if command in _UNCONFIRMED else self._replication
        mark = self._keys.outbox(self._keys.bucket(session_id))
        until_s, may_restore = time.monotonic() + SETTLE_S, self._on_miss is not None
        private = private_members(claim, reason)
        while True:
            cached = self._cache.get(session_id)
            shared_args = self._shared_args(session_id, claim, fingerprint, cached, private, limits)
            self.require_buckets()
            with TRANSLATION:
                found, replicas = self._scripts.commit(
                    f"{command}_session", [*keys, *limit_keys], [*shared_args, *args], replication, mark
                )
            if found[0] == "rate_limited":
                raise self._limits.refusal(*found[2:])
            reply = Reply(*found)
            if limits:  # what the script is called for again is paid
                limits, limit_keys = self._paid(claim, limits)
            self._request_drain(reply, session_id)
            if reply.word == "busy" and time.monotonic() <= until_s:
                continue
            if may_restore and reply.is_miss(command) and self._on_miss and self._on_miss(session_id):
                until_s, may_restore = time.monotonic() + SETTLE_S, False
                continue
            break
        return self._result(command, session_id, claim, epoch, cached, reply, replicas)

    def check(self, node: ConnectionPool | None = None) -> list[str]:
        """Write what a commit may write, as `store_probe` does; return the commands that are denied to the worker."""
        self._require_buckets_now()
        head = self._shared_args(PROBE_SESSION, NO_CLAIM, "ready", None)
        return probe(self._scripts, self._keys, self._replication, head, node)

    def cached(self, session_id: str) -> Session | None:
        """Return the last state of the session that this process has read, if it is still cached."""
        cached = self._cache.get(session_id)
        return cached.session if cached else None

    def expire(self, session_ids: Sequence[str]) -> list[ExpiryResult | ResponseError]:
        """Run the expiry script on sessions, in one round trip. Raises `StoreUnavailable`, also for a full store."""
        replies = self._call_all("expire_session", session_ids)
        results: list[ExpiryResult | ResponseError] = []
        for session_id, reply in zip(session_ids, replies, strict=True):
            if isinstance(reply, ResponseError):
                _raise_for_all(reply)
                results.append(reply)
                continue
            self._request_drain(reply, session_id)
            results.append(ExpiryResult(int(reply.now_ms), tuple(map(int, reply.state)), reply.word == "busy"))
        return results

    def summarize(self, session_ids: Sequence[str]) -> tuple[list[Summary | None], int]:
        """Return summaries, None for a missing session, and the server's time in ms; usually in one round trip.

        Raises `StoreUnavailable`, also if more is due than can be settled within `SETTLE_S`.
        """
        summaries: dict[str, Summary | None] = dict.fromkeys(session_ids)
        todo, now_ms, until_s = list(session_ids), 0, time.monotonic() + SETTLE_S
        while todo:
            busy = []
            for session_id, reply in zip(todo, self._call_all("summarize_session", todo), strict=True):
                if isinstance(reply, ResponseError):
                    _raise_for_all(reply)
                    continue
                self._request_drain(reply, session_id)
                now_ms = max(now_ms, int(reply.now_ms))
                if reply.word == "ok":
                    summaries[session_id] = Summary.from_reply(session_id, reply.state)
                elif reply.word == "busy":
                    busy.append(session_id)
            if busy and time.monotonic() > until_s:
                raise refusal("busy", "get", NO_CLAIM, None, now_ms, None)
            todo = busy
        return [summaries[each] for each in session_ids], now_ms

    def attend(self, session_ids: Sequence[str]) -> Sequence[Exception | None]:
        """Restart the idle time of each session, in one round trip."""
        replies = self._call_all("attend_session", session_ids)
        for reply in replies:
            _raise_for_all(reply)
        return [reply if isinstance(reply, ResponseError) else None for reply in replies]

    def _paid(self, claim: Claim, limits: str) -> tuple[str, Sequence[str]]:
        """Return the argument `limits` of a call that repeats a paid one, and its keys."""
        return self._limits.of(claim, is_paid=True)

    def _limits_of(self, command: str, claim: Claim, *, is_paid: bool) -> tuple[str, Sequence[str]]:
        return NOT_LIMITED if command == "get" else self._limits.of(claim, is_paid=is_paid)

    def _result(
        self,
        command: str,
        session_id: str,
        claim: Claim,
        epoch: int | None,
        cached: CachedSession | None,
        reply: Reply,
        replicas: int | None,
    ) -> Result:
        """Return the result that belongs to a reply, or raise its error; epoch: the one that a link is for."""
        session = self._cache.read(session_id, cached, reply.state) if reply.state else None
        if epoch is not None and session and session.epoch != epoch:
            raise refusal("not_found", command, claim, None, int(reply.now_ms), None)
        self._acknowledge(reply, replicas)
        if reply.word != "ok":
            raise _refusal(command, claim, reply, session)
        return Result(
            session=session,
            now_ms=int(reply.now_ms),
            event_json=reply.event_json,
            patch_json=reply.patch_json,
            replayed=bool(reply.replayed),
            first=reply.first(),
            expired_participant_id=reply.expired_id or None,
            read_allowances=None
            if reply.session_us is None
            else partial(self._limits.allowances, reply.session_us, reply.principal_us),
        )

    def _acknowledge(self, reply: Reply, replicas: int | None) -> None:
        """Raise `NotReplicated` if the reply says that a command took effect, and the required replicas lack that."""
        if replicas is not None and reply.word in _TOOK_EFFECT:
            with TRANSLATION:
                self._replication.check(replicas)

    def _call_all(self, script: str, session_ids: Sequence[str]) -> list[Reply | ResponseError]:
        """Run a script without arguments of its own on each session, in one round trip."""
        self.require_buckets()
        calls = [(self._keys.commit(each), self._shared_args(each, NO_CLAIM, "", None)) for each in session_ids]
        with TRANSLATION:
            replies = self._scripts.call_all(script, calls)
        return [reply if isinstance(reply, ResponseError) else Reply(*reply) for reply in replies]

    def _request_drain(self, reply: Reply, session_id: str) -> None:
        if reply.nudge:
            self._on_nudge(self._keys.bucket(session_id))

    def _shared_args(
        self,
        session_id: str,
        claim: Claim,
        fingerprint: str,
        cached: CachedSession | None,
        private: tuple[str, bytes] = ("", b""),
        limits: str = "",
    ) -> list[str | bytes | int]:
        """Return the first arguments, which all scripts share; private: JSON members of private parts."""
        return [
            session_id,
            "" if claim.expected_epoch is None else claim.expected_epoch,
            "" if claim.expected_version is None else claim.expected_version,
            fingerprint,
            claim.request_id,
            cached.epoch if cached else "",
            cached.tags if cached else "",
            self._settings.session_ttl_s * 1000,
            # A record must not outlive the tombstone, which ensures that a later session has another created_at.
            min(self._settings.idempotency_ttl_s, self._settings.session_ttl_s) * 1000,
            self._settings.max_unattended_cycles,
            session_names(session_id),
            token_id(claim),
            *private,
            limits,
        ]


def _in_epoch(claim: Claim, epoch: int, command: str) -> Claim:
    """Return the claim of a link, which is for a session in this epoch only: any other is as good as missing."""
    if claim.expected_epoch is None:
        return replace(claim, expected_epoch=epoch)
    if claim.expected_epoch not in (epoch, 0):  # 0: `If-Match` had a tag that is not ours
        raise refusal("not_found", command, claim, None, 0, None)
    return claim


def _refusal(command: str, claim: Claim, reply: Reply, session: Session | None) -> Exception:
    """Return the error that belongs to a reply other than `ok`."""
    if reply.word == "metadata_changed" and session is not None:
        return MetadataChanged(session, int(reply.now_ms))
    return refusal(reply.word, command, claim, session, int(reply.now_ms), reply.expired_id or None)


def _raise_for_all(reply: Any) -> None:
    """Raise `StoreUnavailable` for an error that would also affect all other sessions."""
    if isinstance(reply, ResponseError) and not str(reply).startswith("WRONGTYPE"):
        with suppress(ResponseError), TRANSLATION:
            raise reply
