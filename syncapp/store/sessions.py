"""`SessionStore`: the one Python face of the sessions in Redis. No Flask in here.

    store = SessionStore(connect(settings), settings)
    made = store.create(CreateSession.parse({"sync_mode": "per_participant", "participants": [...]}))
    store.start(made.session.session_id)

Each method is one script, one round trip (`update` is two when others change the metadata at the same
time or nobody told it the version). Every one may raise `StoreUnavailable` (Redis does not answer;
whether a command happened is then unknown, and coming back with the same idempotency key is safe)
and, but for `create` and `delete`, `SessionNotFound`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson
import redis
from msgspec.structs import replace
from redis.exceptions import ResponseError

from syncapp.config import Settings
from syncapp.domain.definition import define, session_budget_ms
from syncapp.domain.limits import MAX_METADATA_BYTES
from syncapp.domain.modes import MODES
from syncapp.domain.results import NO_CLAIM, Claim, ExpiryResult, Result, SessionPosition
from syncapp.domain.schemas import CreateSession, merge_patch
from syncapp.domain.session import Session
from syncapp.domain.session_layout import order_of
from syncapp.domain.summary import Summary
from syncapp.errors import Conflict, ValidationFailed
from syncapp.store.client import TRANSLATION
from syncapp.store.keys import SENTINEL, Keyspace
from syncapp.store.restore import RestorePoint
from syncapp.store.script_runner import MetadataChanged, ScriptRunner

KEY_NAMESPACE = uuid.UUID("6c2f6d63-8a0b-5b0e-9c39-0d0c4d1f4f57")
"""Makes a session's id from an idempotency key, when a create has no id of its own."""
_RANDOM_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z", re.IGNORECASE)
_UPDATE_ATTEMPTS = 64


class SessionStore:
    """Creates, reads and changes sessions.

    on_nudge(bucket) is called when a bucket's outbox wants draining, at most about twice a second and
    bucket; it must not block. on_miss(session_id) is called when a read or a command finds no session: when it
    returns True there is one now, and the command is tried once more.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        *,
        on_nudge: Callable[[int], None] = lambda bucket: None,
        on_miss: Callable[[str], bool] | None = None,
        partials: Mapping[str, str] | None = None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._keys = Keyspace(settings.sync_buckets)
        self._runner = ScriptRunner(client, settings, on_nudge, partials, on_miss)

    def create(self, new: CreateSession, claim: Claim = NO_CLAIM) -> Result:
        """Create a session, `pending`. Raises `SessionExists`, `IdempotencyMismatch`, `AuditBacklog`, `StoreFull`.

        Without an id of its own, the id is made from the idempotency key, or else at random. Raises
        `ValidationFailed` when that key is no random UUID: others could name it, too, and would share the session.
        """
        session_id = new.session_id or _new_id(claim)
        people, groups = new.in_rotation(), new.in_groups()
        traits = MODES[new.sync_mode]
        action = new.action_on_timeout.model_dump() if new.action_on_timeout else {"type": traits.on_timeout}
        definition = define(new, action)
        idle_timeout_s = new.idle_timeout_s or self._settings.idle_timeout_s
        args: list[str | bytes | int] = [
            new.sync_mode,
            new.increment_ms,
            action["type"],
            idle_timeout_s * 1000,
            *(
                "" if number is None else number
                for number in (session_budget_ms(new), new.time_per_cycle_ms, new.max_cycles)
            ),
            " ".join(str(threshold) for threshold in definition.warn_at_ms),
            orjson.dumps(action),
            orjson.dumps(new.metadata),
            definition.to_json(),
            self._settings.audit_backlog_limit,
            self._settings.memory_limit_percent,
            len(people),
        ]
        for place, person in enumerate(people):
            budget = person.total_time_ms if traits.has_participant_budgets else 0
            args += [person.participant_id, budget or 0, definition.group_of[place] if groups else ""]
        for group in groups:
            args += [group.group_id, new.budget_of(group)]
        # The default idle timeout is a setting: it is no part of what the caller asked for.
        asked = new.model_dump(exclude={"session_id"})
        return self._runner.run("create", session_id, claim, args, asked)

    def get(self, session_id: str) -> Result:
        """Return a session, settled: what was due has happened."""
        return self._runner.run("get", session_id, NO_CLAIM)

    def known(self, session_id: str) -> Session | None:
        """Return the last state of the session that this process has seen, without asking the store; or None."""
        return self._runner.known(session_id)

    def read(self, session_id: str) -> tuple[Session, int]:
        """Return a session and the server's time in ms it is shown at, for the hub."""
        result = self.get(session_id)
        return result.found, result.now_ms

    def start(self, session_id: str, claim: Claim = NO_CLAIM, *, participant_id: str | None = None) -> Result:
        """Start the clock of `participant_id`, or of the first in rotation.

        Raises `InvalidTransition` unless pending, `ValidationFailed` for an unknown participant, `Conflict`.
        """
        return self._runner.run("start", session_id, claim, [participant_id or ""])

    def switch(
        self,
        session_id: str,
        claim: Claim = NO_CLAIM,
        *,
        participant_id: str | None = None,
        next_participant_id: str | None = None,
    ) -> Result:
        """End the active participant's cycle; the turn goes to `next_participant_id` or on in rotation.

        Raises `InvalidTransition` unless running, `NotActiveParticipant` when `participant_id` is given
        and not active, `ValidationFailed` for an unknown participant, `Conflict`.
        """
        return self._runner.run("switch", session_id, claim, [next_participant_id or "", participant_id or ""])

    def pause(self, session_id: str, claim: Claim = NO_CLAIM) -> Result:
        """Stop the clock. Raises `InvalidTransition` unless running, `Conflict`."""
        return self._runner.run("pause", session_id, claim)

    def resume(self, session_id: str, claim: Claim = NO_CLAIM) -> Result:
        """Go on with the cycle that was paused. Raises `InvalidTransition` unless paused, `Conflict`."""
        return self._runner.run("resume", session_id, claim)

    def complete(
        self, session_id: str, claim: Claim = NO_CLAIM, *, reason: str | None = None, result: Any = None
    ) -> Result:
        """End a live session as `completed`, and keep a reason and a result, any JSON; a completed one stays as it is.

        Raises `InvalidTransition` when expired or cancelled, `Conflict`.
        """
        told = ["" if each is None else orjson.dumps(each) for each in (reason, result)]
        return self._runner.run("complete", session_id, claim, told if any(told) else [])

    def cancel(self, session_id: str, claim: Claim = NO_CLAIM, *, reason: str | None = None) -> Result:
        """End a live session as `cancelled`; a cancelled one stays as it is.

        Raises `InvalidTransition` when expired or completed, `Conflict`.
        """
        return self._runner.run("cancel", session_id, claim, [orjson.dumps(reason) if reason else ""])

    def adjust(
        self,
        session_id: str,
        claim: Claim = NO_CLAIM,
        *,
        op: str,
        ms: int,
        participant_id: str | None = None,
        group_id: str | None = None,
        not_after_ms: int | None = None,
        reason: str | None = None,
    ) -> Result:
        """Change what is left of one budget by `op` (`add`, `set`, `at_least`) and `ms`; docs/clock.md.

        The budget is that of `participant_id` or `group_id`, or else the one that runs or would run.
        Raises `InvalidTransition` when terminal, `ValidationFailed` for a budget that is not there, `Conflict`.
        """
        args: list[str | bytes | int] = [
            op,
            ms,
            participant_id or "",
            group_id or "",
            "" if not_after_ms is None else not_after_ms,
            orjson.dumps(reason) if reason else "",
        ]
        return self._runner.run("adjust", session_id, claim, args)

    def expire(self, session_ids: Sequence[str]) -> list[ExpiryResult | ResponseError]:
        """Apply what is due to sessions, in one round trip, for the sweeper.

        What a session that fails raised stands in its place; one that is gone is taken off the deadlines.
        """
        return self._runner.expire(session_ids)

    def summaries(self, session_ids: Sequence[str]) -> tuple[list[Summary | None], int]:
        """Return what a list shows of sessions, settled, None for one that is not there, and the server's time in ms.

        One round trip, unless a lot is due.
        """
        return self._runner.summarize(session_ids)

    def attend(self, session_ids: Sequence[str]) -> list[ResponseError | None]:
        """Restart the idle time of watched sessions, in one round trip and without a commit.

        In the result, a session that failed has its exception.
        """
        return self._runner.attend(session_ids)

    def update(self, session_id: str, metadata: Mapping[str, Any], claim: Claim = NO_CLAIM) -> Result:
        """Merge a patch (RFC 7396), `metadata`, into the metadata, in any status.

        The document is merged here, because no script may take a caller's JSON apart, and written only
        if it is still what it was made from. Raises `ValidationFailed` when it grows too large, `Conflict`.
        """
        base_version, document = "", b""
        for _ in range(_UPDATE_ATTEMPTS):
            try:
                return self._runner.run("update", session_id, claim, [base_version, document], dict(metadata))
            except MetadataChanged as changed:
                current, now_ms = changed.session, changed.now_ms
            base_version = str(current.metadata_version)
            document = orjson.dumps(merge_patch(current.metadata, metadata))
            if len(document) > MAX_METADATA_BYTES:
                message = f"would be {len(document)} bytes as JSON, more than {MAX_METADATA_BYTES}"
                raise ValidationFailed.of("metadata", message, "too_large")
        raise Conflict("the metadata kept changing; try again", {"current": current.state(now_ms)})

    def delete(self, session_id: str, claim: Claim = NO_CLAIM) -> Result:
        """Remove a session; one that is not there is removed already. Raises `Conflict`."""
        return self._runner.run("delete", session_id, claim)

    def restore(
        self, point: RestorePoint, rule: str, claim: Claim = NO_CLAIM, *, instead_of: tuple[int, int] | None = None
    ) -> Result:
        """Bring a session back from the log in a later epoch, its clock settled by `rule` (docs/audit.md).

        Only if there is none of its id, or else just the one at (epoch, version) `instead_of`. Raises
        `SessionExists`, `Conflict` when it is at another version; `SessionNotFound` when it was deleted meanwhile.
        """
        epoch, version = instead_of or (None, None)
        claim = replace(claim, expected_epoch=epoch, expected_version=version)
        args = [point.epoch, point.chain, rule, *point.arguments()]
        return self._runner.run("restore", point.session.session_id, claim, args)

    def renew(self, session_id: str, order: tuple[int, int], last_epoch: int, claim: Claim = NO_CLAIM) -> Result:
        """Give a session at (epoch, version) `order` an epoch later than `last_epoch`, as it stands.

        Raises `SessionNotFound`, `Conflict` when it is at another version.
        """
        claim = replace(claim, expected_epoch=order[0], expected_version=order[1])
        return self._runner.run("renew", session_id, claim, [last_epoch])

    def peek(self, session_id: str) -> SessionPosition | None:
        """Return where a session is, without settling it; None when there is none, or it was deleted."""
        with TRANSLATION:
            found: Any = self._client.hmget(self._keys.session(session_id), "scalars", "chain")
        scalars, chain = found
        return SessionPosition(*order_of(scalars), chain) if scalars else None

    def scheduled(self) -> Iterator[str]:
        """Yield the id of every session that has a deadline: of all that are live."""
        for bucket in range(self._keys.buckets):
            with TRANSLATION:
                found = {each for each, _ in self._client.zscan_iter(self._keys.deadlines(bucket))}
            yield from sorted(found - {SENTINEL})

    def check(self) -> list[str]:
        """Raise `StoreUnavailable` if the server refuses any of what commits write; return what the worker may not."""
        return self._runner.check()

    def time_ms(self) -> int:
        """Return the server's time in ms: the clock that every session runs by."""
        with TRANSLATION:
            seconds, micros = self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000


def _new_id(claim: Claim) -> str:
    if claim.idempotency_key is None:
        return str(uuid.uuid4())
    if not _RANDOM_UUID.match(claim.idempotency_key):
        message = "must be a random UUID (version 4 or 7) when there is no session_id: send one or the other"
        raise ValidationFailed.of("Idempotency-Key", message, "random_uuid")
    return str(uuid.uuid5(KEY_NAMESPACE, claim.idempotency_key))
