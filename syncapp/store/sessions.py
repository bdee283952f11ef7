"""`SessionStore`: the Python interface to the sessions in the store. It does not use Flask.

    store = SessionStore(connect(settings), settings)
    created = store.create(CreateSession.parse({"sync_mode": "per_participant", "participants": [...]}))
    store.start(created.session.session_id)

Each method runs one script in one round trip; `update` needs at least two, because it first reads the metadata. All
methods may raise `StoreUnavailable`: without a reply it is unknown whether a command took effect, and it is safe to
send it again with the same idempotency key. All except `create` and `delete` may raise `SessionNotFound`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson
import redis
from msgspec.structs import replace
from redis.exceptions import ResponseError

from syncapp.config import Settings
from syncapp.domain.command_bodies import CLOCK_CHANGES, merge_patch
from syncapp.domain.definition import define
from syncapp.domain.limits import MAX_METADATA_BYTES
from syncapp.domain.modes import MODES
from syncapp.domain.principal import ANYONE, Principal
from syncapp.domain.private_parts import completion_proof, metadata_proof
from syncapp.domain.results import NO_CLAIM, Claim, ExpiryResult, Result, SessionPosition
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session import Session
from syncapp.domain.session_ids import qualified
from syncapp.domain.session_layout import order_of
from syncapp.domain.summary import Summary
from syncapp.errors import Conflict, ValidationFailed
from syncapp.store.bucket_record import BucketGuard
from syncapp.store.client import TRANSLATION
from syncapp.store.connection_pool import ConnectionPool
from syncapp.store.create_arguments import create_arguments, create_request, new_id
from syncapp.store.keys import SENTINEL, Keyspace
from syncapp.store.reply_errors import naming_fields
from syncapp.store.restore import RestorePoint
from syncapp.store.script_runner import MetadataChanged
from syncapp.store.split_runner import runner_for

_UPDATE_ATTEMPTS = 64


class SessionStore:
    """Creates, reads and changes sessions.

    on_nudge(bucket) is called to request a drain of a bucket's outbox, at most about twice a second for each bucket; it
    must not block. on_miss(session_id) is called when a read or a command finds no session; it returns whether the
    session exists now, and the command is run once more. guard: refuses all calls while the store has other buckets.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        *,
        on_nudge: Callable[[int], None] = lambda bucket: None,
        on_miss: Callable[[str], bool] | None = None,
        partials: Mapping[str, str] | None = None,
        guard: BucketGuard | None = None,
    ) -> None:
        self._client, self._settings = client, settings
        self._keys = Keyspace(settings.sync_buckets)
        self._runner = runner_for(client, settings, on_nudge, partials, on_miss, guard)
        self.require_buckets = self._runner.require_buckets

    def create(self, new: CreateSession, claim: Claim = NO_CLAIM) -> Result:
        """Create a `pending` session. Raises `SessionExists`, `IdempotencyMismatch`, `AuditBacklog`, `StoreFull`.

        It belongs to the tenant of the claim's principal. Without an id in the request, it is derived from key and
        principal, or random without a key; `ValidationFailed` if the key is no random UUID, which others might use too.
        """
        session_id = qualified(claim.principal.tenant, new.session_id or new_id(claim))
        default = {"type": MODES[new.sync_mode].on_timeout}
        action = new.action_on_timeout.model_dump() if new.action_on_timeout else default
        args = create_arguments(new, define(new, action), self._settings)
        return self._runner.run("create", session_id, claim, args, create_request(new))

    def get(self, session_id: str, principal: Principal = ANYONE) -> Result:
        """Return a session, settled: everything due has been applied. A link sees one life of it (`link_ids`)."""
        return self._runner.run("get", session_id, Claim(principal=principal) if principal.is_link else NO_CLAIM)

    def cached(self, session_id: str) -> Session | None:
        """Return the last state of the session that this process has read, if it is cached; does not use the store."""
        return self._runner.cached(session_id)

    def read(self, session_id: str) -> tuple[Session, int]:
        """Return a session, settled, and the server's time in ms, for the hub."""
        result = self.get(session_id)
        return result.found, result.now_ms

    def start(self, session_id: str, claim: Claim = NO_CLAIM, *, participant_id: str | None = None) -> Result:
        """Start the clock of `participant_id`, by default of the first in rotation.

        Raises `InvalidTransition` unless it is pending, `ValidationFailed` for an unknown participant, `Conflict`.
        """
        return self._runner.run("start", session_id, claim, [participant_id or ""])

    def switch(
        self,
        session_id: str,
        claim: Claim = NO_CLAIM,
        *,
        participant_id: str | None = None,
        next_participant_id: str | None = None,
        spent_ms: int | None = None,
        acted_at_ms: int | None = None,
        is_free: bool = False,
    ) -> Result:
        """End the active participant's cycle; the turn goes to `next_participant_id`, by default the next in rotation.

        spent_ms, acted_at_ms: what lag compensation goes by (docs/time-controls.md). is_free: with a time control, the
        move is neither charged nor rewarded, as one of an opening book. Raises `InvalidTransition` unless it runs,
        `NotActiveParticipant` if `participant_id` is not active, `ValidationFailed` for an unknown one, `Conflict`.
        """
        ids = [next_participant_id or "", participant_id or ""]
        if (acted_at_ms, spent_ms, is_free) == (None, None, False):
            return self._runner.run("switch", session_id, claim, ids)
        lag_args = ("" if each is None else each for each in (acted_at_ms, spent_ms, claim.lag_limit_ms))
        request = [*ids, spent_ms, acted_at_ms]  # without the limit, which a repeated command may have measured anew
        return self._runner.run("switch", session_id, claim, [*ids, "1" if is_free else "", *lag_args], request)

    def pause(self, session_id: str, claim: Claim = NO_CLAIM) -> Result:
        """Stop the clock. Raises `InvalidTransition` unless it is running, `Conflict`."""
        return self._runner.run("pause", session_id, claim)

    def resume(self, session_id: str, claim: Claim = NO_CLAIM) -> Result:
        """Continue the paused cycle. Raises `InvalidTransition` unless it is paused, `Conflict`."""
        return self._runner.run("resume", session_id, claim)

    def complete(
        self, session_id: str, claim: Claim = NO_CLAIM, *, reason: str | None = None, result: Any = None
    ) -> Result:
        """Complete a live session, with a reason and a result (any JSON); does nothing if it is already completed.

        Raises `InvalidTransition` if it is expired or cancelled, `Conflict`.
        """
        given = {"reason": reason, "result": result}
        texts = {name: orjson.dumps(value) for name, value in given.items() if value is not None}
        if not texts:
            return self._runner.run("complete", session_id, claim)
        request = [texts.get(name, b"").decode() for name in given]
        return self._runner.run("complete", session_id, claim, [*request, completion_proof(texts)], request)

    def cancel(self, session_id: str, claim: Claim = NO_CLAIM, *, reason: str | None = None) -> Result:
        """Cancel a live session; does nothing if it is already cancelled.

        Raises `InvalidTransition` if it is expired or completed, `Conflict`.
        """
        text = orjson.dumps(reason) if reason else b""
        return self._runner.run("cancel", session_id, claim, [text], reason=text)

    def adjust(
        self,
        session_id: str,
        claim: Claim = NO_CLAIM,
        *,
        op: str | None = None,
        ms: int | None = None,
        participant_id: str | None = None,
        group_id: str | None = None,
        targets: Sequence[str] | None = None,
        not_after_ms: int | None = None,
        reason: str | None = None,
        **clock_changes: int | None,
    ) -> Result:
        """Change budgets by `op` (`add`, `set`, `at_least`) and `ms` (docs/clock.md), in one commit.

        They are those of `participant_id`, `group_id` or several owners, `targets` (`all` for everybody); by default
        the one that runs or would run. clock_changes: further fields of `Adjust`, with a time control. Raises
        `InvalidTransition` if it is finished, `ValidationFailed` for what its budget or stage lacks, `Conflict`.
        """
        text = orjson.dumps(reason) if reason else b""
        if targets is not None:
            named, ids = "target", ["*"] if targets == "all" else list(targets)
        else:
            named, ids = "group" if group_id else "participant", [each for each in (group_id, participant_id) if each]
        latest = "" if not_after_ms is None else not_after_ms
        changes = ["" if clock_changes.get(name) is None else str(clock_changes[name]) for name in CLOCK_CHANGES]
        request = [op or "add", str(ms or 0), participant_id or "", group_id or "", str(latest), text.decode()]
        if targets is not None or any(changes):
            request += [" ".join(ids) if targets is not None else "", *changes]
        args = [op or "add", ms or 0, named, latest, text, *changes, *ids]
        with naming_fields("no_time_control", [name for name in CLOCK_CHANGES if clock_changes.get(name) is not None]):
            return self._runner.run("adjust", session_id, claim, args, request, reason=text)

    def takeback(self, session_id: str, claim: Claim = NO_CLAIM, *, cycles: int, reason: str | None = None) -> Result:
        """Take back the last cycles: turn and clocks become as they were when the first of them began.

        Raises `InvalidTransition` unless it is running or paused, `ValidationFailed` if so many turns are not kept,
        `Conflict`.
        """
        text = orjson.dumps(reason) if reason else b""
        return self._runner.run("takeback", session_id, claim, [cycles, text], reason=text)

    def reopen(self, session_id: str, claim: Claim = NO_CLAIM, *, reason: str | None = None) -> Result:
        """Reopen a finished session: it is paused, with the clocks as they were at its end.

        Raises `InvalidTransition` if it is live, or has had all its cycles, `Conflict`.
        """
        text = orjson.dumps(reason) if reason else b""
        return self._runner.run("reopen", session_id, claim, [text], reason=text)

    def expire(self, session_ids: Sequence[str]) -> list[ExpiryResult | ResponseError]:
        """Apply what is due to sessions, in one round trip, for the sweeper.

        The result of a session that fails is its error. A missing session is removed from the deadlines.
        """
        return self._runner.expire(session_ids)

    def summaries(self, session_ids: Sequence[str]) -> tuple[list[Summary | None], int]:
        """Return summaries of settled sessions, None for a missing one, and the server's time in ms.

        Takes one round trip, unless more than 64 commits of a session are due.
        """
        return self._runner.summarize(session_ids)

    def attend(self, session_ids: Sequence[str]) -> Sequence[Exception | None]:
        """Restart the idle time of watched sessions, in one round trip and without commits.

        The result of a session that fails is its error, of all others None.
        """
        return self._runner.attend(session_ids)

    def update(self, session_id: str, metadata: Mapping[str, Any], claim: Claim = NO_CLAIM) -> Result:
        """Apply a merge patch (RFC 7396), `metadata`, to the metadata, in any status.

        The merge happens here, because scripts must not parse and encode a client's JSON. The result is written only if
        the metadata has not changed meanwhile. Raises `ValidationFailed` if it is too large, `Conflict`.
        """
        base_version, document = "", b""
        for _ in range(_UPDATE_ATTEMPTS):
            args: list[str | bytes | int] = [base_version, document, metadata_proof(document)]
            try:
                return self._runner.run("update", session_id, claim, args, dict(metadata), is_paid=bool(base_version))
            except MetadataChanged as changed:
                current, now_ms = changed.session, changed.now_ms
            base_version = str(current.metadata_version)
            document = orjson.dumps(merge_patch(current.metadata, metadata))
            if len(document) > MAX_METADATA_BYTES:
                message = f"would be {len(document)} bytes as JSON, more than {MAX_METADATA_BYTES}"
                raise ValidationFailed.of("metadata", message, "too_large")
        raise Conflict("the metadata kept changing; try again", {"current": current.state(now_ms)})

    def delete(self, session_id: str, claim: Claim = NO_CLAIM, *, erases: bool = False) -> Result:
        """Delete a session; deleting a missing session succeeds. Raises `Conflict`.

        erases: also have its private parts erased from the audit log.
        """
        return self._runner.run("delete", session_id, claim, ["1"] if erases else [])

    def restore(
        self, point: RestorePoint, rule: str, claim: Claim = NO_CLAIM, *, instead_of: tuple[int, int] | None = None
    ) -> Result:
        """Restore a session from the audit log in a later epoch, with the clock settled by `rule` (docs/audit.md).

        instead_of: the (epoch, version) of the existing session to replace; by default there must be none. Raises
        `SessionExists`, `Conflict` if it is at another version, `SessionNotFound` if it was deleted meanwhile.
        """
        epoch, version = instead_of or (None, None)
        claim = replace(claim, expected_epoch=epoch, expected_version=version)
        args = [point.epoch, point.chain, rule, *point.arguments()]
        return self._runner.run("restore", point.session.session_id, claim, args)

    def renew(self, session_id: str, order: tuple[int, int], last_epoch: int, claim: Claim = NO_CLAIM) -> Result:
        """Move a session at (epoch, version) `order`, unchanged, to an epoch later than `last_epoch`.

        Raises `SessionNotFound`, `Conflict` if it is at another version.
        """
        claim = replace(claim, expected_epoch=order[0], expected_version=order[1])
        return self._runner.run("renew", session_id, claim, [last_epoch])

    def position(self, session_id: str) -> SessionPosition | None:
        """Return the position of a session without settling it; None if it is missing or was deleted."""
        with TRANSLATION:
            fields: Any = self._client.hmget(self._keys.session(session_id), "scalars", "chain")
        scalars, chain = fields
        return SessionPosition(*order_of(scalars), chain) if scalars else None

    def scheduled(self) -> Iterator[str]:
        """Yield the ids of all sessions with a deadline, which are all live sessions."""
        for bucket in range(self._keys.buckets):
            with TRANSLATION:
                names = {each for each, _ in self._client.zscan_iter(self._keys.deadlines(bucket))}
            yield from sorted(names - {SENTINEL})

    def check(self, node: ConnectionPool | None = None) -> list[str]:
        """Raise `StoreUnavailable` if a commit's write is refused; return the commands denied to the worker."""
        return self._runner.check(node)

    def time_ms(self) -> int:
        """Return the server's time in ms, which is the time of all sessions."""
        with TRANSLATION:
            seconds, micros = self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000
