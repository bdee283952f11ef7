"""Reads the frames that a client sends (RFC 6455, section 5): from bytes to whole messages, without input or output.

It refuses a frame as early as its bytes allow: by its head, or at the first byte that is not UTF-8.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Any, NamedTuple

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # in C, or in Python where there is no wheel

from syncapp.realtime.protocol import Close

PART, TEXT, CLOSE, PING, PONG = 0x0, 0x1, 0x8, 0x9, 0xA
"""Kinds of events. Except for PART, a frame of a message that is not its last one, they are the opcodes."""
_BINARY = 0x2
_CONTROL_BIT = 0x8
_OPCODES = frozenset((PART, TEXT, _BINARY, CLOSE, PING, PONG))
_MAX_SHORT = 125
NO_CODE = 1005
_UNUSABLE_CODES = frozenset((1004, 1005, 1006))
"""Codes below 1014 that no client may send; 1014 to 2999 are not defined."""
_decoder = codecs.getincrementaldecoder("utf-8")


class FrameEvent(NamedTuple):
    """Something that a client has sent.

    text: of a message, or the reason of a close. payload: of a ping or pong. code: of a close, 1005 without one.
    """

    kind: int
    text: str = ""
    payload: bytes = b""
    code: int = 0


class BrokenFrame(Exception):
    """A frame that breaks the protocol or a limit; code: the close code that answers it."""

    def __init__(self, code: Close, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Partial:
    """A message of which a part has come.

    data: what has come, unmasked. left: bytes of its current frame that have not come. is_last: whether that frame is
    the last one. mask: of the next byte of that frame.
    """

    __slots__ = ("data", "decoder", "is_last", "left", "mask")

    def __init__(self) -> None:
        self.data = bytearray()
        self.decoder: Any = _decoder()
        self.left = 0
        self.is_last = False
        self.mask = b""

    def take(self, masked: bytes) -> None:
        """Take bytes of the current frame. Raises `UnicodeDecodeError`."""
        data = apply_mask(masked, self.mask)
        self.left -= len(data)
        turned = len(data) % 4
        self.mask = self.mask[turned:] + self.mask[:turned]
        self.decoder.decode(data, self.is_last and not self.left)
        self.data += data


class FrameReader:
    """The reader of one connection. max_bytes: of a message."""

    __slots__ = ("_max_bytes", "_partial", "_rest")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""  # the beginning of a frame
        self._partial: _Partial | None = None

    def read(self, data: bytes) -> Iterator[FrameEvent]:
        """Yield what has come with these bytes. Raises `BrokenFrame`, after which nothing more can be read."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, end = 0, len(data)
        while at < end:
            partial = self._partial
            if partial and partial.left:
                taken = data[at : at + partial.left]
                at += len(taken)
                yield from self._continue(partial, taken)
                continue
            head = self._head(data, at, end)
            if head is None:
                break
            start, size = head
            opcode, is_last = data[at] & 0x0F, data[at] > 0x7F
            is_whole = end - start >= size
            if opcode & _CONTROL_BIT:
                if not is_whole:
                    break
                yield _control(opcode, apply_mask(data[start : start + size], data[start - 4 : start]))
                if opcode == CLOSE:
                    return
            elif is_whole and is_last and not partial:
                yield FrameEvent(TEXT, _text(apply_mask(data[start : start + size], data[start - 4 : start])))
            else:
                partial = self._partial = partial or _Partial()
                partial.left, partial.is_last, partial.mask = size, is_last, data[start - 4 : start]
                at = min(end, start + size)
                yield from self._continue(partial, data[start:at])
                continue
            at = start + size
        self._rest = data[at:]

    def _head(self, data: bytes, at: int, end: int) -> tuple[int, int] | None:
        """Return where a frame's payload starts, and its size; None if its head is not complete."""
        if end - at < 2:
            return None
        first, second = data[at], data[at + 1]
        if fault := self._fault(first, second):
            raise BrokenFrame(Close.PROTOCOL_ERROR, fault)
        start, size = at + 2, second & 0x7F
        if size > _MAX_SHORT:
            shortest, start = (1 << 16, at + 10) if size == 0x7F else (_MAX_SHORT + 1, at + 4)
            if end < start:
                return None
            size = int.from_bytes(data[at + 2 : start])
            if not shortest <= size < 1 << 63:
                raise BrokenFrame(Close.PROTOCOL_ERROR, "a length that should be encoded in another way")
        if not first & _CONTROL_BIT:
            if first & 0x0F == _BINARY:
                raise BrokenFrame(Close.NOT_TEXT, "send text frames")
            if size + (len(self._partial.data) if self._partial else 0) > self._max_bytes:
                raise BrokenFrame(Close.TOO_BIG, "the message is too big")
        return (start + 4, size) if end >= start + 4 else None

    def _fault(self, first: int, second: int) -> str:
        """Return how the first two bytes of a frame break the protocol; '' if they do not."""
        opcode = first & 0x0F
        if first & 0x70:
            return "a reserved bit is set"
        if opcode not in _OPCODES:
            return "an opcode that is not defined"
        if not second & 0x80:
            return "a frame without a mask"
        if opcode & _CONTROL_BIT:
            return "a control frame in parts, or too long" if first < 0x80 or second & 0x7F > _MAX_SHORT else ""
        if (opcode == PART) is not (self._partial is not None):
            return "a continuation of nothing" if opcode == PART else "a message before the end of another"
        return ""

    def _continue(self, partial: _Partial, masked: bytes) -> Iterator[FrameEvent]:
        """Take bytes of the current frame; yield its event if it is complete now."""
        try:
            partial.take(masked)
        except UnicodeDecodeError:
            raise BrokenFrame(Close.BAD_TEXT, "text that is not UTF-8") from None
        if partial.left:
            return
        if not partial.is_last:
            yield FrameEvent(PART)
            return
        self._partial = None
        yield FrameEvent(TEXT, partial.data.decode())


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise BrokenFrame(Close.BAD_TEXT, "text that is not UTF-8") from None


def _control(opcode: int, payload: bytes) -> FrameEvent:
    if opcode != CLOSE:
        return FrameEvent(opcode, payload=payload)
    if not payload:
        return FrameEvent(CLOSE, code=NO_CODE)
    code = int.from_bytes(payload[:2])
    is_defined = (1000 <= code < 1014 and code not in _UNUSABLE_CODES) or 3000 <= code < 5000
    if len(payload) < 2 or not is_defined:
        raise BrokenFrame(Close.PROTOCOL_ERROR, "a close code that is not defined")
    return FrameEvent(CLOSE, _text(payload[2:]), code=code)
