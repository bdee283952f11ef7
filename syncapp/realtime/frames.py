"""WebSocket frames that the server sends (RFC 6455, section 5)."""

from __future__ import annotations


def text_frame(payload: bytes) -> bytes:
    """Return an unmasked, final text frame, the same bytes for every client."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2) + payload
    return b"\x81\x7f" + size.to_bytes(8) + payload


def ping_frame(payload: bytes) -> bytes:
    """Return a ping frame with a payload of at most 125 bytes."""
    return bytes((0x89, len(payload))) + payload


def pong_frame(payload: bytes) -> bytes:
    """Return the answer to a ping."""
    return bytes((0x8A, len(payload))) + payload


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame; the reason is cut to the 123 bytes that a close frame can hold."""
    payload = code.to_bytes(2) + reason.encode()[:123].decode(errors="ignore").encode()
    return bytes((0x88, len(payload))) + payload


def close_reply(payload: bytes) -> bytes:
    """Return the answer to a close frame, which repeats its payload."""
    return bytes((0x88, len(payload))) + payload
