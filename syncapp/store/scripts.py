"""The Lua scripts: read from lua/, with includes expanded, and called by hash.

A line `-- @include _name` is replaced by lua/_name.lua. Each partial is included only once per script, so that every
partial can include those that it needs. If the line is inside a function, the partial's definitions are created only
when the function reaches it, because creating them is a large part of the cost of a short script.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha1
from pathlib import Path
from types import MappingProxyType
from typing import Any

import redis
from redis.exceptions import NoScriptError

from syncapp.store.connection_pool import Arguments, ConnectionPool, packed, pool_of
from syncapp.store.replication import Replication

LUA_DIR = Path(__file__).resolve().parents[2] / "lua"
"""The folder of the scripts. A process reads each of them once."""
_OF_CLUSTER = {"_fanout": "local PUBLISH, SUBSCRIBE = 'SPUBLISH', 'SSUBSCRIBE'\n"}
"""Partials that are others in a cluster."""
_INCLUDE = re.compile(r"^ *-- @include (_\w+)[ \t]*$", re.MULTILINE)


@cache
def names() -> Sequence[str]:
    """Return the names of all scripts; each command has its own file."""
    return tuple(sorted(path.stem for path in LUA_DIR.glob("[!_]*.lua")))


def expand(name: str, partials: Mapping[str, str] | None = None) -> str:
    """Return a script's text with all includes expanded; `partials` replace files (tests set the clock)."""
    seen: set[str] = set()

    def splice(text: str) -> str:
        return _INCLUDE.sub(include, text)

    def include(match: re.Match[str]) -> str:
        partial = match.group(1)
        if partial in seen:
            return ""
        seen.add(partial)
        return splice((partials or {}).get(partial) or _source(partial))

    return splice(_source(name))


@cache
def _source(name: str) -> str:
    return (LUA_DIR / f"{name}.lua").read_text(encoding="utf-8")


@cache
def _texts_and_hashes(partials: frozenset[tuple[str, str]]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the expanded text and the hash of each script. A process has several stores, and reads the files once."""
    texts = {name: expand(name, dict(partials)) for name in names()}
    # EVALSHA requires SHA-1; security does not depend on it.
    hashes = {name: sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in texts.items()}
    return MappingProxyType(texts), MappingProxyType(hashes)


class Scripts:
    """All scripts; each is loaded into the server when the server does not have it."""

    def __init__(self, client: redis.Redis, partials: Mapping[str, str] | None = None) -> None:
        self._pool = pool_of(client)
        chosen = {**(_OF_CLUSTER if self._pool.is_cluster else {}), **(partials or {})}
        self._texts, self._hashes = _texts_and_hashes(frozenset(chosen.items()))

    @property
    def pool(self) -> ConnectionPool:
        """The pool whose connections are used."""
        return self._pool

    def call(self, name: str, keys: Sequence[str], args: Arguments) -> Any:
        """Run a script in one round trip and return its raw reply.

        A server that has restarted no longer has the scripts. Then the text is sent, which also runs it. This is safe,
        because the first attempt did not run.
        """
        (reply,) = self._pool.call(packed("EVALSHA", self._hashes[name], len(keys), *keys, *args))
        if isinstance(reply, NoScriptError):
            (reply,) = self._pool.call(packed("EVAL", self._texts[name], len(keys), *keys, *args))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def commit(
        self, name: str, keys: Sequence[str], args: Arguments, replication: Replication | None, mark: str
    ) -> tuple[Any, int | None]:
        """Run a script as `call` does; return its reply, and how many replicas have what it wrote and read.

        Without replication, nothing is waited for, and the number is None.
        """
        if replication is None:
            return self.call(name, keys, args), None
        (reply,), replicas = replication.call(packed("EVALSHA", self._hashes[name], len(keys), *keys, *args), mark=mark)
        if isinstance(reply, NoScriptError):
            (reply,), replicas = replication.call(packed("EVAL", self._texts[name], len(keys), *keys, *args), mark=mark)
        if isinstance(reply, Exception):
            raise reply
        return reply, replicas

    def call_all(self, name: str, calls: Sequence[tuple[Sequence[str], Arguments]]) -> list[Any]:
        """Run a script with each of several keys and arguments, in one round trip; the results may include errors."""
        sha = self._hashes[name]
        commands = [packed("EVALSHA", sha, len(keys), *keys, *args) for keys, args in calls]
        return [
            self.call(name, *call) if isinstance(reply, NoScriptError) else reply
            for call, reply in zip(calls, self._pool.call(*commands), strict=True)
        ]
