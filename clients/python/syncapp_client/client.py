"""The REST API, for back ends that do not keep sessions open."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack, cast

from syncapp_client import commands
from syncapp_client.links import Links
from syncapp_client.rest import Rest, path_part
from syncapp_client.retries import Retries
from syncapp_client.tokens import Tokens, TokenSource
from syncapp_client.values import Done, State

REQUEST_S = 15.0


class Client:
    """A server. Threads may share it; use it in a `with` block, or `close` it.

    Reads, creates, commands and batches are tried again for up to `timeout_s`; what changes something has an
    idempotency key, the same in each try, so it takes effect once. All methods raise `SyncAppError`.
    """

    def __init__(self, base: str, *, token: TokenSource = None, timeout_s: float = REQUEST_S) -> None:
        self._rest = Rest(base, Tokens(token), Retries(timeout_s))
        self.base = self._rest.base
        self.links = Links(self._rest)

    def create(self, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> State:
        """Create a session from the body of `POST /v1/sessions`, and return its state.

        idempotency_key: a random UUID, unless the body has a `session_id`; by default a new one.
        """
        key = idempotency_key or str(uuid.uuid4())
        return cast("State", self._rest.request("POST", "/v1/sessions", body=dict(body), key=key).data)

    def get(self, session_id: str) -> State:
        """Return a session's state."""
        return cast("State", self._get(session_id).data)

    def list(self, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield the sessions that the store holds, newest first, from all pages.

        query: as of `GET /v1/sessions`: `status` and `sync_mode` (one or a list), `participant_id`, `limit` (of each
        page); `metadata` may be a mapping of members.
        """
        members: Mapping[str, Any] = query.pop("metadata", None) or {}
        query |= {f"metadata.{name}": _text(value) for name, value in members.items()}
        return self._rest.pages("/v1/sessions", "sessions", query)

    def history(self, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield the sessions of the audit log, the most recently changed first; query: as of `GET /v1/history`."""
        return self._rest.pages("/v1/history", "sessions", query)

    def events(self, session_id: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield a session's events from the audit log, oldest first, from all pages.

        query: as of `GET /v1/sessions/{id}/events`; `since` and `until` stand for `from` and `to`.
        """
        renamed = {{"since": "from", "until": "to"}.get(name, name): value for name, value in query.items()}
        return self._rest.pages(f"/v1/sessions/{path_part(session_id)}/events", "events", renamed)

    def at(
        self, session_id: str, *, time: str | int | None = None, version: int | None = None, epoch: int | None = None
    ) -> dict[str, Any]:
        """Return a session with all its clocks as of a past instant (ISO 8601, or ms since 1970), or a version."""
        found = self._get(session_id, "at", time=time, version=version, epoch=epoch).data
        return cast("dict[str, Any]", found)

    def statistics(self, session_id: str) -> dict[str, Any]:
        """Return the number and lengths of the cycles of each participant."""
        return cast("dict[str, Any]", self._get(session_id, "statistics").data)

    def text(
        self,
        session_id: str,
        *,
        format: str | None = None,  # noqa: A002  # the API's word
        participant_id: str | None = None,
        group_id: str | None = None,
    ) -> str:
        """Return a clock as text; format: `mm:ss`, `m:ss`, `hh:mm:ss`, `h:mm:ss`, `ss` or `mm:ss.t`."""
        found = self._get(session_id, "text", format=format, participant_id=participant_id, group_id=group_id)
        return cast("str", found.data)

    def batch(
        self,
        command: commands.CommandName,
        session_ids: Sequence[str],
        args: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Run one command on up to 100 sessions; return `results` in their order, `succeeded` and `failed`."""
        body = {"command": command, "session_ids": [*session_ids], "args": dict(args or {})}
        key = idempotency_key or str(uuid.uuid4())
        found = self._rest.request("POST", "/v1/sessions/batch", body=body, key=key).data
        return cast("dict[str, Any]", found)

    # Commands, by the session's id

    def start(self, session_id: str, **fields: Unpack[commands.Start]) -> Done:
        """Start the clock."""
        return self.command(session_id, "start", **fields)

    def switch(self, session_id: str, **fields: Unpack[commands.Switch]) -> Done:
        """End the active participant's cycle; name it, so that a double press switches once."""
        return self.command(session_id, "switch", **fields)

    def pause(self, session_id: str, **fields: Unpack[commands.Options]) -> Done:
        """Stop the clock."""
        return self.command(session_id, "pause", **fields)

    def resume(self, session_id: str, **fields: Unpack[commands.Options]) -> Done:
        """Continue the paused cycle."""
        return self.command(session_id, "resume", **fields)

    def adjust(self, session_id: str, **fields: Unpack[commands.Adjust]) -> Done:
        """Change what is left on clocks."""
        return self.command(session_id, "adjust", **fields)

    def takeback(self, session_id: str, **fields: Unpack[commands.Takeback]) -> Done:
        """Take the last cycles back."""
        return self.command(session_id, "takeback", **fields)

    def reopen(self, session_id: str, **fields: Unpack[commands.Reasoned]) -> Done:
        """Reopen a session that ended by mistake."""
        return self.command(session_id, "reopen", **fields)

    def complete(self, session_id: str, **fields: Unpack[commands.Complete]) -> Done:
        """Complete a session."""
        return self.command(session_id, "complete", **fields)

    def cancel(self, session_id: str, **fields: Unpack[commands.Reasoned]) -> Done:
        """Cancel a session."""
        return self.command(session_id, "cancel", **fields)

    def update(self, session_id: str, metadata: Mapping[str, Any], **fields: Unpack[commands.Options]) -> Done:
        """Merge a patch into the metadata; None removes a member."""
        return self.command(session_id, "update", metadata=dict(metadata), **fields)

    def delete(self, session_id: str, **fields: Unpack[commands.Options]) -> Done:
        """Delete a session; deleting one that does not exist succeeds."""
        return self.command(session_id, "delete", **fields)

    def command(self, session_id: str, name: commands.CommandName, **fields: Any) -> Done:
        """Run a command by its name."""
        return self._rest.run(session_id, commands.Command(name, fields))

    def close(self) -> None:
        """Close the connections that are kept."""
        self._rest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, session_id: str, view: str = "", **params: Any) -> Any:
        path = f"/v1/sessions/{path_part(session_id)}" + (f"/{view}" if view else "")
        return self._rest.request("GET", path, params=params)


def _text(value: Any) -> str:
    """Return a member of the metadata as the query has it: a string, or a number or boolean as in JSON."""
    return str(value).lower() if isinstance(value, bool) else str(value)
