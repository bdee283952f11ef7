"""The replies of scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Reply(NamedTuple):
    """A script's reply, in the layout of lua/_reply.lua.

    state: of a session (`CachedSession.from_reply`); from expire_session, the instants of its commits; from
    summarize_session, the texts of a summary. nudge: whether to request a drain of the bucket. replayed: '', 'deleted',
    or the epoch and version of the first result. session_us, principal_us: how long each token bucket takes until it is
    full, if there are limits.
    """

    word: str
    now_ms: int
    state: Sequence[str]
    event_json: str
    patch_json: str
    nudge: int
    replayed: str
    expired_id: str
    session_us: int | None = None
    principal_us: int = 0

    def is_miss(self, command: str) -> bool:
        """Return whether there was no session. Deleting a missing session succeeds, but the audit log may have it."""
        return self.word in ("not_found", "session_gone") or (
            command == "delete" and self.word == "ok" and not self.event_json and not self.replayed
        )

    def first(self) -> tuple[int, int] | None:
        """Return the (epoch, version) of the first result of a replay; None for a delete, or without a replay."""
        if not self.replayed or self.replayed == "deleted":
            return None
        epoch, version = self.replayed.split(" ")
        return int(epoch), int(version)
