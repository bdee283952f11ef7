"""What the models of all responses and messages are made of."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Payload = TypeVar("Payload")


def _never_null(schema: dict[str, Any]) -> None:
    """Change the schema of an optional field: it is absent without a value, never null."""
    schema.pop("default", None)
    branches = [branch for branch in schema.pop("anyOf", []) if branch != {"type": "null"}]
    schema.update(branches[0] if len(branches) == 1 else {"anyOf": branches} if branches else {})


def absent(description: str, **limits: Any) -> Any:
    """Return a field that is absent from a response if it has no value."""
    return Field(default=None, description=description, json_schema_extra=_never_null, **limits)


Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-01-01T12:00:00.000Z"])]
Uuid = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Status = Literal["pending", "running", "paused", "completed", "expired", "cancelled"]
Epoch = Annotated[
    int,
    Field(
        ge=1,
        description="When this life of the session began, with its create or restore, in ms since 1970. A later epoch "
        "is a larger number.",
    ),
]
Version = Annotated[int, Field(ge=1, description="Number of commits in this epoch, from 1, without gaps.")]


class Answer(BaseModel):
    """Part of a response or message."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Data(Answer, Generic[Payload]):
    """A successful response."""

    data: Payload = Field(description="The result.")
