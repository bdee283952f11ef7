"""Relative links and anchors in all Markdown documents lead somewhere."""

from __future__ import annotations

import re
import subprocess
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.paths import ROOT

DOCUMENTS = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    if (ROOT / name).exists()
)
LINK = re.compile(r"\]\((?P<target>[^()\s]+(?:\([^()\s]*\))?)\)")
CODE = re.compile(r"^(?P<fence> *(?:```+|~~~+)).*?^(?P=fence) *$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)


def links_of(document: Path) -> Iterator[str]:
    """Yield the links that are relative to the document, without code."""
    text = SPAN.sub("", CODE.sub("", document.read_text()))
    for match in LINK.finditer(text):
        if not re.match(r"[a-z][a-z0-9+.-]*:", match["target"]):
            yield match["target"]


@cache
def anchors_of(document: Path) -> frozenset[str]:
    """Return the anchors of a document's headings, as GitHub makes them, and those that it sets itself."""
    text = CODE.sub("", document.read_text())
    found: dict[str, int] = {}
    anchors = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.MULTILINE):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        kept = (char for char in shown.lower() if char in " -_" or unicodedata.category(char)[0] in "LNM")
        slug = "".join(kept).replace(" ", "-")
        anchors.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return frozenset(anchors)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    broken = []
    for target in links_of(document):
        path, _, anchor = unquote(target).partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors_of(file)):
            broken.append(target)
    assert not broken, f"{document.relative_to(ROOT)}: {broken}"


def test_anchors_are_made_as_on_github(tmp_path: Path) -> None:
    document = tmp_path / "headings.md"
    document.write_text(
        "# The clock, to the millisecond\n## `/health`, `/ready`\n## Say [it](x.md) – twice\n## A b\n## A b\n"
        "```\n# no\n```\n"
    )
    assert anchors_of(document) == {
        "the-clock-to-the-millisecond", "health-ready", "say-it--twice", "a-b", "a-b-1"
    }  # fmt: skip
