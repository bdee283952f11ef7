"""The OpenAPI and the AsyncAPI document: complete, and true of a real server. `make lint-api` lints them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from websockets.sync.client import connect

from syncapp import create_app
from syncapp.api.reference import openapi
from syncapp.api.reference.examples import SESSION_ID
from syncapp.api.reference.message_examples import EXAMPLES
from syncapp.api.reference.messages import RECEIVED, SENT
from syncapp.api.reference.schemas import DOCUMENTED, ERROR_CODES, ErrorAnswer
from syncapp.errors import SyncError
from syncapp.realtime.protocol import Incoming, Outgoing
from tests.support.cluster import Cluster, MakeCluster
from tests.support.store import make_settings

USUAL = {
    *("content-type", "content-length", "content-encoding", "transfer-encoding", "cache-control", "vary"),
    *("date", "server", "connection", "x-accel-buffering", "x-content-type-options"),
}
"""Headers that HTTP itself describes, or that are for proxies."""

APP = create_app(make_settings("redis://127.0.0.1:1/0"))  # builds documents without a connection
DOCUMENT: dict[str, Any] = APP.test_client().get("/api-docs.json").get_json()
ASYNC: dict[str, Any] = APP.test_client().get("/asyncapi.json").get_json()
OPERATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    operation["operationId"]: (method, path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
both = pytest.mark.parametrize("document", [DOCUMENT, ASYNC], ids=["openapi", "asyncapi"])


def objects(value: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object within, by its place."""
    if isinstance(value, dict):
        yield path, value
    for name, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from objects(item, f"{path}/{name}")


def resolve(document: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    for part in found.get("$ref", "#").split("/")[1:]:
        document = document[part.replace("~1", "/")]
    return document if "$ref" in found else found


@both
def test_every_field_of_every_schema_is_described(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    silent = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, about in schema.get("properties", {}).items()
        if not about.get("description", resolve(document, about).get("description"))
    ]
    assert not silent
    assert not [name for name, schema in schemas.items() if not schema.get("description")]


@both
def test_a_field_whose_name_has_a_unit_says_it(document: dict[str, Any]) -> None:
    unit = {"ms": r"\bms\b|[Tt]imes|instant", "s": r"\bs\b|[Ss]econd"}
    silent = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, about in schema.get("properties", {}).items()
        if (found := re.search(r"_(ms|s)$", field)) and not re.search(unit[found[1]], about["description"])
    ]
    assert not silent


@both
def test_no_component_is_unused_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    used = {found["$ref"] for _, found in objects(document) if isinstance(found.get("$ref"), str)}
    kept = {f"#/components/{kind}/{name}" for kind, items in document["components"].items() for name in items}
    assert kept <= used
    for ref in used:
        assert resolve(document, {"$ref": ref})


@both
def test_no_two_schemas_have_one_title(document: dict[str, Any]) -> None:
    titles = [schema["title"] for _, schema in objects(document["components"]["schemas"]) if "title" in schema]
    titles = [title for title in titles if isinstance(title, str)]
    assert len(set(titles)) == len(titles) == len(document["components"]["schemas"])


def test_no_field_has_the_name_of_its_schema() -> None:
    """Generated clients have a variable for each, of two types."""
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert name.lower() not in {field.replace("_", "") for field in schema.get("properties", {})}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_described_whole(name: str) -> None:
    _, path, operation = OPERATIONS[name]
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    assert {tag["name"] for tag in DOCUMENT["tags"] if tag["description"]} >= set(operation["tags"])
    parameters = operation["parameters"]
    assert all(parameter["description"] for parameter in parameters)
    assert re.findall(r"{(\w+)}", path) == [each["name"] for each in parameters if each["in"] == "path"]
    assert {"400", "429", "500", "503"} <= operation["responses"].keys()
    for status, found in operation["responses"].items():
        answer = resolve(DOCUMENT, found)
        assert answer["description"]
        assert ("X-Request-Id" in answer["headers"]) == (status not in ("413", "414"))  # said before it has an id
        assert ("content" in answer) == (status not in ("204", "304"))
        assert ("Retry-After" in answer["headers"]) == (status in ("429", "503"))
        for content in answer.get("content", {}).values():
            assert content["examples"]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        assert content["examples"]


def test_what_no_operation_lists_is_said_of_all() -> None:
    statuses = {error.status for error in subclasses(SyncError) if error.__module__ == "syncapp.errors"}
    listed = {int(status) for _, _, operation in OPERATIONS.values() for status in operation["responses"]}
    said = {int(status) for status in re.findall(r"\b4\d\d\b", openapi.DESCRIPTION)}
    assert statuses <= listed | said


def subclasses(kind: type[SyncError]) -> set[type[SyncError]]:
    return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))


def test_the_codes_of_errors_are_those_of_the_code() -> None:
    ours = {error.code for error in subclasses(SyncError) if error.__module__.startswith("syncapp.")}
    assert set(ERROR_CODES) == ours - {"UPGRADE_REQUIRED"}  # of /ws alone
    assert DOCUMENT["components"]["schemas"]["Error"]["properties"]["code"]["enum"] == ERROR_CODES


def test_everything_that_a_request_may_hold_is_bounded() -> None:
    free = "#/components/schemas/ActionOnTimeout"  # other keys belong to the caller
    asked = {content["schema"]["$ref"] for content in _bodies()}
    for ref in list(asked):
        asked |= {found["$ref"] for _, found in objects(resolve(DOCUMENT, {"$ref": ref})) if "$ref" in found}
    assert free in asked
    for ref in asked:
        assert ref == free or resolve(DOCUMENT, {"$ref": ref})["additionalProperties"] is False
        for path, schema in objects(resolve(DOCUMENT, {"$ref": ref}), ref):
            if schema.get("type") == "integer":
                assert "minimum" in schema, path
                assert schema.keys() & {"maximum", "exclusiveMaximum"}, path
            if schema.get("type") == "string":
                assert schema.keys() & {"pattern", "enum", "const", "maxLength"}, path
            if schema.get("type") == "array":
                assert "maxItems" in schema, path
    for _, _, operation in OPERATIONS.values():
        for parameter in operation["parameters"]:
            if parameter["schema"].get("type") == "integer":
                assert {"minimum", "maximum"} <= parameter["schema"].keys(), parameter["name"]


def _bodies() -> Iterator[dict[str, Any]]:
    for _, _, operation in OPERATIONS.values():
        yield from operation.get("requestBody", {}).get("content", {}).values()


def model_of(name: str, status: int) -> Any:
    """The model of an operation's answer, as JSON."""
    body: Any = next(about.resp[status] for route, about in DOCUMENTED.items() if route.__name__ == name)
    return (body or {}).get("application/json") if isinstance(body, dict | None) else body


def test_examples_of_answers_fit_their_models() -> None:
    for name, (_, _, operation) in OPERATIONS.items():
        for status, answer in operation["responses"].items():
            content = resolve(DOCUMENT, answer).get("content", {}).get("application/json", {})
            model = model_of(name, int(status))
            for example in content.get("examples", {}).values():
                model.model_validate_json(json.dumps(example["value"]))


def test_examples_of_messages_fit_their_models() -> None:
    assert EXAMPLES.keys() == {*Outgoing, *Incoming}
    models: dict[str, Any] = {str(name): model for name, model in [*SENT.items(), *RECEIVED.items()]}
    for name, examples in EXAMPLES.items():
        for _, payload in examples:
            models[name].model_validate_json(json.dumps(payload))


@pytest.fixture(scope="module")
def server(make_cluster: MakeCluster) -> Cluster:
    return make_cluster(web=1)


def call(server: Cluster, name: str, session: str = "", **request: Any) -> requests.Response:
    """Call an operation, and compare the answer with the document."""
    method, path, operation = OPERATIONS[name]
    url = server.urls[0] + path.replace("{session_id}", session)
    answer = requests.request(method, url, timeout=60, stream=name == "stream", **request)
    documented = resolve(DOCUMENT, operation["responses"][str(answer.status_code)])
    kind = answer.headers.get("Content-Type", "").split(";")[0]
    assert kind in documented.get("content", {"": None})
    described = {header.lower() for header in documented["headers"]}
    sent = {header.lower() for header in answer.headers if not header.lower().startswith("access-control-")}
    assert sent - USUAL <= described
    for header, found in documented["headers"].items():
        about = resolve(DOCUMENT, found)
        assert header in answer.headers or not about["required"], header
        pattern = about["schema"].get("pattern")
        assert not pattern or header not in answer.headers or re.search(pattern, answer.headers[header])
    if answer.status_code >= 400:
        ErrorAnswer.model_validate_json(answer.content)
    elif kind == "application/json":
        model_of(name, answer.status_code).model_validate_json(answer.content)
    return answer


# They need AUTH=required: tests/api/test_links.py.
LINKS = {"create_link", "list_links", "revoke_link", "revoke_links"}
ASKED = [
    (name, example)
    for name, (_, _, operation) in OPERATIONS.items()
    if name not in LINKS
    for example in operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("examples", {})
]
BEFORE = {
    "switch": ["start"],
    "pause": ["start"],
    "resume": ["start", "pause"],
    "takeback": ["start", "switch"],
    "reopen": ["start", "complete"],
}


@pytest.mark.parametrize(("name", "example"), ASKED)
def test_every_example_of_a_request_works_as_it_stands(server: Cluster, name: str, example: str) -> None:
    examples = OPERATIONS[name][2]["requestBody"]["content"]["application/json"]["examples"]
    session = ""
    if name != "create":
        chess = next(iter(OPERATIONS["create"][2]["requestBody"]["content"]["application/json"]["examples"].values()))
        session = call(server, "create", json=chess["value"]).json()["data"]["session_id"]
        for earlier in BEFORE.get(name, []):
            assert call(server, earlier, session, json={}).status_code == 200
    answer = call(server, name, session, json=examples[example]["value"])
    assert answer.status_code in (200, 201, 204)


PLAIN = ("health", "ready", "audit_queue", "audit_verification", "time", "sessions", "list_sessions")
LOGGED: dict[str, dict[str, Any]] = {"events": {}, "at": {"version": 1}, "statistics": {}}


def test_no_operation_is_left_out_of_these_tests() -> None:
    assert OPERATIONS.keys() == {
        *PLAIN,
        *LOGGED,
        "read",
        "text",
        "export",
        "stream",
        *LINKS,
        *(name for name, _ in ASKED),
    }


def test_every_read_answers_as_documented(server: Cluster) -> None:
    # No other test uses the id of the examples, so the examples work unchanged.
    created = call(server, "create", json={"session_id": SESSION_ID, "sync_mode": "count_up"})
    assert created.status_code in (201, 409)
    assert call(server, "start", SESSION_ID, json={}).status_code in (200, 400)
    etag = call(server, "read", SESSION_ID).headers["ETag"]
    assert call(server, "read", SESSION_ID, headers={"If-None-Match": etag}, params={"wait_ms": 1}).status_code == 304
    for name in PLAIN:
        assert call(server, name).status_code == 200
    for name, query in LOGGED.items():
        assert eventually(server, name, query) == 200
    for form in ("text", "array"):
        assert call(server, "text", SESSION_ID, params={"as": form}).status_code == 200
    for form in ("json", "ndjson", "csv"):
        assert call(server, "export", SESSION_ID, params={"format": form}).status_code == 200
    with call(server, "stream", SESSION_ID) as stream:
        assert stream.status_code == 200


def eventually(server: Cluster, name: str, query: dict[str, Any]) -> int:
    """Poll the log until it has the session."""
    for _ in range(200):
        status = call(server, name, SESSION_ID, params=query).status_code
        if status not in (404, 503):
            break
    return status


def test_refusals_are_documented(server: Cluster) -> None:
    unknown = str(uuid.uuid4())
    assert call(server, "read", unknown).status_code == 404
    assert call(server, "read", "no-uuid").status_code == 400
    session = call(server, "create", json={"sync_mode": "count_up"}).json()["data"]["session_id"]
    for command in ("start", "complete", "update", "delete"):
        body: dict[str, Any] = {"metadata": {}} if command == "update" else {}
        assert call(server, command, session, json=body | {"expected_version": 9}).status_code == 409
        assert call(server, command, session, json=body, headers={"If-Match": '"1-1"'}).status_code == 412
        assert call(server, command, session, data="{}", headers={"Content-Type": "text/plain"}).status_code == 415
        assert call(server, command, session, data=b" " * 2_000_000).status_code == 413
    twice = {"Idempotency-Key": str(uuid.uuid4())}
    assert call(server, "create", json={"sync_mode": "count_up"}, headers=twice).status_code == 201
    replayed = call(server, "create", json={"sync_mode": "count_up"}, headers=twice)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    other = {"sync_mode": "count_up", "max_time_ms": 1000}
    assert call(server, "create", json=other, headers=twice).status_code == 422
    minimal = call(server, "start", session, json={}, headers={"Prefer": "return=minimal"})
    assert minimal.headers["Preference-Applied"] == "return=minimal"


ANSWERED = {
    Incoming.PING: {Outgoing.PONG},
    Incoming.RECONNECT: {Outgoing.STATE_SYNC},
    Incoming.COMMAND: {Outgoing.ERROR},  # the version differs, but the request is valid
    Incoming.SUBSCRIBE: {Outgoing.SUBSCRIBED},
    Incoming.UNSUBSCRIBE: {
        Outgoing.UNSUBSCRIBED,
        Outgoing.ERROR,
    },  # for a session without a subscription
}


# AUTH needs a server with AUTH=required: tests/server/test_websocket_authentication.py.
@pytest.mark.parametrize("kind", [kind for kind in Incoming if kind is not Incoming.AUTH])
def test_every_example_of_a_message_is_understood(server: Cluster, kind: Incoming) -> None:
    session = call(server, "create", json={"sync_mode": "count_up"}).json()["data"]["session_id"]
    with connect(f"{server.urls[0].replace('http', 'ws')}/ws?sessionId={session}") as socket:
        for _, payload in EXAMPLES[kind]:
            socket.send(json.dumps(payload))
            while True:
                told = json.loads(text := socket.recv(timeout=30))
                SENT[Outgoing(told["type"])].model_validate_json(text)
                assert told.get("code") not in ("VALIDATION_ERROR", "INVALID_JSON", "INTERNAL_ERROR")
                if told["type"] in ANSWERED[kind] | {Outgoing.ERROR}:
                    break
            assert told["type"] in ANSWERED[kind]
