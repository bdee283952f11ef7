"""The field `time_control` of a request: an object, or a notation such as `pgn:40/5400+30:1800+30`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from syncapp.domain.notation import MAX_LENGTH, NotationError, parse
from syncapp.domain.time_control import TimeControl
from syncapp.domain.validation import custom


def _read(raw: Any) -> Any:
    if not isinstance(raw, str):
        if not isinstance(raw, dict | TimeControl | None):
            raise custom("model_type", "must be a notation, such as pgn:300+2, or a JSON object")
        return raw
    if len(raw) > MAX_LENGTH:
        raise custom("too_long", f"must have at most {MAX_LENGTH} characters")
    try:
        return parse(raw)
    except NotationError as error:
        raise custom("notation", str(error)) from None


def _or_notation(schema: dict[str, Any]) -> None:
    """Change the field's schema: it may also be a text."""
    text = {
        "type": "string",
        "maxLength": MAX_LENGTH,
        "examples": ["pgn:40/5400+30:1800+30", "minutes:15+10", "sgf:1800 5x30 byo-yomi"],
        "description": "A notation, after its dialect and a colon (docs/time-controls.md).",
    }
    branches = schema.pop("anyOf", None) or [{"$ref": schema.pop("$ref")}]
    schema["anyOf"] = [branches[0], text, *branches[1:]]


ControlField = Annotated[
    TimeControl,
    AfterValidator(TimeControl.normalized),
    BeforeValidator(_read),
]


def control_field(description: str) -> Any:
    """Return an optional field of a request that takes a time control."""
    return Field(default=None, description=description, json_schema_extra=_or_notation)
