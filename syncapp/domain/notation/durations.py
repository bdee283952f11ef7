"""Durations as text: seconds with a fraction, minutes, clock times, and times with units. All exact, in whole ms."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

NUMBER = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
"""A whole number or a decimal fraction, as a part of regular expressions."""
CLOCK = rf"(?:[0-9]+:){{1,2}}{NUMBER}"
"""`m:ss` or `h:mm:ss`, as a part of regular expressions."""
SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1000, 60_000, 3_600_000, 86_400_000
_UNITS = (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS), ("s", SECOND_MS), ("ms", 1))
WITH_UNITS = r"(?:(?:[0-9]+d)?(?:[0-9]+h)?(?:[0-9]+m(?:in)?(?!s))?(?:[0-9]+s)?(?:[0-9]+ms)?)"
"""`1d2h30m15s500ms`, as a part of regular expressions; it matches nothing too, which `from_units` refuses."""
_PART = re.compile(r"([0-9]+)(d|h|min|ms|m|s)")


class NotationError(ValueError):
    """A time control that cannot be read or written; the message continues "time_control …"."""


def to_ms(number: str, unit_ms: int = SECOND_MS) -> int:
    """Return a number of units in ms. Raises `NotationError` if it is not a number or not a whole number of ms."""
    if not re.fullmatch(NUMBER, number):
        raise NotationError(f"has {shortened(number)} where a number is expected")
    ms = Fraction(number) * unit_ms
    if ms.denominator != 1:
        raise NotationError(f"has a time that is more precise than 1 ms: {shortened(number)}")
    return int(ms)


def clock_to_ms(clock: str) -> int:
    """Return `m:ss`, `h:mm:ss` or a number of seconds in ms. Parts below the first must be less than 60."""
    *higher, seconds = clock.split(":")
    total = 0
    for index, part in enumerate(higher):
        total = total * 60 + to_ms(part, MINUTE_MS)
        if index and to_ms(part) >= MINUTE_MS:
            raise NotationError(f"has {shortened(clock)}, in which the minutes are not below 60")
    if higher and to_ms(seconds) >= MINUTE_MS:
        raise NotationError(f"has {shortened(clock)}, in which the seconds are not below 60")
    return total + to_ms(seconds)


def from_units(text: str) -> int:
    """Return a time such as `1h30m` in ms."""
    parts = _PART.findall(text)
    if not parts:
        raise NotationError("has no time where one is expected, such as 1h30m or 500ms")
    sizes = dict(_UNITS) | {"min": MINUTE_MS}
    return sum(int(count) * sizes[unit] for count, unit in parts)


def in_units(ms: int, separator: str = "", minute: str = "m", gap: str = "") -> str:
    """Return ms with units, such as `1h30m`; with a gap and the minute `min`: `1 h 30 min`."""
    parts = []
    rest = ms
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{gap}{minute if unit == 'm' else unit}")
    return separator.join(parts) or f"0{gap}s"


def words(ms: int) -> str:
    """Return ms as people read it, such as `1 h 30 min`."""
    return in_units(ms, " ", "min", " ")


def number(ms: int, unit_ms: int = SECOND_MS) -> str:
    """Return ms as a decimal number of units, such as `0.5`. Raises `NotationError` if that is not finite."""
    exact = Decimal(ms) / Decimal(unit_ms)
    if Fraction(exact) != Fraction(ms, unit_ms):
        raise NotationError(f"has {words(ms)}, which is no finite decimal number of {words(unit_ms)}")
    return f"{exact.normalize():f}"


def whole_seconds(ms: int) -> str:
    """Return ms as whole seconds. Raises `NotationError` if they are not whole."""
    if ms % SECOND_MS:
        raise NotationError(f"has {words(ms)}, which is not a whole number of seconds")
    return str(ms // SECOND_MS)


def shortened(text: str, limit: int = 60) -> str:
    """Return text for a message, at most so long."""
    return text if len(text) <= limit else text[:limit] + "…"
