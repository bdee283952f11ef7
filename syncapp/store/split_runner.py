"""Runs the scripts of sessions in a cluster, where limits and sessions are in different slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis

from syncapp.config import Settings
from syncapp.domain.results import Claim, Result
from syncapp.store.bucket_record import BucketGuard
from syncapp.store.connection_pool import pool_of
from syncapp.store.script_runner import ScriptRunner
from syncapp.store.split_limits import SplitLimits


class SplitRunner(ScriptRunner):
    """A `ScriptRunner` that charges a command before it runs."""

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        on_nudge: Callable[[int], None],
        partials: Mapping[str, str] | None,
        on_miss: Callable[[str], bool] | None = None,
        guard: BucketGuard | None = None,
    ) -> None:
        super().__init__(client, settings, on_nudge, partials, on_miss, guard)
        self._split_limits = SplitLimits(client, self._scripts, self._limits, self._keys)

    def run(
        self,
        command: str,
        session_id: str,
        claim: Claim,
        args: Sequence[str | bytes | int] = (),
        request: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        reason: bytes = b"",
        is_paid: bool = False,
        limited: tuple[str, Sequence[str]] | None = None,
    ) -> Result:
        """Do the same as `ScriptRunner.run`; a read is not charged."""
        if command == "get":
            return super().run(command, session_id, claim, args, request, reason=reason)
        with self._split_limits.charge(session_id, claim, is_paid=is_paid) as charge:
            result = super().run(command, session_id, claim, args, request, reason=reason, limited=charge.limits)
            return charge.settle(result)

    def _paid(self, claim: Claim, limits: str) -> tuple[str, Sequence[str]]:
        """Do the same: the session's bucket is not charged again."""
        return f"0 {limits.partition(' ')[2]}", ()


def runner_for(client: redis.Redis, *args: Any) -> ScriptRunner:
    """Return a runner for one server or for a cluster, with the arguments of `ScriptRunner`."""
    return (SplitRunner if pool_of(client).is_cluster else ScriptRunner)(client, *args)
