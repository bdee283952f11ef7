"""A batch runs one command on many sessions, each independently."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ClassVar

import structlog
from pydantic import AfterValidator, Field
from pydantic_core import InitErrorDetails, PydanticCustomError

from syncapp.domain.command_bodies import CommandBody
from syncapp.domain.commands import COMMANDS
from syncapp.domain.field_types import SessionId
from syncapp.domain.results import Result
from syncapp.domain.validation import Request
from syncapp.errors import InternalError, NotReplicated, StoreUnavailable, SyncError, ValidationFailed

log = structlog.get_logger(__name__)

MAX_SESSIONS = 100
_MAX_CONCURRENT = 8  # each running command takes a connection to the store
_PATIENCE_S = 1.0
_COMMANDS = tuple(name for name in COMMANDS if name != "create")


def _command(name: str) -> str:
    if name not in _COMMANDS:
        raise PydanticCustomError("unknown_command", f"must be one of {', '.join(_COMMANDS)}")
    return name


class Batch(Request):
    """One command on up to 100 sessions; `args` is the command's body, the same for all of them."""

    max_lengths: ClassVar = {"session_ids": MAX_SESSIONS}

    command: Annotated[str, AfterValidator(_command), Field(json_schema_extra={"enum": list(_COMMANDS)})] = Field(
        description="The command to run on each session."
    )
    session_ids: Annotated[list[SessionId], Field(min_length=1, max_length=MAX_SESSIONS)] = Field(
        description="The ids of 1 to 100 different sessions.", json_schema_extra={"uniqueItems": True}
    )
    args: dict[str, Any] = Field(
        default_factory=dict,
        description="The command's body, without `expected_version` and `expected_epoch`; the same for all sessions.",
    )

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield duplicate ids, and the faults that the command finds in its body."""
        seen: set[str] = set()
        ids = raw.get("session_ids")
        for index, each in enumerate(ids if isinstance(ids, list) else ()):
            if isinstance(each, str) and each.lower() in seen:
                yield _fault(("session_ids", index), "duplicate", "is a duplicate")
            seen.add(each.lower() if isinstance(each, str) else "")
        args, command = raw.get("args", {}), raw.get("command")
        if not isinstance(args, dict) or command not in _COMMANDS:
            return
        preconditions = CommandBody.model_fields
        for name in [each for each in preconditions if each in args]:
            yield _fault(
                ("args", name), "misplaced", "cannot be used in a batch, because each session has its own version"
            )
        try:
            COMMANDS[command].body.parse({name: value for name, value in args.items() if name not in preconditions})
        except ValidationFailed as failed:
            for detail in failed.details:
                yield _fault(("args", *detail["field"].split(".")), detail["code"], detail["message"])

    @property
    def command_body(self) -> Request:
        """The command's body as its own model."""
        body: Request = COMMANDS[self.command].body.parse(self.args)
        return body


def run_each(session_ids: Sequence[str], run: Callable[[str], Result]) -> list[Result | SyncError]:
    """Run a command on each session, up to 8 at a time; return each outcome, in the order of the ids. Never raises.

    If the store did not answer one of them for 1 s, or its replicas did not, the commands that have not begun are not
    sent.
    """
    found: list[Result | SyncError] = [InternalError("the command was not started")] * len(session_ids)
    todo = iter(range(len(session_ids)))
    lock, store_is_down = threading.Lock(), threading.Event()

    def work() -> None:
        while True:
            with lock:
                index = next(todo, None)
            if index is None:
                return
            if store_is_down.is_set():
                message = "the store does not answer; the command was not sent to it"
                found[index] = StoreUnavailable(message, {"retry_after_s": 1})
                continue
            began_s = time.monotonic()
            found[index] = fault = _outcome(session_ids[index], run)
            late = time.monotonic() - began_s >= _PATIENCE_S
            if isinstance(fault, NotReplicated) or (
                late and isinstance(fault, StoreUnavailable) and "reason" in (fault.details or {})
            ):
                store_is_down.set()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_MAX_CONCURRENT, len(session_ids)) - 1)]
    for each in threads:
        each.start()
    work()
    for each in threads:
        each.join()
    return found


def _outcome(session_id: str, run: Callable[[str], Result]) -> Result | SyncError:
    try:
        return run(session_id)
    except SyncError as error:
        return error
    except Exception:
        log.exception("command of a batch failed", session_id=session_id)
        return InternalError("something went wrong on our side")


def _fault(location: tuple[str | int, ...], code: str, message: str) -> InitErrorDetails:
    error = PydanticCustomError(code, message.replace("{", "(").replace("}", ")"))
    return InitErrorDetails(type=error, loc=location, input=None)
