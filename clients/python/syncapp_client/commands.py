"""The fields of each command; docs/clock.md says what they do. Each command makes an idempotency key of its own."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypedDict

CommandName: TypeAlias = Literal[
    "start", "switch", "pause", "resume", "adjust", "takeback", "reopen", "complete", "cancel", "update", "delete"
]


class Options(TypedDict, total=False):
    """What every command may have.

    idempotency_key: by default a new one for each call, repeated in each retry. expected_version, expected_epoch: the
    command is refused with `CONFLICT` at any other.
    """

    idempotency_key: str
    expected_version: int
    expected_epoch: int


class Start(Options, total=False):
    """Start the clock, of the first participant in rotation by default."""

    participant_id: str


class Switch(Options, total=False):
    """End the active participant's cycle; `spent_ms` or `acted_at_ms` is for lag compensation."""

    participant_id: str
    next_participant_id: str
    spent_ms: int
    acted_at_ms: int


class Reasoned(Options, total=False):
    """A command with a reason for the audit log."""

    reason: str


class Complete(Reasoned, total=False):
    """Complete a session; `result` is any JSON of at most 1,024 bytes."""

    result: Any


class Takeback(Reasoned, total=False):
    """Take the last cycles back, one by default."""

    cycles: int


class Adjust(Reasoned, total=False):
    """Change the clocks of one owner or several."""

    op: Literal["add", "set", "at_least"]
    ms: int
    participant_id: str
    group_id: str
    targets: list[str] | Literal["all"]
    not_after_ms: int
    stage: int
    moves_to_next_stage: int
    periods_left: int
    period_remaining_ms: int
    block_moves_left: int


class Command:
    """One call of a command: its body, its preconditions and its key, the same in every try."""

    def __init__(self, name: str, fields: Mapping[str, Any]) -> None:
        self.name = name
        self.args = {name: value for name, value in fields.items() if value is not None}
        self.key: str = self.args.pop("idempotency_key", None) or str(uuid.uuid4())
        self.expected: dict[str, Any] = {
            name: self.args.pop(name) for name in ("expected_version", "expected_epoch") if name in self.args
        }

    def message(self, message_id: str) -> dict[str, Any]:
        """Return the command as a message on the WebSocket of its session."""
        head = {"type": "COMMAND", "id": message_id, "command": self.name, "idempotency_key": self.key}
        return {**head, "args": self.args, **self.expected}

    def request(self, session_id: str) -> tuple[str, str, dict[str, Any] | None]:
        """Return the method, the path and the body of the command over REST."""
        path = f"/v1/sessions/{session_id}"
        method = {"update": "PATCH", "delete": "DELETE"}.get(self.name, "POST")
        if method == "POST":
            path += f"/{self.name}"
        return method, path, {**self.args, **self.expected}
