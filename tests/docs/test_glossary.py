"""docs/glossary.md is in alphabetical order, and has the words that the design binds."""

from __future__ import annotations

import re

from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "glossary.md").read_text()
TERMS = [term.lower() for term in re.findall(r"^\| \*\*(.+?)\*\*", TEXT, re.MULTILINE)]
BINDING = (
    "session participant group mode status cycle budget remaining command event commit epoch version expected-version "
    "deadline outbox drain dead-letter bucket hub snapshot resume"
)


def test_terms_stand_once_and_in_alphabetical_order() -> None:
    assert sorted(set(TERMS)) == TERMS


def test_every_binding_word_is_explained() -> None:
    assert {word.replace("-", " ") for word in BINDING.split()} <= set(TERMS)


def test_every_explanation_is_a_sentence() -> None:
    rows = re.findall(r"^\| \*\*.*$", TEXT, re.MULTILINE)
    assert [row for row in rows if not row.endswith(". |")] == []
