"""A batch runs one command on many sessions, each independently."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ClassVar

import structlog
from pydantic import AfterValidator, Field
from pydantic_core import InitErrorDetails, PydanticCustomError

from syncapp.domain.commands import COMMANDS
from syncapp.domain.field_types import SessionId
from syncapp.domain.results import Result
from syncapp.domain.schemas import CommandBody
from syncapp.domain.validation import Request
from syncapp.errors import InternalError, StoreUnavailable, SyncError, ValidationFailed

log = structlog.get_logger(__name__)

MOST_SESSIONS = 100
_AT_ONCE = 8  # commands at a time: each takes a connection
_PATIENCE_S = 1.0
_COMMANDS = tuple(name for name in COMMANDS if name != "create")


def _command(name: str) -> str:
    if name not in _COMMANDS:
        raise PydanticCustomError("unknown_command", f"must be one of {', '.join(_COMMANDS)}")
    return name


class Batch(Request):
    """One command on up to 100 sessions; `args` is what the command takes as its body, the same for all."""

    most: ClassVar = {"session_ids": MOST_SESSIONS}

    command: Annotated[str, AfterValidator(_command), Field(json_schema_extra={"enum": list(_COMMANDS)})] = Field(
        description="What to do on each session."
    )
    session_ids: Annotated[list[SessionId], Field(min_length=1, max_length=MOST_SESSIONS)] = Field(
        description="1 to 100 different sessions.", json_schema_extra={"uniqueItems": True}
    )
    args: dict[str, Any] = Field(
        default_factory=dict,
        description="The command's body, without `expected_version` and `expected_epoch`; the same for all sessions.",
    )

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield ids that are there twice, and what the command itself does not take."""
        seen: set[str] = set()
        ids = raw.get("session_ids")
        for place, each in enumerate(ids if isinstance(ids, list) else ()):
            if isinstance(each, str) and each.lower() in seen:
                yield _fault(("session_ids", place), "duplicate", "is a duplicate")
            seen.add(each.lower() if isinstance(each, str) else "")
        args, command = raw.get("args", {}), raw.get("command")
        if not isinstance(args, dict) or command not in _COMMANDS:
            return
        for name in CommandBody.model_fields.keys() & args.keys():
            yield _fault(
                ("args", name), "misplaced", "cannot be used in a batch, because each session has its own version"
            )
        try:
            COMMANDS[command].body.parse({name: args[name] for name in args.keys() - CommandBody.model_fields.keys()})
        except ValidationFailed as failed:
            for detail in failed.details:
                yield _fault(("args", *detail["field"].split(".")), detail["code"], detail["message"])

    @property
    def asked(self) -> Request:
        """The command's arguments by its own model."""
        body: Request = COMMANDS[self.command].body.parse(self.args)
        return body


def run_each(session_ids: Sequence[str], run: Callable[[str], Result]) -> list[Result | SyncError]:
    """Run a command on each session, a few at a time; return what came of each, in their order. Never raises.

    When the store has kept one waiting in vain, those that have not been begun are not sent.
    """
    found: list[Result | SyncError] = [InternalError("the command was not begun")] * len(session_ids)
    todo = iter(range(len(session_ids)))
    lock, given_up = threading.Lock(), threading.Event()

    def work() -> None:
        while True:
            with lock:
                place = next(todo, None)
            if place is None:
                return
            if given_up.is_set():
                message = "the store does not answer; the command was not sent to it"
                found[place] = StoreUnavailable(message, {"retry_after_s": 1})
                continue
            began_s = time.monotonic()
            found[place] = fault = _outcome(session_ids[place], run)
            late = time.monotonic() - began_s >= _PATIENCE_S
            if late and isinstance(fault, StoreUnavailable) and "reason" in (fault.details or {}):
                given_up.set()

    others = [threading.Thread(target=work, daemon=True) for _ in range(min(_AT_ONCE, len(session_ids)) - 1)]
    for each in others:
        each.start()
    work()
    for each in others:
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
