"""What is written is read back, for every control, in every dialect; and no text does harm."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncapp.domain.notation import DIALECTS, NotationError, explain, format_control, parse, write
from syncapp.domain.time_control import MAX_PERIODS, MAX_STAGES, MAX_TIME_MS, TimeControl
from tests.support.time_controls import KINDS, time_controls

T = TypeVar("T")
ANY = settings(max_examples=100, deadline=None)
_PARTS = (
    ": + / | ; , x . - * ? 0 1 5 40 300 1800 d b h m s ms G SD inc min sec/move moves ½ ¼ 1e9 Infinity NaN",
    "byo-yomi Canadian fischer simple TM[ ] OT[ $TIME: $TIME_LIMIT: floodgate- F 時間 分 秒 切れ負け 加算",
    "go wtime btime winc movestogo byoyomi movetime level st time_settings kgs-time_settings hg timemargin= tc=",
    'then in up to per move delay bronstein repeat margin unit least {"limit": "increment": "system": "fischer" }',
)
_WORDS = st.sampled_from([word for parts in _PARTS for word in parts.split()])
_TEXTS = st.lists(_WORDS, max_size=12).flatmap(
    lambda words: st.sampled_from(["", " "]).map(lambda separator: separator.join(words))
)


def attempt(action: Callable[[], T]) -> tuple[T | None, str]:
    """Return the result of an action and no reason, or none and the reason of its `NotationError`."""
    try:
        return action(), ""
    except NotationError as error:
        return None, str(error)


@pytest.mark.parametrize("kind", KINDS)
@ANY
@given(data=st.data())
def test_a_formatted_control_is_read_as_the_same_control(kind: str, data: st.DataObject) -> None:
    control = data.draw(time_controls(kind))
    assert parse(format_control(control)) == control


@ANY
@given(control=time_controls())
def test_every_control_can_be_written_in_our_own_dialect(control: TimeControl) -> None:
    assert parse(f"syncapp:{write(control, 'syncapp')}") == control
    assert parse(format_control(control)) == control


@pytest.mark.parametrize("dialect", DIALECTS)
@ANY
@given(control=time_controls())
def test_what_a_dialect_writes_it_reads_as_the_same_control(dialect: str, control: TimeControl) -> None:
    text, reason = attempt(lambda: write(control, dialect))
    if text is None:
        assert reason.startswith(f"cannot be written as {dialect}")
    else:
        assert parse(f"{dialect}:{text}") == control


@ANY
@given(control=time_controls())
def test_every_control_can_be_explained(control: TimeControl) -> None:
    lines = explain(control).splitlines()
    assert len(lines) >= 2
    assert all(line.endswith(".") and "None" not in line and "  " not in line for line in lines)


@pytest.mark.parametrize("dialect", ["", *DIALECTS])
@settings(max_examples=150, deadline=None)
@given(text=_TEXTS | st.text(max_size=40))
def test_any_text_is_read_or_refused_with_a_reason(dialect: str, text: str) -> None:
    control, reason = attempt(lambda: parse(f"{dialect}:{text}" if dialect else text))
    if control is None:
        assert 0 < len(reason) < 600
    else:
        assert control == control.normalized()
        assert parse(format_control(control)) == control


@pytest.mark.parametrize("text", ["9" * 990, "[" * 990, "1:" * 490, "40/" * 300, "+" * 990, "1x" * 490, " " * 990])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_long_texts_are_refused_at_once(dialect: str, text: str) -> None:
    with pytest.raises(NotationError):
        parse(f"{dialect}:{text}")


def test_texts_of_more_than_1000_characters_are_refused() -> None:
    with pytest.raises(NotationError, match="1001 characters; at most 1000"):
        parse("pgn:" + "3" * 997)


def test_the_largest_control_is_short_enough_to_be_read() -> None:
    stage = {"time_ms": MAX_TIME_MS - 1, "moves": 1000, "period_ms": MAX_TIME_MS - 1, "periods": MAX_PERIODS}
    stages = [stage | {"increment_ms": MAX_TIME_MS - 1} for _ in range(MAX_STAGES)]
    stages[-1] = stages[-1] | {"repeat": True}
    rules = {"margin_ms": MAX_TIME_MS - 1, "charge_unit_ms": 3_599_999, "min_charge_ms": 3_599_999}
    control = TimeControl.parse({"stages": stages, "first_bonus": "before_move", **rules})
    assert parse(format_control(control)) == control
