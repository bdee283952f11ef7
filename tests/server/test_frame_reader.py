"""The reader of frames: what it makes of bytes does not depend on how they are cut."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.speedups import apply_mask as masked
from websockets.utils import apply_mask as masked_in_python

from syncapp.realtime.protocol import Close
from syncapp.server.frame_reader import CLOSE, NO_CODE, PING, PONG, TEXT, BrokenFrame, FrameEvent, FrameReader
from tests.support.raw_websocket import BINARY, client_frame

MAX_BYTES = 300
CONTINUATION = 0

TEXTS = st.text(max_size=60) | st.text(alphabet="\u0000é€𝄞", max_size=40)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Return a message in one or more frames, perhaps with control frames between them."""
    payload = draw(TEXTS).encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    parts = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    found = b""
    for number, part in enumerate(parts):
        if number and draw(st.booleans()):
            found += client_frame(draw(st.binary(max_size=125)), draw(st.sampled_from((PING, PONG))))
        found += client_frame(part, CONTINUATION if number else TEXT, fin=number == len(parts) - 1)
    return found


OTHERS = st.one_of(
    st.builds(client_frame, st.binary(max_size=125), st.sampled_from((PING, PONG))),
    st.builds(client_frame, st.binary(max_size=130), st.sampled_from((PING, CLOSE))),
    st.builds(client_frame, st.binary(max_size=2 * MAX_BYTES)),
    st.builds(
        client_frame,
        st.binary(max_size=20),
        st.integers(0, 15),
        fin=st.booleans(),
        rsv=st.integers(0, 7),
        masked=st.booleans(),
    ),
    st.binary(max_size=20),
)
STREAMS = st.lists(messages() | OTHERS, max_size=8).map(b"".join)


def read(data: bytes, cuts: list[int]) -> tuple[list[FrameEvent], Close | None]:
    """Return what a reader makes of a stream that is cut, and how it is broken, if it is."""
    reader, events = FrameReader(MAX_BYTES), list[FrameEvent]()
    try:
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            for event in reader.read(data[start:end]):
                events.append(event)
                if event.kind == CLOSE:
                    return events, None
    except BrokenFrame as broken:
        return events, broken.code
    return events, None


@given(data=STREAMS, seed=st.integers(0, 1 << 32), count=st.integers(0, 40))
def test_a_stream_is_the_same_however_it_is_cut(data: bytes, seed: int, count: int) -> None:
    whole = read(data, [])
    chance = random.Random(seed)
    assert read(data, sorted(chance.randrange(len(data) + 1) for _ in range(count))) == whole
    assert read(data, list(range(1, len(data)))) == whole


@given(texts=st.lists(TEXTS, max_size=5), seed=st.integers(0, 1 << 32))
def test_what_is_sent_is_read(texts: list[str], seed: int) -> None:
    data = b"".join(client_frame(text.encode()) for text in texts)
    chance = random.Random(seed)
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(5))
    assert read(data, cuts) == ([FrameEvent(TEXT, text) for text in texts], None)


@pytest.mark.parametrize("size", [0, 1, 125, 126, MAX_BYTES])
def test_a_message_may_have_up_to_the_limit_of_bytes(size: int) -> None:
    assert read(client_frame(b"x" * size), []) == ([FrameEvent(TEXT, "x" * size)], None)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (client_frame(b"x" * (MAX_BYTES + 1))[:8], Close.TOO_BIG),
        (client_frame(b"x" * MAX_BYTES, fin=False) + client_frame(b"x", CONTINUATION)[:6], Close.TOO_BIG),
        (client_frame(b"x" * 20, BINARY)[:6], Close.NOT_TEXT),
        (client_frame(b"xx\xff" + b"x" * 50)[:9], Close.BAD_TEXT),
        (client_frame(b"\xce", fin=False) + client_frame(b"\xff" * 20, CONTINUATION)[:7], Close.BAD_TEXT),
        (client_frame(b"x", masked=False)[:2], Close.PROTOCOL_ERROR),
        (client_frame(b"x", rsv=2)[:2], Close.PROTOCOL_ERROR),
        (client_frame(b"x", CONTINUATION)[:2], Close.PROTOCOL_ERROR),
        (client_frame(b"x" * 126, PING)[:2], Close.PROTOCOL_ERROR),
        (b"\x81\xfe\x00\x7d", Close.PROTOCOL_ERROR),
        (b"\x81\xff" + (65_535).to_bytes(8), Close.PROTOCOL_ERROR),
        (b"\x81\xff" + (1 << 63).to_bytes(8), Close.PROTOCOL_ERROR),
    ],
    ids=map(str, range(12)),  # masks are random
)
def test_a_broken_frame_is_refused_before_it_is_whole(data: bytes, code: Close) -> None:
    assert read(data, []) == read(data, list(range(1, len(data))))
    assert read(data, [])[1] == code


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1013, 3000, 4000, 4999])
def test_a_close_has_its_code_and_reason(code: int) -> None:
    sent = client_frame(code.to_bytes(2) + "é".encode(), CLOSE)
    assert read(sent, []) == ([FrameEvent(CLOSE, "é", code=code)], None)


def test_a_close_may_have_no_code() -> None:
    assert read(client_frame(b"", CLOSE), []) == ([FrameEvent(CLOSE, code=NO_CODE)], None)


@pytest.mark.parametrize(
    "payload",
    [b"\x03", *(code.to_bytes(2) for code in (0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 2999, 5000, 65535))],
)
def test_a_close_with_a_code_that_is_not_defined_is_refused(payload: bytes) -> None:
    assert read(client_frame(payload, CLOSE), []) == ([], Close.PROTOCOL_ERROR)


def test_nothing_is_kept_between_frames_and_a_message_only_while_it_is_incomplete() -> None:
    reader = FrameReader(MAX_BYTES)
    assert list(reader.read(client_frame(b"abc", fin=False)))
    assert list(reader.read(client_frame(b"", CONTINUATION))) == [FrameEvent(TEXT, "abc")]
    assert (reader._partial, reader._rest) == (None, b"")


@given(data=st.binary(max_size=100), mask=st.binary(min_size=4, max_size=4))
def test_masks_are_the_same_in_c_and_in_python(data: bytes, mask: bytes) -> None:
    assert masked(data, mask) == masked_in_python(data, mask)
