"""Each notation means one control, or is refused with a reason."""

from __future__ import annotations

import pytest

from syncapp.domain.notation import NotationError, parse
from tests.support.notations import READ, REFUSED


@pytest.mark.parametrize("text", READ)
def test_a_notation_means_one_control(text: str) -> None:
    assert parse(text).document() == READ[text]


@pytest.mark.parametrize("text", REFUSED)
def test_a_notation_without_a_defined_meaning_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(NotationError) as refused:
        parse(text)
    assert REFUSED[text] in str(refused.value)
