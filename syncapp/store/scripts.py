"""The Lua scripts: read from lua/, with includes expanded, and called as functions or by hash.

A line `-- @include _name` is replaced by lua/_name.lua. Each partial is included only once per script, so that every
partial can include those that it needs. If the line is inside a function, the partial's definitions are created only
when the function reaches it, because creating them is a large part of the cost of a short script.

The line `-- @call` ends the definitions of a script: what follows runs at each call. What precedes it must not depend
on a call, because a function (syncapp/store/functions.py) keeps it from one call to the next.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha1
from pathlib import Path
from types import MappingProxyType
from typing import Any

import redis
from redis.exceptions import NoScriptError, ResponseError

from syncapp.store.connection_pool import Arguments, ConnectionPool, packed, pool_of
from syncapp.store.functions import Functions, library_of
from syncapp.store.replication import Replication

LUA_DIR = Path(__file__).resolve().parents[2] / "lua"
"""The folder of the scripts. A process reads each of them once."""
_OF_CLUSTER = {"_fanout": "local PUBLISH, SUBSCRIBE = 'SPUBLISH', 'SSUBSCRIBE'\n"}
"""Partials that are others in a cluster."""
_DEFINITIONS = "_all"
"""The partial that includes all others."""
Call = tuple[Sequence[str], Arguments]
"""The keys and the arguments of a call."""
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


@cache
def library(partials: frozenset[tuple[str, str]] = frozenset()) -> tuple[str, str]:
    """Return the name and the text of the library of all scripts as functions."""
    return library_of(expand(_DEFINITIONS, dict(partials)), _texts_and_hashes(partials)[0])


class Scripts:
    """All scripts, called as functions where the server lets it; each is loaded when the server does not have it."""

    def __init__(self, client: redis.Redis, partials: Mapping[str, str] | None = None) -> None:
        self._pool = pool_of(client)
        chosen = {**(_OF_CLUSTER if self._pool.is_cluster else {}), **(partials or {})}
        self._texts, self._hashes = _texts_and_hashes(frozenset(chosen.items()))
        self.functions = Functions(self._pool, library(frozenset(chosen.items())))

    @property
    def pool(self) -> ConnectionPool:
        """The pool whose connections are used."""
        return self._pool

    def call(self, name: str, keys: Sequence[str], args: Arguments) -> Any:
        """Run a script, usually in one round trip, and return its raw reply."""
        (reply,) = self._run(name, [(keys, args)], self._pool.call)
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
        replicas = 0

        def send(*commands: bytes) -> list[Any]:
            nonlocal replicas
            replies, replicas = replication.call(*commands, mark=mark)
            return replies

        (reply,) = self._run(name, [(keys, args)], send)
        if isinstance(reply, Exception):
            raise reply
        return reply, replicas

    def call_all(self, name: str, calls: Sequence[Call]) -> list[Any]:
        """Run a script with each of several keys and arguments, in one round trip; the results may include errors."""
        return self._run(name, calls, self._pool.call)

    def packed(self, name: str, keys: Sequence[str], args: Arguments) -> bytes:
        """Return the command that runs a script on a server that has it."""
        return self._packed(name, (keys, args), self.functions.are_used(keys))

    def _packed(self, name: str, call: Call, as_function: bool = False, *, with_text: bool = False) -> bytes:
        keys, args = call
        arguments = (len(keys), *keys, *args)
        if as_function:
            return self.functions.packed(name, arguments)
        how = ("EVAL", self._texts[name]) if with_text else ("EVALSHA", self._hashes[name])
        return packed(*how, *arguments)

    def _run(self, name: str, calls: Sequence[Call], send: Callable[..., list[Any]]) -> list[Any]:
        """Return the replies; calls that the server has not run are run in the next way that it accepts."""
        sent_s = time.monotonic()
        are_functions = [self.functions.are_used(keys) for keys, _ in calls]
        replies = send(*(self._packed(name, *each) for each in zip(calls, are_functions, strict=True)))
        if any(isinstance(reply, ResponseError) for reply in replies):
            self._run_again(name, _Attempt(calls, replies, are_functions, send), sent_s)
        elif are_functions and are_functions[0]:
            self.functions.ran(calls[0][0])
        return replies

    def _run_again(self, name: str, attempt: _Attempt, sent_s: float) -> None:
        """Run calls again that were not run: each way is tried for all of them at once.

        A server that has restarted has neither functions nor scripts. To send a call again is safe, because no attempt
        before has run anything.
        """
        functions, are_functions = self.functions, attempt.are_functions
        if missing := [each for each in attempt.where(functions.is_missing) if are_functions[each]]:
            functions.load([key for each in missing for key in attempt.keys(each)[:1]], sent_s)
            for each in missing:
                are_functions[each] = functions.are_used(attempt.keys(each))
            attempt.send({each: self._packed(name, attempt.calls[each], are_functions[each]) for each in missing})
        refused = [each for each in self._refused(attempt) if are_functions[each]]
        attempt.send({each: self._packed(name, attempt.calls[each]) for each in refused})
        for is_last in (False, True):
            unknown = attempt.where(_is_unknown)
            # A script's text is sent once to each server; its hash follows.
            first = {functions.home(attempt.keys(each)): each for each in reversed(unknown)}.values()
            attempt.send(
                {each: self._packed(name, attempt.calls[each], with_text=is_last or each in first) for each in unknown}
            )
        if refused:
            # A script that is refused, too, lengthens the pause, which would be over if it has waited for replicas.
            self._refused(attempt)

    def _refused(self, attempt: _Attempt) -> list[int]:
        keys, replies = attempt.keys, attempt.replies
        return [each for each, reply in enumerate(replies) if self.functions.was_refused(keys(each), reply)]


class _Attempt:
    """Calls of a script, their last replies, and which of them were sent as functions; send: sends commands."""

    def __init__(
        self,
        calls: Sequence[Call],
        replies: list[Any],
        are_functions: list[bool],
        send: Callable[..., list[Any]],
    ) -> None:
        self.calls = calls
        self.replies = replies
        self.are_functions = are_functions
        self._send = send

    def keys(self, place: int) -> Sequence[str]:
        """Return the keys of a call."""
        return self.calls[place][0]

    def where(self, is_so: Callable[[Any], bool]) -> list[int]:
        """Return the places of some replies."""
        return [place for place, reply in enumerate(self.replies) if is_so(reply)]

    def send(self, commands: Mapping[int, bytes]) -> None:
        """Send the commands of some places, in one round trip, and put their replies there."""
        if commands:
            for place, reply in zip(commands, self._send(*commands.values()), strict=True):
                self.replies[place] = reply


def _is_unknown(reply: Any) -> bool:
    """Return whether a server did not know a script."""
    return isinstance(reply, NoScriptError)
