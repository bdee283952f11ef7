"""Examples of what goes over a WebSocket: each is a message as it could be on the wire."""

from __future__ import annotations

from typing import Any

from syncapp.api.reference.examples import CLOCK, EPOCH, EVENT, NOON_MS, PATCH, SESSION_ID, STATE

_HEAD = {"sessionId": SESSION_ID, "timestamp": NOON_MS + 12_345}
_ORDER = {"epoch": EPOCH, "version": 2}


def _told(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **_HEAD, **fields}


EXAMPLES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "CONNECTED": [("The session is at its second version", _told("CONNECTED", **_ORDER))],
    "STATE_SYNC": [("A running game", _told("STATE_SYNC", state=STATE))],
    "STATE_UPDATE": [("A game was started", _told("STATE_UPDATE", **_ORDER, event=EVENT, state=STATE))],
    "STATE_PATCH": [("A game was started", _told("STATE_PATCH", **_ORDER, event=EVENT, patch=PATCH, clock=CLOCK))],
    "SESSION_DELETED": [
        (
            "The game is gone",
            _told("SESSION_DELETED", epoch=EPOCH, version=3, event={"type": "session_deleted", "at_ms": NOON_MS}),
        )
    ],
    "ACK": [
        ("A command has taken effect", _told("ACK", id="c1", **_ORDER)),
        ("It had already", _told("ACK", id="c1", **_ORDER, replayed=True)),
    ],
    "SUBSCRIBED": [("The session is watched from now on", _told("SUBSCRIBED", id="s1"))],
    "UNSUBSCRIBED": [("Nothing more is told of the session", _told("UNSUBSCRIBED", id="s2"))],
    "HEARTBEAT": [("Every 15 s", _told("HEARTBEAT"))],
    "PONG": [("Answer to a ping", _told("PONG", t0=1_767_268_812_301.5))],
    "ERROR": [
        (
            "A command came too late",
            _told("ERROR", id="c1", code="CONFLICT", message="the session is at version 2, not the expected one"),
        )
    ],
    "PING": [("With the client's own time", {"type": "PING", "t0": 1_767_268_812_301.5})],
    "RECONNECT": [("What the client knows", {"type": "RECONNECT", **_ORDER})],
    "SUBSCRIBE": [
        ("Watch another session", {"type": "SUBSCRIBE", "id": "s1", "session_id": SESSION_ID}),
        ("Go on where the client left off", {"type": "SUBSCRIBE", "session_id": SESSION_ID, **_ORDER}),
    ],
    "UNSUBSCRIBE": [("Watch it no more", {"type": "UNSUBSCRIBE", "id": "s2", "session_id": SESSION_ID})],
    "COMMAND": [
        (
            "Hand the turn on",
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
"""By type: summaries and messages."""
