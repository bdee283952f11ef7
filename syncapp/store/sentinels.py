"""Sentinels: servers of Redis and Valkey that watch a primary, promote a replica when it fails, and name it.

All are asked at the same time, and the newest answer counts: a Sentinel that is cut off from the others still names the
primary that it knew before. The number of an answer (`config-epoch`) grows with each promotion.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.sentinel import Sentinel

from syncapp.errors import one_line

log = structlog.get_logger(__name__)

MAX_WAIT_S = 1.0
"""Maximum time to wait for the Sentinels, however many do not answer."""


class _Answer(NamedTuple):
    epoch: int
    host: str
    port: int


def _answer(client: Any, name: str) -> _Answer:
    """Ask a Sentinel. Raises redis-py's errors, and others for replies that no Sentinel sends."""
    epoch = client.sentinel_master(name)["config-epoch"]
    # Until all replicas follow the new primary, which may take minutes, the Sentinel that promoted it has the new epoch
    # but still the old address in its MASTER. The epoch is read first: an address that is newer than its epoch does no
    # harm.
    address = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", name)
    if address is None:
        raise ResponseError("no such server")  # removed in between
    host, port = address
    return _Answer(int(epoch), host.decode() if isinstance(host, bytes) else host, int(port))


class _Question(threading.Thread):
    """Asks one Sentinel; leaves an answer or an error."""

    def __init__(self, client: Any, name: str) -> None:
        super().__init__(name="ask_sentinel", daemon=True)
        self.client = client
        self._primary = name
        self.answer: _Answer | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.answer = _answer(self.client, self._primary)
        except Exception as error:  # noqa: BLE001 it is counted and logged, whatever the server behind the address says
            self.error = error

    @property
    def is_refused(self) -> bool:
        """Whether the Sentinel replied, but did not name a server."""
        is_silent = isinstance(self.error, RedisError | OSError) and not isinstance(
            self.error, ResponseError | AuthenticationError
        )
        return self.error is not None and not is_silent


class Sentinels:
    """Asks Sentinels for the address of the server that they know by a name.

    options: arguments of redis-py's connections to them. Not thread-safe.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]], name: str, options: Mapping[str, Any]) -> None:
        waits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), MAX_WAIT_S)
        make: Any = Sentinel  # untyped in redis-py
        clients: list[Any] = make(addresses, sentinel_kwargs={**options, **waits}).sentinels
        self._name = name
        self._questions = [_Question(client, name) for client in clients]
        self._newest_epoch = -1
        self._silent = 0
        self._refused = 0

    def ask(self) -> tuple[str, int] | None:
        """Return host and port of the primary, by the newest answer; None if no Sentinel names it. Never raises."""
        end_s = time.monotonic() + MAX_WAIT_S
        # One that has not ended yet, as while a host's name is looked up, is waited for again.
        self._questions = [each if each.is_alive() else self._begin(each.client) for each in self._questions]
        for question in self._questions:
            question.join(max(0.0, end_s - time.monotonic()))
        ended = [each for each in self._questions if not each.is_alive()]
        answers = [each.answer for each in ended if each.answer]
        self._note(ended, len(answers))
        if not answers:
            return None
        newest = max(answers, key=lambda each: (each.epoch, answers.count(each)))
        # Half of them or fewer may be cut off, and not know of a promotion that was seen earlier. A majority may have
        # been configured anew, which sets the epoch to 0.
        if newest.epoch < self._newest_epoch and 2 * len(answers) <= len(self._questions):
            return None
        self._newest_epoch = newest.epoch
        return newest.host, newest.port

    def worries(self) -> list[str]:
        """Return what was wrong when they were last asked, for `/ready`, without their addresses."""
        count = len(self._questions)
        silent = [f"{self._silent} of {count} Sentinels do not answer"] if self._silent else []
        return silent + ([f"{self._refused} of {count} Sentinels do not name the server"] if self._refused else [])

    def _begin(self, client: Any) -> _Question:
        question = _Question(client, self._name)
        question.start()
        return question

    def _note(self, ended: Sequence[_Question], answered: int) -> None:
        """Keep how many did not answer or refused, and log it if that has changed."""
        refused = sum(each.is_refused for each in ended)
        silent = len(self._questions) - answered - refused
        if (silent, refused) != (self._silent, self._refused):
            write = log.warning if silent or refused else log.info
            errors = [one_line(each.error) for each in ended if each.error]
            errors += ["no answer in time"] * (len(self._questions) - len(ended))
            write("sentinels_asked", answered=answered, silent=silent, refused=refused, errors=errors)
        self._silent, self._refused = silent, refused
