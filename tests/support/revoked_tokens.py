"""Revocations for tests without a store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from syncapp.access.revocations import Revoked


class NothingRevoked:
    """A store without revocations."""

    def revoked_from(self, position: str) -> Sequence[Revoked]:
        return ()

    def add_revoked(self, ids: Iterable[tuple[str, float]]) -> None:
        list(ids)
