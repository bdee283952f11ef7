"""The Lua scripts: read from `lua/`, their includes spliced in, called by hash.

`-- @include _name` on a line of its own is replaced by `lua/_name.lua`, once per script however
often it is asked for, so that a partial can name what it stands on. Within a function its definitions are made
when that function comes there: making them is a good part of what a short script costs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import NoScriptError

from syncapp.store.connection_pool import Arguments, packed, pool_of

LUA_DIR = Path(__file__).resolve().parents[2] / "lua"
_INCLUDE = re.compile(r"^ *-- @include (_\w+)[ \t]*$", re.MULTILINE)


def names() -> list[str]:
    """Return the names of all scripts: one command, one file."""
    return sorted(path.stem for path in LUA_DIR.glob("[!_]*.lua"))


def expand(name: str, partials: Mapping[str, str] | None = None) -> str:
    """Return a script's text with every include in place; `partials` take the place of files (tests set the clock)."""
    seen: set[str] = set()

    def splice(text: str) -> str:
        return _INCLUDE.sub(include, text)

    def include(match: re.Match[str]) -> str:
        partial = match.group(1)
        if partial in seen:
            return ""
        seen.add(partial)
        text = (partials or {}).get(partial) or (LUA_DIR / f"{partial}.lua").read_text(encoding="utf-8")
        return splice(text)

    return splice((LUA_DIR / f"{name}.lua").read_text(encoding="utf-8"))


class Scripts:
    """Every script, loaded into a server when the server does not know it."""

    def __init__(self, client: redis.Redis, partials: Mapping[str, str] | None = None) -> None:
        self._pool = pool_of(client)
        self._texts = {name: expand(name, partials) for name in names()}
        # EVALSHA wants SHA-1; nothing here depends on it being hard to forge.
        self._hashes = {
            name: sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in self._texts.items()
        }

    def call(self, name: str, keys: Sequence[str], args: Arguments) -> Any:
        """Run a script in one round trip and return its raw reply.

        A server that restarted has forgotten its scripts: then the text is sent, once, which runs it too.
        That is safe: a script that the server did not know has not run.
        """
        (reply,) = self._pool.call(packed("EVALSHA", self._hashes[name], len(keys), *keys, *args))
        if isinstance(reply, NoScriptError):
            (reply,) = self._pool.call(packed("EVAL", self._texts[name], len(keys), *keys, *args))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def call_all(self, name: str, calls: Sequence[tuple[Sequence[str], Arguments]]) -> list[Any]:
        """Run a script for each of several keys and arguments, in one round trip; errors stand in their places."""
        sha = self._hashes[name]
        commands = b"".join(packed("EVALSHA", sha, len(keys), *keys, *args) for keys, args in calls)
        return [
            self.call(name, *call) if isinstance(reply, NoScriptError) else reply
            for call, reply in zip(calls, self._pool.call(commands, len(calls)), strict=True)
        ]
