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

import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from itertools import chain
from typing import Any

import orjson
import redis
from redis.exceptions import ResponseError

from syncapp.commands import NO_CLAIM, Claim, Known, Result
from syncapp.config import Settings
from syncapp.errors import Conflict, ValidationFailed
from syncapp.keys import Keyspace
from syncapp.models import MAX_METADATA_BYTES, CreateSession, merge_patch
from syncapp.redis import UNAVAILABLE
from syncapp.refusals import refusal, unavailable
from syncapp.scripts import Scripts
from syncapp.state import Definition, Session

KEY_NAMESPACE = uuid.UUID("6c2f6d63-8a0b-5b0e-9c39-0d0c4d1f4f57")
"""Makes a session's id from an idempotency key, when a create has no id of its own."""
_MOST_KNOWN = 2048
_UPDATE_ATTEMPTS = 64


class SessionStore:
    """Creates, reads and changes sessions.

    on_nudge(bucket) is called when a bucket's outbox wants draining, at most about once a second and
    bucket; it must not block.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        *,
        on_nudge: Callable[[int], None] = lambda bucket: None,
        partials: Mapping[str, str] | None = None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._keys = Keyspace(settings.sync_buckets)
        self._scripts = Scripts(client, partials)
        self._on_nudge = on_nudge
        self._known: OrderedDict[str, Known] = OrderedDict()

    def create(self, new: CreateSession, claim: Claim = NO_CLAIM) -> Result:
        """Create a session, `pending`. Raises `SessionExists`, `IdempotencyMismatch`.

        Without an id of its own, the id is made from the idempotency key, or else at random.
        """
        session_id = new.session_id or self._new_id(claim)
        people = new.in_rotation()
        action = new.action_on_timeout.model_dump() if new.action_on_timeout else {"type": "end_session"}
        definition = Definition(
            participant_ids=tuple(person.participant_id for person in people),
            budgets_ms=tuple(person.total_time_ms for person in people),
            total_time_ms=sum(person.total_time_ms for person in people),
            time_per_cycle_ms=None,
            action_on_timeout=action,
        )
        text = definition.to_json()
        idle_timeout_s = new.idle_timeout_s or self._settings.session_ttl_s
        args: list[str | bytes | int] = [
            new.sync_mode,
            new.increment_ms,
            action["type"],
            idle_timeout_s * 1000,
            orjson.dumps(action),
            orjson.dumps(new.metadata),
            text,
        ]
        for person in people:
            args += [person.participant_id, person.total_time_ms]
        # The default idle timeout is a setting: it is no part of what the caller asked for.
        asked = new.model_dump(exclude={"session_id"})
        return self._command("create", session_id, claim, args, asked)

    def get(self, session_id: str) -> Result:
        """Return a session, settled: what was due has happened."""
        return self._command("get", session_id, NO_CLAIM)

    def read(self, session_id: str) -> tuple[Session, int]:
        """Return a session and the server's time in ms it is shown at, for the hub."""
        result = self.get(session_id)
        return result.found, result.now_ms

    def start(self, session_id: str, claim: Claim = NO_CLAIM, *, participant_id: str | None = None) -> Result:
        """Start the clock of `participant_id`, or of the first in rotation.

        Raises `InvalidTransition` unless pending, `ValidationFailed` for an unknown participant, `Conflict`.
        """
        return self._command("start", session_id, claim, [participant_id or ""])

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
        return self._command("switch", session_id, claim, [next_participant_id or "", participant_id or ""])

    def pause(self, session_id: str, claim: Claim = NO_CLAIM) -> Result:
        """Stop the clock. Raises `InvalidTransition` unless running, `Conflict`."""
        return self._command("pause", session_id, claim)

    def resume(self, session_id: str, claim: Claim = NO_CLAIM) -> Result:
        """Go on with the cycle that was paused. Raises `InvalidTransition` unless paused, `Conflict`."""
        return self._command("resume", session_id, claim)

    def complete(self, session_id: str, claim: Claim = NO_CLAIM) -> Result:
        """End a live session as `completed`; a completed one stays as it is.

        Raises `InvalidTransition` when expired or cancelled, `Conflict`.
        """
        return self._command("complete", session_id, claim)

    def cancel(self, session_id: str, claim: Claim = NO_CLAIM, *, reason: str | None = None) -> Result:
        """End a live session as `cancelled`; a cancelled one stays as it is.

        Raises `InvalidTransition` when expired or completed, `Conflict`.
        """
        return self._command("cancel", session_id, claim, [orjson.dumps(reason) if reason else ""])

    def update(self, session_id: str, patch: Mapping[str, Any], claim: Claim = NO_CLAIM) -> Result:
        """Merge a patch (RFC 7396) into the metadata, in any status.

        The document is merged here, because no script may take a caller's JSON apart, and written only
        if it is still what it was made from. Raises `ValidationFailed` when it grows too large, `Conflict`.
        """
        based_on, document = "", b""
        for _ in range(_UPDATE_ATTEMPTS):
            known, reply = self._call("update", session_id, claim, [based_on, document], dict(patch))
            if reply[0] != "metadata_changed":
                return self._result("update", session_id, claim, known, reply)
            found = self._session(session_id, known, reply[2])
            merged = merge_patch(found.metadata, patch)
            based_on, document = str(found.metadata_version), orjson.dumps(merged)
            if len(document) > MAX_METADATA_BYTES:
                message = f"would be {len(document)} bytes as JSON, more than {MAX_METADATA_BYTES}"
                raise ValidationFailed.of("metadata", message, "too_large")
        raise Conflict("the metadata kept changing; try again", {"current": found.state(int(reply[1]))})

    def delete(self, session_id: str, claim: Claim = NO_CLAIM) -> Result:
        """Remove a session; one that is not there is removed already. Raises `Conflict`."""
        return self._command("delete", session_id, claim)

    def time_ms(self) -> int:
        """Return the server's time in ms: the clock that every session runs by."""
        try:
            seconds, micros = self._client.time()
        except UNAVAILABLE as error:
            raise unavailable(error) from error
        return int(seconds) * 1000 + int(micros) // 1000

    def _command(
        self,
        command: str,
        session_id: str,
        claim: Claim,
        args: Sequence[str | bytes | int] = (),
        asked: Mapping[str, Any] | None = None,
    ) -> Result:
        known, reply = self._call(command, session_id, claim, args, asked)
        return self._result(command, session_id, claim, known, reply)

    def _call(
        self,
        command: str,
        session_id: str,
        claim: Claim,
        args: Sequence[str | bytes | int],
        asked: Mapping[str, Any] | None,
    ) -> tuple[Known | None, list[Any]]:
        """Run the command's script and pass a nudge on; what it was told is known, and lua/_reply.lua's reply."""
        keys = self._keys.commit(session_id)
        fingerprint = ""
        if claim.idempotency_key is not None:
            keys.append(self._keys.idempotency(session_id, claim.idempotency_key))
            fingerprint = _fingerprint(command, claim, asked if asked is not None else list(map(_text, args)))
        known = self._known.get(session_id)
        head: list[str | bytes | int] = [
            session_id,
            "" if claim.expected_epoch is None else claim.expected_epoch,
            "" if claim.expected_version is None else claim.expected_version,
            fingerprint,
            claim.request_id,
            known.epoch if known else "",
            known.tags if known else "",
            self._settings.session_ttl_s * 1000,
            self._settings.idempotency_ttl_s * 1000,
        ]
        try:
            reply: list[Any] = self._scripts.call(f"{command}_session", keys, [*head, *args])
        except UNAVAILABLE as error:
            raise unavailable(error) from error
        except ResponseError as error:
            # A full server, seen from within a script, comes as an error of the script.
            if "OOM" in str(error) or "READONLY" in str(error) or "MISCONF" in str(error):
                raise unavailable(error) from error
            raise
        if reply[5]:
            self._on_nudge(self._keys.bucket(session_id))
        return known, reply

    def _result(self, command: str, session_id: str, claim: Claim, known: Known | None, reply: list[Any]) -> Result:
        word, now_ms, state, event, patch, _, replayed, expired_id = reply
        session = self._session(session_id, known, state) if state else None
        if word != "ok":
            raise refusal(word, command, claim, session, int(now_ms), expired_id or None)
        return Result(
            session=session,
            now_ms=int(now_ms),
            event=orjson.loads(event) if event else None,
            patch=orjson.loads(patch) if patch else None,
            replayed=bool(replayed),
            expired_participant_id=expired_id or None,
        )

    def _session(self, session_id: str, known: Known | None, state: Sequence[str]) -> Session:
        now_known = Known.from_reply(state, known)
        self._known[session_id] = now_known
        self._known.move_to_end(session_id)
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        people = tuple(chain.from_iterable(now_known.blocks))
        return Session.from_reply(session_id, state, now_known.definition, people)

    @staticmethod
    def _new_id(claim: Claim) -> str:
        if claim.idempotency_key is None:
            return str(uuid.uuid4())
        return str(uuid.uuid5(KEY_NAMESPACE, claim.idempotency_key))


def _text(value: str | bytes | int) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _fingerprint(command: str, claim: Claim, asked: Any) -> str:
    """Return what tells one command from another under the same idempotency key."""
    named = [command, claim.expected_epoch, claim.expected_version, asked]
    return sha256(orjson.dumps(named, option=orjson.OPT_SORT_KEYS)).hexdigest()
