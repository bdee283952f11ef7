"""docs/configuration.md and .env.example list the settings of `syncapp/config.py`, in its order and in its words."""

from __future__ import annotations

import re
from dataclasses import fields

from syncapp.config import RENAMED, Settings
from tests.support.paths import ROOT

HELP = [(item.name.upper(), item.metadata["help"]) for item in fields(Settings)]
HEADINGS = re.findall(r"^    # (.+)$", (ROOT / "syncapp" / "config.py").read_text(), re.MULTILINE)


def test_the_document_explains_every_setting_in_the_words_of_the_code() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| [^|]+ \| [^|]*\| (.+) \|$", text, re.MULTILINE)
    assert rows == HELP
    assert [heading for heading in re.findall(r"^## (.+)$", text, re.MULTILINE) if heading in HEADINGS] == HEADINGS


def test_the_document_shows_the_limits_of_each_number() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    allowed = dict(re.findall(r"^\| `([A-Z_]+)` \| [^|]+ \| ([^|]*?) ?\|", text, re.MULTILINE))
    for item in fields(Settings):
        low, high = item.metadata["low"], item.metadata["high"]
        if low is not None:
            numbers = [float(number) for number in re.findall(r"[\d.]+", allowed[item.name.upper()])]
            assert numbers == [bound for bound in (low, high) if bound is not None], item.name


def test_the_document_lists_the_renamed_settings() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert dict(re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|$", text, re.MULTILINE)) == RENAMED


def test_the_example_file_explains_every_setting_in_the_words_of_the_code() -> None:
    text = (ROOT / ".env.example").read_text()
    assert [(name, help_) for help_, name in re.findall(r"^# (.+)\n# ([A-Z_]+)=", text, re.MULTILINE)] == HELP
    assert re.findall(r"^# --- (.+) ---$", text, re.MULTILINE) == HEADINGS
