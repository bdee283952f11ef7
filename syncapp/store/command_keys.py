"""The keys of packed commands, which decide where a cluster runs them."""

from __future__ import annotations

_WITHOUT_KEY = frozenset(
    {
        b"CLIENT",
        b"CONFIG",
        b"DBSIZE",
        b"FLUSHDB",
        b"FUNCTION",
        b"INFO",
        b"PING",
        b"ROLE",
        b"SCAN",
        b"SCRIPT",
        b"TIME",
        b"WAIT",
    }
)
_BY_COUNT = frozenset({b"EVAL", b"EVALSHA", b"FCALL"})


def name_of(command: bytes) -> bytes:
    """Return the name of a packed command, in capitals."""
    return command.split(b"\r\n", 3)[2].upper()


def key_of(command: bytes) -> bytes | None:
    """Return the first key of a packed command; None if it has none."""
    words = command.split(b"\r\n", 9)
    name = words[2].upper()
    if name in _BY_COUNT:
        return words[8] if words[6] != b"0" else None
    if name == b"XREADGROUP":
        options = command.split(b"\r\n")[10::2]  # those after group and consumer
        return options[[each.upper() for each in options].index(b"STREAMS") + 1]
    return None if name in _WITHOUT_KEY or len(words) < 5 else words[4]
