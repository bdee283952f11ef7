"""Decodes JSON of clients, and refuses what it cannot decode without loss."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from syncapp.errors import InvalidJson, ValidationFailed

MAX_DEPTH = 32
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1
_MAYBE_HUGE = re.compile(r"\d{19}")
_MAYBE_HUGE_BYTES = re.compile(rb"\d{19}")
_MAX_NAME_LENGTH = 200


class _Huge:
    """A whole number beyond 64 bits."""


def decode(text: bytes | str, name: str) -> Any:
    """Decode what a client sent; name: its name in error messages.

    Raises `InvalidJson` (not JSON, NaN, or more than 32 levels of nesting), and `ValidationFailed` with the field of a
    whole number beyond 64 bits, which orjson would turn into a float.
    """
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"{name} is not valid JSON: {error}") from None
    if isinstance(text, str):
        opened, maybe_huge = text.count("{") + text.count("["), bool(_MAYBE_HUGE.search(text))
    else:
        opened, maybe_huge = text.count(b"{") + text.count(b"["), bool(_MAYBE_HUGE_BYTES.search(text))
    if opened > MAX_DEPTH and _is_too_deep(document):
        raise InvalidJson(f"{name} is nested deeper than {MAX_DEPTH} levels")
    if maybe_huge and (field := _huge_in(text)) is not None:
        message = "must be a whole number from -9223372036854775808 to 18446744073709551615, or a string"
        raise ValidationFailed.of(field[:_MAX_NAME_LENGTH] or "body", message, "number_too_large")
    return document


def _is_too_deep(document: Any) -> bool:
    """Return whether a document has more than MAX_DEPTH levels; without recursion, which Python limits."""
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for outer in level
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def _huge_in(text: bytes | str) -> str | None:
    """Return the field with a whole number beyond 64 bits, or None; decodes again, with Python's whole numbers."""

    def whole(digits: str) -> int | _Huge:
        fits = len(digits) <= len(str(_LOWEST)) and _LOWEST <= int(digits) <= _HIGHEST
        return int(digits) if fits else _Huge()

    stack: list[tuple[str, Any]] = [("", json.loads(text, parse_int=whole))]
    while stack:
        field, item = stack.pop()
        if isinstance(item, _Huge):
            return field.removeprefix(".")
        if isinstance(item, dict):
            stack.extend((f"{field}.{name}", inner) for name, inner in item.items() if not isinstance(inner, str))
        elif isinstance(item, list):
            stack.extend((f"{field}.{index}", inner) for index, inner in enumerate(item) if not isinstance(inner, str))
    return None
