"""How a request is validated: every fault at once, 50 at most, in words that go on after the name of the field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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

MOST_FAULTS = 50
_MOST_UNKNOWN = 20
_MOST_NAMED = 10
_LONGEST_TEXT = 200
_WORDS = tuple(
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
"""What pydantic says, and what a client reads."""


class _Found:
    """How many faults the validation of one request has found."""

    count = 0


class Request(BaseModel):
    """A request's body.

    most: the lengths of lists that are too long to look at; neither is an object with far too many fields. What
    a caller may make a server do, and be answered, has a bound.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    most: ClassVar[Mapping[str, int]] = {}

    @classmethod
    def parse(cls, raw: Any) -> Self:
        """Validate decoded JSON; raises `ValidationFailed` naming every fault, up to 50."""
        try:
            return cls.model_validate(raw, context=_Found())
        except ValidationError as error:
            raise validation_failed(error) from None

    @model_validator(mode="wrap")
    @classmethod
    def _every_fault(cls, raw: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """Report what is wrong between fields together with what is wrong in them."""
        found = info.context if isinstance(info.context, _Found) else _Found()
        if found.count > MOST_FAULTS:
            raise PydanticOmit  # an item of a list: others are wrong enough
        faults = list(cls._excess(raw)) if isinstance(raw, dict) else []
        if not faults:
            faults = list(islice(cls.faults_between(raw), MOST_FAULTS + 1)) if isinstance(raw, dict) else []
            try:
                model = handler(raw)
            except ValidationError as error:
                named = {_path(fault["loc"]) for fault in faults}
                own = [item for item in error.errors(include_url=False) if _path(item["loc"]) not in named]
                faults = [_again(item) for item in own] + faults
        if faults:
            found.count += len(faults)
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return model

    @classmethod
    def _excess(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        known = len(cls.__pydantic_fields__)
        if len(raw) > known + _MOST_UNKNOWN:
            message = f"has {len(raw)} fields, of which {known} at most are known"
            yield InitErrorDetails(type=custom("too_many_fields", message), loc=(), input=None)
        for field, limit in cls.most.items():
            items = raw.get(field)
            if isinstance(items, list) and len(items) > limit:
                message = f"must have at most {limit} items, not {len(items)}"
                yield InitErrorDetails(type=custom("too_long", message), loc=(field,), input=None)

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield the faults that concern more than one field; the fields themselves may be bad."""
        yield from ()


def validation_failed(error: ValidationError) -> ValidationFailed:
    """Return the error a client sees for what pydantic found."""
    details = []
    for item in error.errors(include_url=False, include_input=False, include_context=False)[:MOST_FAULTS]:
        field = _path(item["loc"]) or "body"
        details.append({"field": _short(field), "message": _short(_plain(item["msg"])), "code": item["type"]})
    return refused(details, error.error_count())


def refused(details: list[dict[str, str]], count: int = 0) -> ValidationFailed:
    """Return the error that names these faults, each {field, message, code}; count: how many there are in all."""
    count = count or len(details)
    if count == 1:
        return ValidationFailed("{field}: {message}".format_map(details[0]), details)
    names = sorted({detail["field"] for detail in details})
    named = ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
    many = f"{count} faults" if count <= MOST_FAULTS else f"more than {MOST_FAULTS} faults"
    return ValidationFailed(f"{many} in the request: {named}", details)


def _plain(text: str) -> str:
    """Return a message that goes on after the name of the field, in JSON's words instead of Python's."""
    for pattern, words in _WORDS:
        text = pattern.sub(words, text, count=1)
    return text


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


def _path(loc: Sequence[int | str]) -> str:
    return ".".join(map(str, loc))


def _again(item: Any) -> InitErrorDetails:
    return InitErrorDetails(type=custom(item["type"], item["msg"]), loc=item["loc"], input=None)


def custom(code: str, message: str) -> PydanticCustomError:
    """Return a fault with a message of our own."""
    # Braces in a template are places to fill.
    return PydanticCustomError(code, "{message}", {"message": message})
