"""What `flask audit verify` finds: what is not as committed, and forks that are explained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AuditFault:
    """A fault of a session: the epoch and version of its first bad row, and what is wrong with the row."""

    session_id: str
    epoch: int
    version: int
    what: str

    def __str__(self) -> str:
        return f"session {self.session_id}, epoch {self.epoch}, version {self.version}: {self.what}"


@dataclass(frozen=True, slots=True)
class Fork:
    """Versions that were committed twice: the log has one of each, dead letters have the other.

    version, last: the first and the last of them. goes_on: what follows the dead letters.
    """

    session_id: str
    epoch: int
    version: int
    last: int
    letters: int
    goes_on: str

    def __str__(self) -> str:
        which = f"version {self.version}" if self.version == self.last else f"versions {self.version} to {self.last}"
        letters = "1 dead letter" if self.letters == 1 else f"{self.letters} dead letters"
        return (
            f"session {self.session_id}, epoch {self.epoch}, version {self.version}: fork: {which} committed twice,"
            f" {self.goes_on} follows the other branch, explained by {letters}"
        )


class BadRow(Exception):
    """A row that is not as committed; `place` is its epoch and version."""

    def __init__(self, epoch: int, version: int, what: str) -> None:
        super().__init__(what)
        self.place = (epoch, version)
