"""Clock times as text, for buttons, titles and overlays that cannot run scripts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

from pydantic import Field
from pydantic_core import InitErrorDetails, PydanticCustomError

from syncapp.domain.field_types import ParticipantId
from syncapp.domain.modes import GROUP_MODES
from syncapp.domain.owner_clocks import clocks
from syncapp.domain.query import PLUS, Query
from syncapp.domain.session import Session
from syncapp.errors import ValidationFailed

Format = Literal["mm:ss", "m:ss", "hh:mm:ss", "h:mm:ss", "ss", "mm:ss.t"]
FORMATS: tuple[str, ...] = get_args(Format)


class TextQuery(Query):
    """Which clock to show as text, and how: the running one, or that of a participant or group."""

    format: Format = Field(default="mm:ss", description="Format of the time; `.t` adds tenths of a second.")
    form: Literal["text", "array"] = Field(
        default="text", alias="as", description="Plain text, or a JSON array that has the text as its only element."
    )
    participant_id: ParticipantId | None = Field(
        default=None,
        description="Show the clock of this participant, or of its group, instead of the running clock." + PLUS,
    )
    group_id: ParticipantId | None = Field(
        default=None,
        description="Show the clock of this group instead of the running clock; only in `per_group`." + PLUS,
    )

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield an error if both a participant and a group are named."""
        if "participant_id" in raw and "group_id" in raw:
            fault = PydanticCustomError("contradiction", "cannot be given together with participant_id")
            yield InitErrorDetails(type=fault, loc=("group_id",), input=None)


def format_time(ms: int, form: str, *, down: bool) -> str:
    """Return a time in one of FORMATS, with a minus sign below zero; the first part has no upper limit.

    A clock that runs down is rounded up to whole seconds (or tenths), so it shows 0 only when it is at 0; a clock that
    runs up is rounded down.
    """
    shape, tenths = form.removesuffix(".t"), form.endswith(".t")
    unit_ms = 100 if tenths else 1000
    count = -(-ms // unit_ms) if down else ms // unit_ms
    seconds, tenth = divmod(abs(count), 10) if tenths else (abs(count), 0)
    names = shape.split(":")
    parts = []
    for name in reversed(names[1:]):
        seconds, part = divmod(seconds, 60)
        parts.append(f"{part:0{len(name)}d}")
    parts.append(f"{seconds:0{len(names[0])}d}")
    sign = "-" if count < 0 else ""
    return sign + ":".join(reversed(parts)) + (f".{tenth}" if tenths else "")


def displayed_time(session: Session, now_ms: int, participant_id: str | None, group_id: str | None) -> tuple[int, bool]:
    """Return the time (ms) that a clock shows at `now_ms`, and whether it runs down.

    The clock is that of the given participant or group, or else the running one. A participant of a group shows the
    group's clock. An owner without a budget shows the time it has used; one in a period or a block, what is left of
    that. Raises `ValidationFailed` for an unknown owner.
    """
    if participant_id is None and group_id is None:
        clock = session.clock(now_ms)
        if clock["direction"] == "up" or clock["remaining_ms"] is None:
            return int(clock["elapsed_ms"]), False
        in_period = clock.get("phase") in ("period", "block")
        return int(clock["phase_remaining_ms" if in_period else "remaining_ms"]), True
    owner = _owner(session, now_ms, participant_id, group_id)
    if owner["remaining_ms"] is None:
        return int(owner["used_ms"]), False
    period_ms = owner.get("period_remaining_ms")
    return int(owner["remaining_ms"] if period_ms is None else period_ms), True


def _owner(session: Session, now_ms: int, participant_id: str | None, group_id: str | None) -> dict[str, Any]:
    definition, all_clocks = session.definition, clocks(session, now_ms)
    if participant_id is not None:
        if participant_id not in definition.index:
            message = "is not a participant of this session"
            raise ValidationFailed.of("participant_id", message, "unknown_participant")
        kind, index = "participants", definition.index[participant_id]
        if session.groups:
            kind, index = "groups", definition.group_of[index]
    elif not session.groups:
        raise ValidationFailed.of("group_id", f"is allowed in {GROUP_MODES} only", "not_in_mode")
    elif group_id not in definition.group_index:
        raise ValidationFailed.of("group_id", "is not a group of this session", "unknown_group")
    else:
        kind, index = "groups", definition.group_index[group_id]
    clock: dict[str, Any] = all_clocks[kind][index]
    return clock
