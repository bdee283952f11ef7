"""Calls of scripts: a command goes out with its claim, and its reply comes back as values."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any

import orjson
import redis
from redis.exceptions import ResponseError

from syncapp.commands import NO_CLAIM, Claim, Known, Result, Swept
from syncapp.config import Settings
from syncapp.keys import PROBE_SESSION, Keyspace
from syncapp.redis import TRANSLATION
from syncapp.refusals import refusal
from syncapp.scripts import Scripts
from syncapp.state import Session
from syncapp.summaries import Summary

_MOST_KNOWN = 2048
_MOST_KNOWN_PARTICIPANTS = 50_000  # some 12 MB
SETTLE_S = 2.0
"""How long a command goes on settling what is due, 64 commits a call: a week of one-second cycles takes longer."""


class Calls:
    """Calls the scripts of sessions, each in one round trip; what sessions' methods share."""

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        on_nudge: Callable[[int], None],
        partials: Mapping[str, str] | None,
        on_miss: Callable[[str], bool] | None = None,
    ) -> None:
        self._settings = settings
        self._keys = Keyspace(settings.sync_buckets)
        self._scripts = Scripts(client, partials)
        self._on_nudge = on_nudge
        self._on_miss = on_miss
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._known_participants = 0

    def run(
        self,
        command: str,
        session_id: str,
        claim: Claim,
        args: Sequence[str | bytes | int] = (),
        asked: Mapping[str, Any] | None = None,
    ) -> Result:
        """Run a command; raises what its word means."""
        known, reply = self.reply(command, session_id, claim, args, asked)
        return self.result(command, session_id, claim, known, reply)

    def reply(
        self,
        command: str,
        session_id: str,
        claim: Claim,
        args: Sequence[str | bytes | int],
        asked: Mapping[str, Any] | None,
    ) -> tuple[Known | None, list[Any]]:
        """Run the command's script, once more if it misses a session that can be brought back.

        Returns what it was told is known, and lua/_reply.lua's reply.
        """
        known, reply = self._reply(command, session_id, claim, args, asked)
        if self._on_miss and _is_miss(command, reply) and self._on_miss(session_id):
            return self._reply(command, session_id, claim, args, asked)
        return known, reply

    def _reply(
        self,
        command: str,
        session_id: str,
        claim: Claim,
        args: Sequence[str | bytes | int],
        asked: Mapping[str, Any] | None,
    ) -> tuple[Known | None, list[Any]]:
        """Run the command's script and pass a nudge on."""
        keys: Sequence[str] = self._keys.commit(session_id)
        fingerprint = ""
        if claim.idempotency_key is not None:
            keys = (*keys, self._keys.idempotency(session_id, claim.idempotency_key))
            fingerprint = _fingerprint(command, claim, asked if asked is not None else list(map(_text, args)))
        known = self._known.get(session_id)
        head = self._head(session_id, claim, fingerprint, known)
        until_s = time.monotonic() + SETTLE_S
        with TRANSLATION:
            while True:
                reply: list[Any] = self._scripts.call(f"{command}_session", keys, [*head, *args])
                if reply[5]:
                    self._on_nudge(self._keys.bucket(session_id))
                if reply[0] != "busy" or time.monotonic() > until_s:
                    break
        return known, reply

    def check(self) -> list[str]:
        """Write what a commit may write in each bucket; return the commands that the worker may not use.

        Raises `StoreUnavailable` when any of what commits write is refused.
        """
        head = self._head(PROBE_SESSION, NO_CLAIM, "ready", None)
        with TRANSLATION:
            replies = self._scripts.call_all(
                "check_store", [(self._keys.probe(bucket), head) for bucket in range(self._keys.buckets)]
            )
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return sorted({command for reply in replies for command in reply[2]})

    def known(self, session_id: str) -> Session | None:
        """Return the last state of the session that this process has seen, if it is still cached."""
        known = self._known.get(session_id)
        return known.session if known else None

    def expire(self, session_ids: Sequence[str]) -> list[Swept | ResponseError]:
        """Run the expiry of each session, all in one round trip. Raises `StoreUnavailable`, also for a full store."""
        replies = self._call_all("expire_session", session_ids)
        swept: list[Swept | ResponseError] = []
        for session_id, reply in zip(session_ids, replies, strict=True):
            if isinstance(reply, ResponseError):
                _raise_for_all(reply)
                swept.append(reply)
                continue
            if reply[5]:
                self._on_nudge(self._keys.bucket(session_id))
            swept.append(Swept(int(reply[1]), tuple(map(int, reply[2])), reply[0] == "busy"))
        return swept

    def summarize(self, session_ids: Sequence[str]) -> tuple[list[Summary | None], int]:
        """Return summaries, None for a session that is not there, and the server's time in ms; mostly one round trip.

        Raises `StoreUnavailable`, also when more is due than can be settled in time.
        """
        found: dict[str, Summary | None] = dict.fromkeys(session_ids)
        todo, now_ms, until_s = list(session_ids), 0, time.monotonic() + SETTLE_S
        while todo:
            busy = []
            for session_id, reply in zip(todo, self._call_all("summarize_session", todo), strict=True):
                if isinstance(reply, ResponseError):
                    _raise_for_all(reply)
                    continue
                if reply[5]:
                    self._on_nudge(self._keys.bucket(session_id))
                now_ms = max(now_ms, int(reply[1]))
                if reply[0] == "ok":
                    found[session_id] = Summary.from_reply(session_id, reply[2])
                elif reply[0] == "busy":
                    busy.append(session_id)
            if busy and time.monotonic() > until_s:
                raise refusal("busy", "get", NO_CLAIM, None, now_ms, None)
            todo = busy
        return [found[each] for each in session_ids], now_ms

    def attend(self, session_ids: Sequence[str]) -> list[ResponseError | None]:
        """Postpone the idle end of each session, all in one round trip."""
        replies = self._call_all("attend_session", session_ids)
        for reply in replies:
            _raise_for_all(reply)
        return [reply if isinstance(reply, ResponseError) else None for reply in replies]

    def _call_all(self, script: str, session_ids: Sequence[str]) -> list[Any]:
        """Run a script that needs only a session id on each session, in one round trip."""
        calls = [(self._keys.commit(each), self._head(each, NO_CLAIM, "", None)) for each in session_ids]
        with TRANSLATION:
            return self._scripts.call_all(script, calls)

    def _head(self, session_id: str, claim: Claim, fingerprint: str, known: Known | None) -> list[str | bytes | int]:
        """Return the arguments that every script begins with."""
        return [
            session_id,
            "" if claim.expected_epoch is None else claim.expected_epoch,
            "" if claim.expected_version is None else claim.expected_version,
            fingerprint,
            claim.request_id,
            known.epoch if known else "",
            known.tags if known else "",
            self._settings.session_ttl_s * 1000,
            # A record must not outlive the tombstone, which keeps a later session's created_at apart from this one's.
            min(self._settings.idempotency_ttl_s, self._settings.session_ttl_s) * 1000,
            self._settings.max_unattended_cycles,
        ]

    def result(self, command: str, session_id: str, claim: Claim, known: Known | None, reply: list[Any]) -> Result:
        """Return what a reply says; raises what its word means."""
        word, now_ms, state, event, patch, _, replayed, expired_id = reply
        session = self.session(session_id, known, state) if state else None
        if word != "ok":
            raise refusal(word, command, claim, session, int(now_ms), expired_id or None)
        return Result(
            session=session,
            now_ms=int(now_ms),
            event_json=event,
            patch_json=patch,
            replayed=bool(replayed),
            first=_first(replayed),
            expired_participant_id=expired_id or None,
        )

    def session(self, session_id: str, known: Known | None, state: Sequence[str]) -> Session:
        """Return the session of a state reply to a call that named `known`, and keep its parts."""
        now_known = Known.from_reply(session_id, state, known)
        before = self._known.pop(session_id, None)
        self._known[session_id] = now_known
        self._known_participants += now_known.size - (before.size if before else 0)
        while len(self._known) > _MOST_KNOWN or self._known_participants > _MOST_KNOWN_PARTICIPANTS:
            self._known_participants -= self._known.popitem(last=False)[1].size
        return now_known.session


def _raise_for_all(reply: Any) -> None:
    """Raise `StoreUnavailable` for an error that is no fault of its session: no other would fare better."""
    if isinstance(reply, ResponseError) and not str(reply).startswith("WRONGTYPE"):
        with suppress(ResponseError), TRANSLATION:
            raise reply


def _is_miss(command: str, reply: Sequence[Any]) -> bool:
    """Tell whether there was no session: a delete is glad of that, but the log may know one to delete."""
    word, _, _, event, _, _, replayed, _ = reply
    return word in ("not_found", "session_gone") or (
        command == "delete" and word == "ok" and not event and not replayed
    )


def _first(replayed: str) -> tuple[int, int] | None:
    """Return the (epoch, version) of a first result; None for a command that was not replayed, or for a delete."""
    if not replayed or replayed == "deleted":
        return None
    epoch, version = replayed.split(" ")
    return int(epoch), int(version)


def _text(value: str | bytes | int) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _fingerprint(command: str, claim: Claim, asked: Any) -> str:
    """Return what tells one command from another under the same idempotency key."""
    named = [command, claim.expected_epoch, claim.expected_version, asked]
    return sha256(orjson.dumps(named, option=orjson.OPT_SORT_KEYS)).hexdigest()
