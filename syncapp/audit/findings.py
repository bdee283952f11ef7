"""The findings of `flask audit verify`: faults, and forks that dead letters explain."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AuditFault:
    """A session that is not as committed: epoch and version of its first bad row, and what is wrong with the row."""

    session_id: str
    epoch: int
    version: int
    what: str

    def __str__(self) -> str:
        return f"session {self.session_id}, epoch {self.epoch}, version {self.version}: {self.what}"


@dataclass(frozen=True, slots=True)
class Fork:
    """Versions that were committed twice: the log has one commit of each, dead letters have the other.

    version, last: the first and the last of them. follower: what follows the dead letters.
    """

    session_id: str
    epoch: int
    version: int
    last: int
    dead_letters: int
    follower: str

    def __str__(self) -> str:
        which = f"version {self.version}" if self.version == self.last else f"versions {self.version} to {self.last}"
        count = "1 dead letter" if self.dead_letters == 1 else f"{self.dead_letters} dead letters"
        return (
            f"session {self.session_id}, epoch {self.epoch}, version {self.version}: fork: {which} committed twice,"
            f" {self.follower} follows the other branch, explained by {count}"
        )


class BadRow(Exception):
    """A row is not as committed; `place` is its epoch and version."""

    def __init__(self, epoch: int, version: int, what: str) -> None:
        super().__init__(what)
        self.place = (epoch, version)
