"""Runs the scripts of sessions in a cluster, where sessions and limits are on several masters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import ConnectionError as RedisConnectionError

from syncapp.domain.results import Claim, Result
from syncapp.errors import StoreUnavailable
from syncapp.store.connection_pool import ConnectionPool, pool_of
from syncapp.store.reply_errors import no_reply
from syncapp.store.script_runner import ScriptRunner
from syncapp.store.split_limits import SplitLimits


class SplitRunner(ScriptRunner):
    """A `ScriptRunner` that charges a command before it runs, and reports watched sessions to each master by itself."""

    def __init__(self, client: redis.Redis, *args: Any) -> None:
        super().__init__(client, *args)
        self._split_limits = SplitLimits(client, self._scripts, self._limits, self._keys)

    def run(
        self, command: str, session_id: str, claim: Claim, *args: Any, is_paid: bool = False, **more: Any
    ) -> Result:
        """Do the same as `ScriptRunner.run`; a read is not charged."""
        if command == "get":
            return super().run(command, session_id, claim, *args, **more)
        with self._split_limits.charge(session_id, claim, is_paid=is_paid) as charge:
            return charge.settle(super().run(command, session_id, claim, *args, limited=charge.limits, **more))

    def attend(self, session_ids: Sequence[str]) -> list[Exception | None]:
        """Do the same for each master: one that does not answer must not let the watched sessions of others go idle."""
        results: list[Exception | None] = [None] * len(session_ids)
        for node, places in self._scripts.pool.by_node([self._keys.session(each) for each in session_ids]):
            try:
                found = self._attend_on(node, [session_ids[place] for place in places])
            except StoreUnavailable as error:
                found = [error] * len(places)
            for place, result in zip(places, found, strict=True):
                results[place] = result
        return results

    def _attend_on(self, node: ConnectionPool, session_ids: Sequence[str]) -> Sequence[Exception | None]:
        """Report sessions of one master, unless it has just failed to reply. Raises `StoreUnavailable`."""
        if self._scripts.pool.is_silent(node):
            raise no_reply(RedisConnectionError("the node has just failed to reply"))
        return super().attend(session_ids)

    def _paid(self, claim: Claim, limits: str) -> tuple[str, Sequence[str]]:
        """Do the same: the session's bucket is not charged again."""
        return f"0 {limits.partition(' ')[2]}", ()


def runner_for(client: redis.Redis, *args: Any) -> ScriptRunner:
    """Return a runner for one server or for a cluster, with the arguments of `ScriptRunner`."""
    return (SplitRunner if pool_of(client).is_cluster else ScriptRunner)(client, *args)
