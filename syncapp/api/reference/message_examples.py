"""Examples of WebSocket messages, in the form in which they are sent."""

from __future__ import annotations

from typing import Any

from syncapp.api.reference.examples import (
    CLOCK,
    EPOCH,
    EVENT,
    GO_STATE,
    NOON_MS,
    PATCH,
    PERIOD_EVENT,
    SESSION_ID,
    STATE,
)

_HEAD = {"sessionId": SESSION_ID, "timestamp": NOON_MS + 12_345}
_ORDER = {"epoch": EPOCH, "version": 2}


def _sent(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **_HEAD, **fields}


EXAMPLES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "CONNECTED": [("The session is at its second version", _sent("CONNECTED", **_ORDER))],
    "STATE_SYNC": [("A running game", _sent("STATE_SYNC", state=STATE))],
    "STATE_UPDATE": [
        ("A game was started", _sent("STATE_UPDATE", **_ORDER, event=EVENT, state=STATE)),
        (
            "A byo-yomi period has begun",
            _sent("STATE_UPDATE", epoch=EPOCH, version=9, event=PERIOD_EVENT, state=GO_STATE),
        ),
    ],
    "STATE_PATCH": [("A game was started", _sent("STATE_PATCH", **_ORDER, event=EVENT, patch=PATCH, clock=CLOCK))],
    "SESSION_DELETED": [
        (
            "The game was deleted",
            _sent("SESSION_DELETED", epoch=EPOCH, version=3, event={"type": "session_deleted", "at_ms": NOON_MS}),
        )
    ],
    "ACK": [
        ("A command has taken effect", _sent("ACK", id="c1", **_ORDER)),
        ("It had taken effect before", _sent("ACK", id="c1", **_ORDER, replayed=True)),
    ],
    "SUBSCRIBED": [("The session is watched from now on", _sent("SUBSCRIBED", id="s1"))],
    "UNSUBSCRIBED": [("No more messages about the session", _sent("UNSUBSCRIBED", id="s2"))],
    "AUTHENTICATED": [
        (
            "The token is valid for an hour",
            _sent("AUTHENTICATED", id="a1", expires_at_ms=NOON_MS + 3_600_000, sub="ada"),
        )
    ],
    "HEARTBEAT": [("Every 15 s", _sent("HEARTBEAT"))],
    "PONG": [("Answer to a ping", _sent("PONG", t0=1_767_268_812_301.5))],
    "ERROR": [
        (
            "A command expected an older version",
            _sent("ERROR", id="c1", code="CONFLICT", message="the session is at version 2, not the expected one"),
        )
    ],
    "PING": [("With the client's own time", {"type": "PING", "t0": 1_767_268_812_301.5})],
    "RECONNECT": [("The version that the client has", {"type": "RECONNECT", **_ORDER})],
    "SUBSCRIBE": [
        ("Watch another session", {"type": "SUBSCRIBE", "id": "s1", "session_id": SESSION_ID}),
        ("Continue from the version that the client has", {"type": "SUBSCRIBE", "session_id": SESSION_ID, **_ORDER}),
    ],
    "UNSUBSCRIBE": [("Stop watching it", {"type": "UNSUBSCRIBE", "id": "s2", "session_id": SESSION_ID})],
    "AUTH": [
        ("Send a token, the first one or a newer one", {"type": "AUTH", "id": "a1", "token": "eyJhbGciOiJIUzI1…"})
    ],
    "COMMAND": [
        (
            "Pass the turn on",
            {
                "type": "COMMAND",
                "id": "c1",
                "command": "switch",
                "args": {"participant_id": "white"},
                "expected_version": 2,
                "idempotency_key": "move-2",
            },
        )
    ],
}
"""Examples by type: summary and message of each."""
