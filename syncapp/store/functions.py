"""Scripts as functions of the server (FUNCTION LOAD, FCALL): what a script defines is made once, not at each call.

Making a script's own functions, and removing them afterwards, is a third to almost half of a short script's time. A
function is only a faster way to run a script: wherever the server refuses one, the script itself runs, with the same
effect.

- All scripts are functions of one library, which share their definitions: what a server keeps of them costs its garbage
  collector time. The library's name has the hash of its text, so two releases side by side use their own.
- A server without the library gets it at the first call. So a restart, a failover or FUNCTION FLUSH costs two more
  round trips, and a library may be removed at any time, as workers do with those of other releases.
- A server refuses any function that may write, before it runs, if it is full, is a replica, or lacks replicas or a
  working disk. It refuses a script only at its first write, so reads are still answered. While a server refuses
  functions, scripts run there without a first attempt.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import Any

import structlog
from redis.exceptions import ResponseError

from syncapp.store.connection_pool import ConnectionPool, packed

log = structlog.get_logger(__name__)

Home = tuple[str, int] | None
"""The address of a server of a cluster; None if there is only one server."""
PREFIX = "syncapp_"
"""How the names of all libraries begin."""
PAUSE_S = 30.0
"""How long a process calls no functions of a server that does not let it."""
SHORT_PAUSE_S = 1.0
"""How long it calls none of a server that refuses them in its present state."""
CALL_MARK = "-- @call\n"
"""The line between the definitions of a script and what each call runs."""
_MISSING = "Function not found"
_REFUSED = ("OOM ", "READONLY ", "NOREPLICAS ", "MISCONF ", "MASTERDOWN ")
"""Codes with which a server refuses to run a function; a function that has written something never gets one."""
_UNREADY = (*_REFUSED, "BUSY ")
"""Codes with which a server refuses to load a library in its present state."""
_NOT_LET = re.compile(r"(ERR )?unknown command [`'\"]?fcall\b|NOPERM .*[`'\"]fcall[`'\"]", re.IGNORECASE)
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
    """The scripts of a process as functions of one library. Each server of a cluster is paused by itself."""

    def __init__(self, pool: ConnectionPool, library: tuple[str, str]) -> None:
        self._pool = pool
        self.library, self._text = library
        self._paused_until_s: dict[Home, float] = {}
        self._refused_by: set[Home] = set()
        self._loading: dict[Home, threading.Lock] = {}
        self._tried_s: dict[Home, float] = {}

    def home(self, keys: Sequence[str]) -> Home:
        """Return the server that has the keys of a call; None if there is only one."""
        return self._pool.home(keys[0]) if keys else None

    def are_used(self, keys: Sequence[str]) -> bool:
        """Return whether a call with these keys may run as a function."""
        if not self._paused_until_s:
            return True
        home = self.home(keys)
        if time.monotonic() < self._paused_until_s.get(home, float("-inf")):
            return False
        self._paused_until_s.pop(home, None)
        return True

    def packed(self, script: str, arguments: Sequence[str | bytes | int]) -> bytes:
        """Return the command that calls a function."""
        return packed("FCALL", f"{self.library}_{script}", *arguments)

    def ran(self, keys: Sequence[str]) -> None:
        """Note that a server has run a function, so that its next refusal is logged again."""
        if self._refused_by:
            self._refused_by.discard(self.home(keys))

    def is_missing(self, reply: Any) -> bool:
        """Return whether a server did not know a function."""
        return isinstance(reply, ResponseError) and _MISSING in str(reply)

    def was_refused(self, keys: Sequence[str], reply: Any) -> bool:
        """Return whether a server did not run a function. If it would refuse the next one, too, none is called soon."""
        if not isinstance(reply, ResponseError):
            return False
        text = str(reply)
        if _NOT_LET.match(text):
            self._refuse(self.home(keys), text)
            return True
        if text.startswith(_REFUSED):
            self.pause(self.home(keys), SHORT_PAUSE_S)
            return True
        return _MISSING in text

    def load(self, keys: Sequence[str], sent_s: float = float("inf")) -> None:
        """Load the library into each server that has one of these keys.

        sent_s: when the call was sent that found no function. If another caller has tried to load the library since,
        this one does not; callers wait for an attempt that has begun.
        """
        for node, positions in self._pool.by_node(keys):
            home = self._pool.home(keys[positions[0]])
            with self._loading.setdefault(home, threading.Lock()):
                if self._tried_s.get(home, float("-inf")) >= sent_s:
                    continue
                (reply,) = node.call_each(packed("FUNCTION", "LOAD", self._text))
                self._tried_s[home] = time.monotonic()
            text = str(reply)
            if not isinstance(reply, ResponseError) or "already exists" in text:  # another process was faster
                continue
            if text.startswith(_UNREADY):
                self.pause(home, SHORT_PAUSE_S)
            else:
                self._refuse(home, text)

    def pause(self, home: Home, for_s: float) -> None:
        """Call no functions of a server for a while."""
        until_s = time.monotonic() + for_s
        self._paused_until_s[home] = max(until_s, self._paused_until_s.get(home, until_s))

    def _refuse(self, home: Home, error: str) -> None:
        """Pause because a server does not let this process use functions; log it unless its last refusal was."""
        self.pause(home, PAUSE_S)
        if home not in self._refused_by:
            log.warning("functions_refused", error=error)
        self._refused_by.add(home)
