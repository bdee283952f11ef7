"""Exports in every form: JSON, CSV and JSON lines."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable

import orjson
import pytest
from flask.testing import FlaskClient

from tests.support.played_game import answer_data, play_game
from tests.support.rest import CHESS
from tests.support.store import ManualClock


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
def test_an_export_is_compressed_while_it_is_read(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int], form: str
) -> None:
    url, _ = play_game(client, clock)
    logged()
    plain = client.get(f"{url}/export?format={form}")
    packed = client.get(f"{url}/export?format={form}", headers={"Accept-Encoding": "gzip"})
    assert (plain.headers["Vary"], packed.headers["Vary"]) == ("Accept-Encoding",) * 2
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Length" not in packed.headers
    assert gzip.decompress(packed.data) == plain.data


def test_an_export_has_every_event_in_every_form(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncapp.history.queries.EXPORT_ROWS", 4)
    url, _ = play_game(client, clock)
    session_id = url.rsplit("/", 1)[1]
    logged()
    events = answer_data(client.get(f"{url}/events"))["events"]
    forms = {}
    for form, content_type in (
        ("json", "application/json"),
        ("ndjson", "application/x-ndjson"),
        ("csv", "text/csv; charset=utf-8"),
    ):
        answer = client.get(f"{url}/export?format={form}")
        assert answer.status_code == 200
        assert answer.content_type == content_type
        assert "Content-Length" not in answer.headers  # not read to the end
        assert answer.headers["Content-Disposition"] == f'attachment; filename="session-{session_id}.{form}"'
        forms[form] = answer.get_data()
    exported = orjson.loads(forms["json"])["data"]
    assert exported["session_id"] == session_id
    assert exported["count"] == 9
    *lines, end = map(orjson.loads, forms["ndjson"].splitlines())
    assert lines == exported["events"]
    assert end == {"type": "export_end", "session_id": session_id, "count": 9}
    assert exported["events"][-1]["snapshot"]["status"] == "completed"
    assert [{**event, "snapshot": None} for event in exported["events"]] == [
        event | {"snapshot": None} for event in events
    ]
    table = list(csv.DictReader(io.StringIO(forms["csv"].decode("utf-8-sig"), newline="")))
    assert table.pop() == dict.fromkeys(table[0], "") | {"epoch": "# 9 events"}
    assert [int(row["version"]) for row in table] == list(range(1, 10))
    assert [orjson.loads(row["patch"]) for row in table] == [event["patch"] for event in events]
    assert table[2]["elapsed_ms"] == "2000"
    assert table[0]["elapsed_ms"] == ""


def test_no_text_of_an_export_is_a_formula_and_ids_are_as_they_are(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int]
) -> None:
    people = [{"participant_id": name, "total_time_ms": 1000} for name in ("@SUM", "-1-1")]
    body = CHESS | {"participants": people, "action_on_timeout": {"type": "notify"}}
    url = client.post("/v1/sessions", json=body).headers["Location"]
    client.post(f"{url}/start", headers={"X-Request-Id": "-2.3"})
    clock.advance_ms(3000)
    client.post(f"{url}/switch")
    client.post(f"{url}/cancel", json={"reason": '=HYPERLINK("http://evil","x")\n,'})
    logged()
    text = client.get(f"{url}/export?format=csv").get_data().decode("utf-8-sig")
    table = list(csv.DictReader(io.StringIO(text, newline="")))
    assert table.pop()["epoch"] == f"# {len(table)} events"
    assert table[1]["participant_id"] == "@SUM"
    assert table[1]["request_id"] == "-2.3"
    assert table[-1]["participant_id"] == "-1-1"
    assert table[-1]["reason"] == '\'=HYPERLINK("http://evil","x")\n,'
    (switched,) = [row for row in table if row["type"] == "cycle_switched"]
    assert switched["remaining_ms"] == "-2000"
    for row in table:
        for name, cell in row.items():
            if name.endswith("_id"):
                continue
            assert not cell.startswith(("=", "+", "@", "\t", "\r")), name
            assert not cell.startswith("-") or cell.removeprefix("-").isdecimal(), name
