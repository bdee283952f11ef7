"""The OpenAPI document lists every route, body and limit."""

from __future__ import annotations

import re

from flask import Flask
from flask.testing import FlaskClient

from syncapp.domain.notation import parse
from tests.support.rest import MODES


def test_the_openapi_document_lists_every_route_and_the_page_asks_no_other_host(
    app: Flask, client: FlaskClient
) -> None:
    document = client.get("/api-docs.json").get_json()
    listed = {(path, method) for path, methods in document["paths"].items() for method in methods}
    undocumented = {
        "/metrics",
        "/api-docs.json",
        "/api-docs",
        "/api-docs/",
        "/api-docs/<path:path>",
        "/ws",
        "/asyncapi.json",
    }
    routes = {
        (rule.rule.replace("<session>", "{session_id}").replace("<jti>", "{jti}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule not in undocumented and not rule.endpoint.startswith("pages.")
    }
    assert listed == routes
    page = client.get("/api-docs").get_data(as_text=True)
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)
    for asset in re.findall(r"(?:src|href)=\"([^\"]+)\"", page):
        with client.get(asset) as answer:
            assert answer.status_code == 200


def test_the_openapi_document_says_which_bodies_may_be_absent(client: FlaskClient) -> None:
    paths = client.get("/api-docs.json").get_json()["paths"]
    required = {
        operation["operationId"]: operation["requestBody"]["required"]
        for operations in paths.values()
        for operation in operations.values()
        if "requestBody" in operation
    }
    assert {name for name, needed in required.items() if needed} == {
        "create",
        "adjust",
        "update",
        "batch",
        "create_link",
    }
    assert set(required) == {
        "create",
        "batch",
        "adjust",
        "update",
        "start",
        "switch",
        "pause",
        "resume",
        "takeback",
        "complete",
        "cancel",
        "reopen",
    } | {"delete", "create_link"}


def test_the_openapi_document_states_the_limits_that_are_enforced(client: FlaskClient) -> None:
    schemas = client.get("/api-docs.json").get_json()["components"]["schemas"]
    assert schemas["CreateSession"]["properties"]["increment_ms"]["maximum"] == 60_000
    assert schemas["CreateSession"]["properties"]["participants"]["maxItems"] == 1000
    assert schemas["NewParticipant"]["properties"]["total_time_ms"]["anyOf"][0]["maximum"] == 86_400_000
    assert schemas["CreateSession"]["additionalProperties"] is False
    assert schemas["CreateSession"]["properties"]["sync_mode"]["enum"] == list(MODES)
    assert {"groups", "warn_at_ms", "max_cycles"} <= set(schemas["CreateSession"]["properties"])
    assert schemas["Adjust"]["properties"]["op"]["anyOf"][0]["enum"] == ["add", "set", "at_least"]
    assert {"participant_id", "group_id", "targets", "not_after_ms", "reason"} <= set(schemas["Adjust"]["properties"])


def test_the_openapi_document_takes_a_time_control_as_an_object_and_as_a_notation(client: FlaskClient) -> None:
    schemas = client.get("/api-docs.json").get_json()["components"]["schemas"]
    for owner in ("CreateSession", "NewParticipant", "NewGroup"):
        as_object, as_text, none = schemas[owner]["properties"]["time_control"]["anyOf"]
        assert as_object == {"$ref": "#/components/schemas/TimeControl"}
        assert (as_text["type"], as_text["maxLength"], none) == ("string", 1000, {"type": "null"})
        assert all(parse(example) for example in as_text["examples"])
    assert schemas["TimeControl"]["required"] == ["stages"]
    assert schemas["TimeControl"]["properties"]["stages"]["maxItems"] == 9
