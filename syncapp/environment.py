"""The environment of a process: the only module that reads it.

Values are parsed as the types of the settings' defaults (`syncapp.config`), and checked (`syncapp.setting_checks`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, field
from typing import Any

from syncapp.setting_checks import check_and_normalize

RENAMED = {"WS_ALLOWED_ORIGINS": "ALLOWED_ORIGINS"}  # old name: new name; old names are still read


class SettingsError(ValueError):
    """Invalid settings. The message names each of them on one line, without its value, which may be a password."""


def setting(
    default: Any, text: str, low: float | None = None, high: float | None = None, *, is_secret: bool = False
) -> Any:
    """Return the field of a setting; a secret, or a URL that may hold a password, is not part of `repr`."""
    return field(default=default, repr=not is_secret, metadata={"help": text, "low": low, "high": high})


def read_values(items: Iterable[Field[Any]], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the settings that are given, by the names of their fields. Raises `SettingsError`."""
    environ = os.environ if environ is None else environ
    old = {RENAMED[name]: environ[name] for name in renamed(environ)}
    values: dict[str, Any] = {}
    faults: list[str] = []
    for item in items:
        text = old.get(item.name.upper(), environ.get(item.name.upper(), "")).strip()
        if text:
            try:
                values[item.name] = _parse(text, item.default, item.metadata["low"], item.metadata["high"])
            except ValueError as error:
                faults.append(f"{item.name.upper()} {error}")
    faults.extend(check_and_normalize(values))
    if faults:
        raise SettingsError("; ".join(faults))
    return values


def is_given(name: str) -> bool:
    """Return whether the environment has a value for a setting, by the name of its field."""
    return bool(os.environ.get(name.upper(), "").strip())


def renamed(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the old names that are in use: those whose setting is not given under its new name."""
    return [old for old, new in RENAMED.items() if environ.get(old, "").strip() and not environ.get(new, "").strip()]


def _parse(text: str, default: Any, low: float | None, high: float | None) -> Any:
    """Parse a value as the type of its default. Raises `ValueError`."""
    if isinstance(default, bool):
        if text.lower() in {"1", "true", "yes", "on"}:
            return True
        if text.lower() in {"0", "false", "no", "off"}:
            return False
        raise ValueError("must be true or false")
    if not isinstance(default, int | float):
        return text
    try:
        number = type(default)(text)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise ValueError(f"must be {kind}") from None
    if not (low is None or number >= low) or not (high is None or number <= high):
        raise ValueError(f"must be {_bounds(low, high)}")
    return number


def _bounds(low: float | None, high: float | None) -> str:
    """Return the range of a setting as text, without exponents."""
    shown = [str(int(bound) if bound == int(bound) else bound) for bound in (low, high) if bound is not None]
    return " to ".join(shown) if high is not None else f"at least {shown[0]}"


@contextmanager
def stop_if_wrong() -> Iterator[None]:
    """On a `SettingsError`, print one line to standard error and exit with code 1."""
    try:
        yield
    except SettingsError as error:
        raise SystemExit(f"SyncApp cannot start: {error}") from None
