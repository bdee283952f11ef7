"""Scripts as functions of the server (FUNCTION LOAD, FCALL): what a script defines is made once, not at each call.

Making a script's own functions, and removing them afterwards, is a third to almost half of a short script's time. A
function is only a faster way to run a script: wherever the server refuses one, the script itself runs, with the same
effect.

- All scripts are functions of one library, which share their definitions: what a server keeps of them costs its garbage
  collector time. The library's name has the hash of its text, so two releases side by side use their own.
- A server without the library gets it at the first call. So a restart, a failover or FUNCTION FLUSH costs one more
  round trip, and a library may be removed at any time, as workers do with those of other releases.
- A server refuses any function that may write, before it runs, if it is full, is a replica, or lacks replicas or a
  working disk. It refuses a script only at its first write, so reads are still answered.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import Any

import structlog
from redis.exceptions import ResponseError

from syncapp.store.connection_pool import ConnectionPool, packed

log = structlog.get_logger(__name__)

PREFIX = "syncapp_"
"""How the names of all libraries begin."""
PAUSE_S = 30.0
"""How long a process uses no functions after a server has not let it."""
CALL_MARK = "-- @call\n"
"""The line between the definitions of a script and what each call runs."""
_MISSING = "Function not found"
_REFUSED = ("OOM ", "READONLY ", "NOREPLICAS ", "MISCONF ", "MASTERDOWN ")
"""Codes with which a server refuses to run a function; a function that has written something never gets one."""
_FLAGS = re.compile(r"#!lua flags=([\w,-]+)")
_BLANK_LINES = re.compile(r"\n{2,}")
_COMMENT_LINES = re.compile(r"^ *--[^\n]*$", re.MULTILINE)


def library_of(definitions: str, texts: Mapping[str, str]) -> tuple[str, str]:
    """Return the name and the text of the library; definitions, texts: of all scripts, the latter by name.

    Comments are left out, because servers store and replicate the text.
    """
    parts = [_COMMENT_LINES.sub("", definitions)]
    for script, text in texts.items():
        flags = _FLAGS.match(text)
        quoted = ", ".join(f"'{flag}'" for flag in flags[1].split(",")) if flags else ""
        body = _COMMENT_LINES.sub("", text.split(CALL_MARK)[1])
        parts.append(
            f"redis.register_function{{function_name = 'NAME_{script}', flags = {{{quoted}}}, "
            f"callback = function(KEYS, ARGV)\n{body}end}}\n"
        )
    text = _BLANK_LINES.sub("\n", "".join(parts))
    name = f"{PREFIX}{sha1(text.encode(), usedforsecurity=False).hexdigest()[:16]}"
    return name, f"#!lua name={name}\n{text.replace('NAME_', f'{name}_')}"


class Functions:
    """The scripts of a process as functions of one library."""

    def __init__(self, pool: ConnectionPool, library: tuple[str, str]) -> None:
        self._pool = pool
        self.library, self._text = library
        self._paused_until_s = float("-inf")
        self._is_logged = False

    def packed(self, script: str, arguments: Sequence[str | bytes | int]) -> bytes | None:
        """Return the command that calls a function; None while functions are not used."""
        if time.monotonic() < self._paused_until_s:
            return None
        return packed("FCALL", f"{self.library}_{script}", *arguments)

    def is_missing(self, reply: Any) -> bool:
        """Return whether a server did not know a function."""
        return isinstance(reply, ResponseError) and _MISSING in str(reply)

    def was_refused(self, reply: Any) -> bool:
        """Return whether a server did not run a function. If it never would, functions are not used for a while."""
        if not isinstance(reply, ResponseError):
            return False
        text = str(reply)
        if "'fcall'" in text.lower():  # this user may not use it, or the server does not know it
            self._pause(text)
            return True
        return text.startswith(_REFUSED) or _MISSING in text

    def load_missing(self, keys: Sequence[Sequence[str]], replies: Sequence[Any]) -> None:
        """Load the library into the servers that did not know a function; keys: those of each call."""
        missing = [of[:1] for of, reply in zip(keys, replies, strict=True) if self.is_missing(reply)]
        if missing:
            self.load([key for first in missing for key in first])

    def load(self, keys: Sequence[str]) -> None:
        """Load the library into each server that has one of these keys."""
        for node, _ in self._pool.by_node(keys):
            (reply,) = node.call_each(packed("FUNCTION", "LOAD", self._text))
            if isinstance(reply, Exception) and "already exists" not in str(reply):  # another process was faster
                self._pause(str(reply))

    def _pause(self, error: str) -> None:
        self._paused_until_s = time.monotonic() + PAUSE_S
        if not self._is_logged:
            log.warning("functions_refused", error=error)
        self._is_logged = True
