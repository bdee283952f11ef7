"""Validation of requests: reports all errors at once, at most 50. A message continues the name of its field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticOmit

from syncapp.domain.field_types import MESSAGES
from syncapp.errors import ValidationFailed

MAX_FAULTS = 50
_MAX_UNKNOWN_FIELDS = 20
_MAX_NAMED_FIELDS = 10
_MAX_TEXT_LENGTH = 200
_REPLACEMENTS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"^Field required$", MESSAGES["missing"]),
        (r"^Extra inputs are not permitted$", MESSAGES["extra_forbidden"]),
        (r"^Input should be a valid dictionary or .*$", MESSAGES["model_type"]),
        (r"^[A-Z][a-z]+ should ", "must "),
        (r" be a valid dictionary$", " be an object"),
        (r" be a valid list$", " be an array"),
        (r" be a valid (string|boolean)$", r" be a \1"),
        (r" be a valid integer$", " be a whole number"),
        (r" after validation\b", ""),
    )
)
"""Pydantic's wording, and the wording of our messages."""


class _FaultCount:
    """The number of errors found so far in one request."""

    count = 0


class Request(BaseModel):
    """A request's body.

    max_lengths: longer lists are refused without a check of their items. So are objects with over 20 more fields than
    the model defines. This bounds the work and the size of the response that a client can cause.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    max_lengths: ClassVar[Mapping[str, int]] = {}

    @classmethod
    def parse(cls, raw: Any) -> Self:
        """Validate decoded JSON. Raises `ValidationFailed` with all errors, at most 50."""
        try:
            found: Self = _without_fields(cls) if raw == {} else cls.model_validate(raw, context=_FaultCount())
        except ValidationError as error:
            raise _from_pydantic(error) from None
        return found

    @model_validator(mode="wrap")
    @classmethod
    def _every_fault(cls, raw: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """Report the errors between fields together with those in single fields."""
        count = info.context if isinstance(info.context, _FaultCount) else _FaultCount()
        if count.count > MAX_FAULTS:
            raise PydanticOmit  # an item of a list: the limit of errors is reached
        faults = list(cls._size_faults(raw)) if isinstance(raw, dict) else []
        if not faults:
            faults = list(islice(cls.faults_between(raw), MAX_FAULTS + 1)) if isinstance(raw, dict) else []
            try:
                model = handler(raw)
            except ValidationError as error:
                reported = {_path(fault["loc"]) for fault in faults}
                others = [item for item in error.errors(include_url=False) if _path(item["loc"]) not in reported]
                faults = [_copied(item) for item in others] + faults
        if faults:
            count.count += len(faults)
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return model

    @classmethod
    def _size_faults(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        defined = len(cls.__pydantic_fields__)
        if len(raw) > defined + _MAX_UNKNOWN_FIELDS:
            message = f"has {len(raw)} fields, but only {defined} are defined"
            yield InitErrorDetails(type=custom("too_many_fields", message), loc=(), input=None)
        for field, limit in cls.max_lengths.items():
            items = raw.get(field)
            if isinstance(items, list) and len(items) > limit:
                message = f"must have at most {limit} items, not {len(items)}"
                yield InitErrorDetails(type=custom("too_long", message), loc=(field,), input=None)

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield the errors that concern more than one field; the fields themselves may be invalid."""
        yield from ()


@lru_cache
def _without_fields(kind: type[Request]) -> Any:
    """Return the model of a body without fields, which most commands have; models cannot be changed."""
    return kind.model_validate({}, context=_FaultCount())


def _from_pydantic(error: ValidationError) -> ValidationFailed:
    """Return the error for the client from pydantic's."""
    details = []
    for item in error.errors(include_url=False, include_input=False, include_context=False)[:MAX_FAULTS]:
        field = _path(item["loc"]) or "body"
        details.append({"field": _short(field), "message": _short(_plain(item["msg"])), "code": item["type"]})
    return validation_failure(details, error.error_count())


def validation_failure(details: list[dict[str, str]], count: int = 0) -> ValidationFailed:
    """Return the error with these details, each {field, message, code}; count: of all errors, by default theirs."""
    count = count or len(details)
    if count == 1:
        return ValidationFailed("{field}: {message}".format_map(details[0]), details)
    names = sorted({detail["field"] for detail in details})
    listed = ", ".join(names[:_MAX_NAMED_FIELDS]) + (", …" if len(names) > _MAX_NAMED_FIELDS else "")
    total = f"{count} errors" if count <= MAX_FAULTS else f"more than {MAX_FAULTS} errors"
    return ValidationFailed(f"{total} in the request: {listed}", details)


def _plain(text: str) -> str:
    """Return a message that continues the name of its field, with JSON's type names instead of Python's."""
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text, count=1)
    return text


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT_LENGTH else text[:_MAX_TEXT_LENGTH] + "…"


def _path(loc: Sequence[int | str]) -> str:
    return ".".join(map(str, loc))


def _copied(item: Any) -> InitErrorDetails:
    return InitErrorDetails(type=custom(item["type"], item["msg"]), loc=item["loc"], input=None)


def custom(code: str, message: str) -> PydanticCustomError:
    """Return an error with this message."""
    # Pydantic replaces braces in a template.
    return PydanticCustomError(code, "{message}", {"message": message})
