"""What clients may send: the models that validate it and from which the OpenAPI document is made.

Every fault of a request is reported at once, each as {field, message, code}; unknown fields are
refused by name. Durations are milliseconds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from syncapp.errors import ValidationFailed

MAX_PARTICIPANTS = 1000
MAX_METADATA_BYTES = 16_384
MAX_ACTION_BYTES = 4096
UUID_PATTERN = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
ID_PATTERN = r"^[A-Za-z0-9._:@-]{1,64}$"
IDEMPOTENCY_KEY_PATTERN = r"^[\x21-\x7e]{1,128}$"

_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "model_type": "must be a JSON object",
    "id": "must be 1 to 64 characters of A-Z a-z 0-9 . _ : @ -",
    "uuid": "must be a UUID, such as 3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10",
}


def _matching(pattern: str, code: str) -> AfterValidator:
    compiled = re.compile(pattern.removesuffix("$") + r"\Z")

    def check(text: str) -> str:
        if not compiled.match(text):
            raise PydanticCustomError(code, _MESSAGES[code])
        return text

    return AfterValidator(check)


def _without_nul(value: Any) -> Any:
    r"""Refuse NUL anywhere in a caller's document: legal JSON (`\u0000`), but not legal `jsonb`."""
    stack = [value.model_dump() if isinstance(value, BaseModel) else value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if "\x00" in item:
                raise PydanticCustomError("nul_character", "must not contain the NUL character")
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return value


def _at_most(limit: int) -> AfterValidator:
    def check(document: Any) -> Any:
        size = len(orjson.dumps(document.model_dump() if isinstance(document, BaseModel) else document))
        if size > limit:
            raise PydanticCustomError(
                "too_large", "is {size} bytes as JSON, more than {limit}", {"size": size, "limit": limit}
            )
        return document

    return AfterValidator(check)


SessionId = Annotated[
    str,
    _matching(UUID_PATTERN, "uuid"),
    AfterValidator(str.lower),
    Field(json_schema_extra={"format": "uuid"}, examples=["3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"]),
]
ParticipantId = Annotated[str, _matching(ID_PATTERN, "id"), Field(json_schema_extra={"pattern": ID_PATTERN})]
DurationMs = Annotated[int, Field(ge=1000, le=86_400_000)]
Metadata = Annotated[dict[str, Any], AfterValidator(_without_nul), _at_most(MAX_METADATA_BYTES)]
Mode = Literal["per_participant", "per_cycle", "per_group", "global", "count_up"]


class Request(BaseModel):
    """A request's body."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @classmethod
    def parse(cls, raw: Any) -> Self:
        """Validate decoded JSON; raises `ValidationFailed` naming every fault."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise validation_failed(error) from None

    @model_validator(mode="wrap")
    @classmethod
    def _every_fault(cls, raw: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Report what is wrong between fields together with what is wrong in them."""
        faults = list(cls.faults_between(raw)) if isinstance(raw, dict) else []
        try:
            model = handler(raw)
        except ValidationError as error:
            faults = [_again(item) for item in error.errors(include_url=False)] + faults
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return model

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield the faults that concern more than one field; the fields themselves may be bad."""
        yield from ()


class CommandBody(Request):
    """What any command may claim about the session it acts on; another version is a conflict."""

    expected_version: Annotated[int, Field(ge=1, le=2**53)] | None = None
    expected_epoch: Annotated[int, Field(ge=1, le=2**53)] | None = None


class NewParticipant(Request):
    """A participant of a new session; the list's order is the rotation."""

    participant_id: ParticipantId
    total_time_ms: DurationMs
    participant_index: Annotated[int, Field(ge=0, lt=MAX_PARTICIPANTS)] | None = None


class ActionOnTimeout(BaseModel):
    """What happens at zero; further keys are the caller's, stored and echoed in the timeout event."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    type: Literal["end_session", "skip_cycle", "notify"]


class CreateSession(Request):
    """A new session."""

    session_id: SessionId | None = None
    sync_mode: Mode
    participants: Annotated[list[NewParticipant], Field(max_length=MAX_PARTICIPANTS)]
    total_time_ms: Annotated[int, Field(ge=1000, le=86_400_000 * MAX_PARTICIPANTS)] | None = None
    increment_ms: Annotated[int, Field(ge=0, le=60_000)] = 0
    action_on_timeout: Annotated[ActionOnTimeout, AfterValidator(_without_nul), _at_most(MAX_ACTION_BYTES)] | None = (
        None
    )
    idle_timeout_s: Annotated[int, Field(ge=1, le=604_800)] | None = None
    metadata: Metadata = Field(default_factory=dict)

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield what does not fit between mode, participants and times."""
        mode = raw.get("sync_mode")
        if mode in ("per_cycle", "per_group", "global", "count_up"):
            yield _fault("sync_mode", f"{mode} is not available yet; use per_participant", "unsupported_mode")
        action = raw.get("action_on_timeout")
        if isinstance(action, dict) and action.get("type") in ("skip_cycle", "notify"):
            message = f"{action['type']} is not available yet; use end_session"
            yield _fault("action_on_timeout.type", message, "unsupported_action")
        people = raw.get("participants")
        if not isinstance(people, list):
            return
        if not people and mode == "per_participant":
            yield _fault("participants", "must name at least one participant in this mode", "too_short")
        known = [person for person in people if isinstance(person, dict)]
        counts = Counter(
            person.get("participant_id") for person in known if isinstance(person.get("participant_id"), str)
        )
        for place, person in enumerate(people):
            name = person.get("participant_id") if isinstance(person, dict) else None
            if isinstance(name, str) and counts[name] > 1:
                yield _fault(f"participants.{place}.participant_id", f"{name!r} is not unique", "duplicate")
        places = [person.get("participant_index") for person in known]
        if any(place is not None for place in places) and {repr(p) for p in places} != {
            str(i) for i in range(len(people))
        }:
            message = f"must be given to all participants or none, each of 0 to {len(people) - 1} once"
            yield _fault("participants", message, "participant_index")
        total = raw.get("total_time_ms")
        budgets: list[Any] = [person.get("total_time_ms") for person in known]
        if total is not None and all(type(budget) is int for budget in budgets) and total != sum(budgets):
            message = f"must be {sum(budgets)}, the sum of the participants' total_time_ms, or absent"
            yield _fault("total_time_ms", message, "sum_mismatch")

    def in_rotation(self) -> list[NewParticipant]:
        """Return the participants in rotation order."""
        return sorted(self.participants, key=lambda person: person.participant_index or 0)


class Start(CommandBody):
    """Start the clock; who begins, or the first in rotation."""

    participant_id: ParticipantId | None = None


class Switch(CommandBody):
    """End the active participant's cycle.

    `participant_id`, when given, must be the active participant: a double press of a clock button is
    then harmless. `next_participant_id` overrides the rotation.
    """

    participant_id: ParticipantId | None = None
    next_participant_id: ParticipantId | None = None


class Cancel(CommandBody):
    """Call a session off."""

    reason: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_without_nul)] | None = None


class Update(CommandBody):
    """Change metadata by a merge-patch (RFC 7396): null removes a member."""

    metadata: Metadata


def merge_patch(target: Any, patch: Any) -> Any:
    """Return the document that RFC 7396 makes of a target and a patch; both stay as they are."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def session_id(text: str) -> str:
    """Return a session id in lower case; raises `ValidationFailed` when it is not a UUID."""
    if not re.match(UUID_PATTERN, text) or text.endswith("\n"):
        raise ValidationFailed.of("session_id", _MESSAGES["uuid"], "uuid")
    return text.lower()


def validation_failed(error: ValidationError) -> ValidationFailed:
    """Return the error a client sees for what pydantic found."""
    details = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        field = ".".join(str(part) for part in item["loc"]) or "body"
        message = _MESSAGES.get(item["type"]) or item["msg"].replace("Input should", "must", 1)
        details.append(
            {"field": field, "message": message.replace("a valid dictionary", "an object"), "code": item["type"]}
        )
    named = ", ".join(sorted({detail["field"] for detail in details}))
    count = "1 fault" if len(details) == 1 else f"{len(details)} faults"
    return ValidationFailed(f"{count} in the request: {named}", details)


def _fault(field: str, message: str, code: str) -> InitErrorDetails:
    location = tuple(int(part) if part.isdigit() else part for part in field.split("."))
    return InitErrorDetails(type=_custom(code, message), loc=location, input=None)


def _again(item: Any) -> InitErrorDetails:
    return InitErrorDetails(type=_custom(item["type"], item["msg"]), loc=item["loc"], input=None)


def _custom(code: str, message: str) -> PydanticCustomError:
    # Braces in a message would be read as places to fill.
    return PydanticCustomError(code, message.replace("{", "(").replace("}", ")"))
