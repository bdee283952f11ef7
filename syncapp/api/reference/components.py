"""JSON Schemas of models for the OpenAPI and AsyncAPI documents, by the models' names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

NULL = {"type": "null"}


def schemas(
    models: Iterable[type[BaseModel]], mode: Literal["validation", "serialization"] = "validation"
) -> dict[str, Any]:
    """Return the schemas of models and of the models in them, by name."""
    _, found = models_json_schema([(model, mode) for model in models], ref_template="#/components/schemas/{model}")
    schemas: dict[str, Any] = found.get("$defs", {})
    for name, schema in schemas.items():
        for field in schema.get("properties", {}).values():
            _tidy(field)
            # Code generators make a field with a default required; descriptions mention defaults instead.
            field.pop("default", None)
        schema["title"] = name
    return schemas


def parameters(model: type[BaseModel], place: Literal["query", "header"]) -> list[dict[str, Any]]:
    """Return a model's fields as parameters. A parameter cannot be null, only absent."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return list(_parameters(schema, place))


def _parameters(schema: dict[str, Any], place: str) -> Iterator[dict[str, Any]]:
    for name, field in schema["properties"].items():
        _tidy(field)
        if NULL in field.get("anyOf", []):
            branches = [branch for branch in field.pop("anyOf") if branch != NULL]
            field.update(branches[0] if len(branches) == 1 else {"anyOf": branches})
        if field.get("default", "") is None:
            del field["default"]
        required = name in schema.get("required", [])
        description = field.pop("description", "")
        yield {"name": name, "in": place, "required": required, "description": description, "schema": field}


def _tidy(field: dict[str, Any]) -> None:
    """Remove titles that repeat the field's name, flatten nested anyOf, and remove an anyOf that accepts anything."""
    field.pop("title", None)
    for branch in field.get("anyOf", []):
        branch.pop("title", None)
    field_branches = field.get("anyOf", [])
    if any("anyOf" in branch for branch in field_branches):
        field["anyOf"] = [inner for branch in field_branches for inner in branch.get("anyOf", [branch])]
    if {} in field_branches:
        del field["anyOf"]  # "anything or null" means anything
