"""The state from which a session is restored, and the arguments of lua/restore_session.lua."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from syncapp.domain.private_parts import completion_proof, completion_text, metadata_proof
from syncapp.domain.session import Session
from syncapp.domain.session_layout import write_records
from syncapp.store.script_arguments import control_arguments


@dataclass(slots=True)
class HiddenState:
    """Fields of a session that only the scripts use, with the names of lua/_session.lua.

    last_members: for each group, the index within the group of the member whose turn was last.
    """

    unattended: int
    warned: int
    crossed: int
    last_members: list[int]


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """The last known state of a session, from which lua/restore_session.lua restores it.

    epoch, version: of its newest event. chain: the hash of that event's message, as in the store. status: the status
    after that event, or `deleted`. session: the last state. hidden: the fields that only the scripts use.
    """

    epoch: int
    version: int
    chain: str
    status: str
    session: Session
    hidden: HiddenState

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, version) of the newest event."""
        return (self.epoch, self.version)

    def arguments(self) -> list[str | bytes | int]:
        """Return the arguments of lua/restore_session.lua from the metadata on."""
        session, definition = self.session, self.session.definition
        fields: dict[str, str | bytes | int | None] = {
            name: getattr(session, name)
            for name in (
                "status", "sync_mode", "increment_ms", "idle_timeout_ms", "turn", "cycle_count", "time_used_ms",
                "time_remaining_ms", "cycle_started_ms", "session_started_ms", "session_completed_ms", "created_ms",
                "updated_ms",
            )
        }  # fmt: skip
        fields |= {
            "on_timeout": definition.action_on_timeout["type"],
            "time_per_cycle_ms": definition.time_per_cycle_ms,
            "max_cycles": definition.max_cycles,
            "warned": self.hidden.warned,
            "crossed": self.hidden.crossed,
            "unattended": self.hidden.unattended,
            "metadata_version": 1,
        }
        metadata = orjson.dumps(session.metadata)
        fields["metadata_proof"] = metadata_proof(metadata)
        if session.completion:
            texts = {name: orjson.dumps(value) for name, value in session.completion.items()}
            fields |= {"completion": completion_text(texts), "completion_proof": completion_proof(texts)}
        args: list[str | bytes | int] = [
            metadata,
            orjson.dumps(definition.action_on_timeout),
            definition.to_json(),
            " ".join(map(str, definition.warn_at_ms)),
            self._records(),
            len(definition.participant_ids),
            len(fields),
        ]
        for name, value in fields.items():
            args += [name, "" if value is None else value]
        args += control_arguments(definition, session.clocks)
        for index, name in enumerate(definition.participant_ids):
            args += [name, 0, definition.group_of[index] if definition.group_of else ""]
        for name in definition.group_ids:
            args += [name, 0]
        return args

    def _records(self) -> str:
        participants = (
            (each.time_used_ms, each.time_remaining_ms, each.cycle_count, each.has_expired)
            for each in self.session.participants
        )
        groups = (
            (each.time_used_ms, each.time_remaining_ms, member, each.has_expired)
            for each, member in zip(self.session.groups, self.hidden.last_members, strict=True)
        )
        return write_records((*participants, *groups))
