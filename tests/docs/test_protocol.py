"""docs/protocol.md and the AsyncAPI document say what the code does."""

from __future__ import annotations

import json
import re

from pydantic import BaseModel

from syncapp import create_app
from syncapp.api.reference.messages import ERROR_CODES, RECEIVED, SENT
from syncapp.domain.commands import COMMANDS
from syncapp.realtime import protocol
from syncapp.realtime.protocol import Close, Incoming, Outgoing
from tests.support.paths import ROOT
from tests.support.store import make_settings

DOCUMENT = ROOT / "docs" / "protocol.md"


def table(heading: str) -> dict[str, list[str]]:
    """Return the rows of the table under a heading of the protocol's document, by their first column."""
    part = DOCUMENT.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [re.split(r" \| ", line.strip("| ")) for line in part.splitlines() if line.startswith("| `")]
    return {re.findall(r"`(\w+)`", row[0])[0]: row[1:] for row in rows}


def fields_of(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields) - {"type", "sessionId", "timestamp"}


def test_the_document_names_every_message_with_its_fields() -> None:
    sent, received = table("What the server sends"), table("What a client may send")
    assert sent.keys() == set(Outgoing)
    assert received.keys() == set(Incoming)
    for kind, model in SENT.items():
        assert set(re.findall(r"`(\w+)`", sent[kind][0].split(". ")[0])) == fields_of(model), kind
    for asked, kind_model in RECEIVED.items():
        assert set(re.findall(r"`(\w+)`", received[asked][0])) == set(kind_model.model_fields) - {"type"}, asked


def test_the_document_says_of_every_close_code_whether_to_come_back() -> None:
    codes = table("Close codes")
    assert {int(code) for code in codes} == {*Close, 1001, 1006}
    for row in codes.values():
        assert re.match(r"(yes|no)\b", row[-1])


def test_the_document_names_every_command_and_every_error_with_what_to_do() -> None:
    rows = table("Error codes")
    assert sorted(rows) == ERROR_CODES
    assert all(len(row) == 2 for row in rows.values())
    commands = DOCUMENT.read_text().split("`command` is one of ")[1].split(", and acts")[0]
    assert re.findall(r"`(\w+)`", commands) == list(COMMANDS)


def test_every_example_in_the_document_is_a_message() -> None:
    examples = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    kinds = set()
    for text in examples:
        example = json.loads(text)
        kinds.add(example["type"])
        if example["type"] in set(Incoming):
            protocol.parse(text)
        elif "state" not in example:  # those are shortened
            SENT[Outgoing(example["type"])].model_validate_json(text)
    assert kinds == {*Outgoing, *Incoming}


def test_the_asyncapi_document_says_what_the_code_does(redis_url: str) -> None:
    document = create_app(make_settings(redis_url)).test_client().get("/asyncapi.json").get_json()
    assert document["asyncapi"] == "3.1.0"
    older = create_app(make_settings(redis_url)).test_client().get("/asyncapi.json?version=3.0.0").get_json()
    assert older == document | {"asyncapi": "3.0.0"}
    messages = document["components"]["messages"]
    assert messages.keys() == {*Outgoing, *Incoming}
    channel = document["channels"]["session"]
    assert channel["messages"].keys() == messages.keys() - {Outgoing.HEARTBEAT}  # a stream's only
    assert set(channel["x-close-codes"]) == {str(int(code)) for code in Close}
    schemas = document["components"]["schemas"]
    assert schemas["ErrorMessage"]["properties"]["code"]["enum"] == ERROR_CODES
    assert schemas["Command"]["properties"]["command"]["enum"] == list(COMMANDS)
    actions = {operation["action"] for operation in document["operations"].values()}
    assert actions == {"send", "receive"}
    for ref in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        found = document
        for part in ref.split("/"):
            found = found[part]
