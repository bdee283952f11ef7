"""Entity tags: a session's version as `"<epoch>-<version>"`, also in the forms that compressing proxies make of it.

nginx, HAProxy, Varnish and CDNs put `W/` before it; Apache appends `-gzip` or `-br`, Jetty `--gzip`, Apache Traffic
Server `-df`, others `;gzip`, `:gzip` or `/gzip`. All of them still name the version.
"""

from __future__ import annotations

import re

from syncapp.domain.version_order import Order

ANY = "*"
_SUFFIX = r"(?:[-;:/+.]{1,2}(?:x-)?(?:gzip|br|zstd|deflate|df|compress))*"
_OURS = re.compile(rf"([0-9]{{1,16}})-([0-9]{{1,16}}){_SUFFIX}\Z", re.IGNORECASE)
_NEXT = re.compile(r'[ \t,]*(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?=,|\Z)')


def order(text: str) -> Order | None:
    """Return the (epoch, version) that a tag, without its quotes, names; None if the tag is not one of ours."""
    match = _OURS.match(text)
    return (int(match[1]), int(match[2])) if match else None


def read(text: str) -> list[Order | None]:
    """Return what each tag of a list names, None for foreign tags. Raises `ValueError` if it is not a list of tags.

    Weak tags are treated like strong ones, because versions are compared, not bytes (docs/decisions.md).
    """
    found: list[Order | None] = []
    at, text = 0, text.rstrip(" \t,")
    while match := _NEXT.match(text, at):
        found.append(order(match[1]))
        at = match.end()
    if not found or at < len(text):
        raise ValueError("not a list of entity tags")
    return found
