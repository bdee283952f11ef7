"""The history as clients see it: events, past states, statistics and exports, from the log alone."""

from __future__ import annotations

import csv
import gzip
import io
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import psycopg2
import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from syncapp import create_app
from syncapp.api.reference.history_schemas import EventsAnswer, HistoryAnswer, PastAnswer, StatisticsAnswer
from syncapp.audit.log import AuditLog
from syncapp.domain.instants import iso, ms_of
from syncapp.history.replay import SNAPSHOT_EVERY
from syncapp.postgres.database import Database
from syncapp.store.keys import Keyspace
from syncapp.store.scripts import LUA_DIR
from tests.api.test_api import CHESS, MODES, UNKNOWN, error, faults
from tests.audit.test_log import entries_of, rows
from tests.support.store import NOON_MS, PARTIALS, SetClock, settings

Db = psycopg2.extensions.connection


@pytest.fixture
def clock(redis: redis_py.Redis) -> SetClock:
    return SetClock(redis)


@pytest.fixture
def app(redis_url: str, database_url: str, clock: SetClock, db: Db) -> Iterator[Flask]:
    made = create_app(settings(redis_url, database_url=database_url), partials=PARTIALS)
    services = made.extensions["syncapp"]
    services.history.now_ms = lambda: clock.now_ms
    yield made
    services.history._pool.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def logged(redis: redis_py.Redis, database_url: str, db: Db) -> Iterator[Callable[[], int]]:
    """What moves all events into the log."""
    database = Database(database_url)

    def log() -> int:
        new = AuditLog(database).store(entries_of(redis)).new
        redis.delete(*map(Keyspace().outbox, range(16)))
        return new

    yield log
    database.close()


def data(answer: TestResponse) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.get_json()["data"]


def play(client: FlaskClient, clock: SetClock, **more: Any) -> tuple[str, list[dict[str, Any]]]:
    """Play a game; return its path, and what Redis said right after each commit."""
    made = client.post("/v1/sessions", json=CHESS | more)
    url = made.headers["Location"]
    said = [made.get_json()["data"]]
    moves = ("start", "switch", "switch", "pause", "resume", "switch", "adjust", "complete")
    for wait_ms, command in zip((5, 2000, 1500, 250, 60_000, 3000, 10, 700), moves, strict=True):
        clock.pass_ms(wait_ms)
        body = {"op": "add", "ms": 5000} if command == "adjust" else None
        said.append(data(client.post(f"{url}/{command}", json=body)))
    return url, said


def test_events_are_told_as_they_happened_and_page_by_page(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int]
) -> None:
    url, said = play(client, clock)
    logged()
    answer = client.get(f"{url}/events")
    EventsAnswer.model_validate_json(answer.data)
    whole = data(answer)
    assert whole["next_cursor"] is None
    assert [event["version"] for event in whole["events"]] == list(range(1, 10))
    assert [event["at"] for event in whole["events"]] == [state["updated_at"] for state in said]
    assert [event["at_ms"] for event in whole["events"]] == [ms_of(state["updated_at"]) for state in said]
    switched = whole["events"][2]
    assert (switched["type"], switched["participant_id"], switched["elapsed_ms"]) == ("cycle_switched", "white", 2000)
    assert switched["event"]["next_participant_id"] == "black"
    paged: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = data(client.get(f"{url}/events?limit=2{cursor and f'&cursor={cursor}'}"))
        assert len(page["events"]) <= 2
        paged += page["events"]
        cursor = page["next_cursor"]
    assert paged == whole["events"]


def test_events_are_filtered_by_type_and_by_time(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int]
) -> None:
    url, said = play(client, clock)
    logged()

    def versions(query: str) -> list[int]:
        return [event["version"] for event in data(client.get(f"{url}/events?{query}"))["events"]]

    assert versions("type=cycle_switched&type=session_paused") == [3, 4, 5, 7]
    third, fifth = said[2]["updated_at"], said[4]["updated_at"]
    assert versions(f"from={third}&to={fifth}") == [3, 4]
    assert versions(f"from={ms_of(third)}&to={ms_of(fifth)}") == [3, 4]
    assert versions("from=2100-01-01T14:00:00%2B02:00") == versions("from=2100-01-01T14:00:00+02:00")
    assert versions("type=session_expired") == []


def test_a_session_is_told_of_after_redis_has_forgotten_it_and_a_404_when_the_log_never_knew_it(
    client: FlaskClient, clock: SetClock, redis: redis_py.Redis, logged: Callable[[], int]
) -> None:
    url, _ = play(client, clock)
    logged()
    redis.flushdb()
    clock.set(clock.now_ms)
    error(client.get(url), 404, "SESSION_NOT_FOUND")
    assert len(data(client.get(f"{url}/events"))["events"]) == 9
    assert data(client.get(f"{url}/at?version=9"))["status"] == "completed"
    assert data(client.get(f"{url}/statistics"))["cycles"] == 3
    assert len(data(client.get(f"{url}/export"))["events"]) == 9
    for path in ("events", "at?version=1", f"at?time={NOON_MS}", "statistics", "export", "export?format=csv"):
        error(client.get(f"/v1/sessions/{UNKNOWN}/{path}"), 404, "SESSION_NOT_FOUND")
        assert faults(client.get(f"/v1/sessions/17/{path}")) == {"session_id": "uuid"}


@pytest.mark.parametrize("mode", MODES)
def test_a_past_state_and_its_clocks_are_what_redis_said_then(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int], mode: str
) -> None:
    made = client.post("/v1/sessions", json=MODES[mode] | {"metadata": {"big": 9007199254740993, "list": []}})
    url = made.headers["Location"]
    said = {clock.now_ms: data(client.get(url))}
    for step, command in enumerate(("start", "switch", "pause", "resume", "", "switch", "", "complete", "")):
        clock.pass_ms(777 * (step + 1))
        assert not command or client.post(f"{url}/{command}").status_code == 200
        said[clock.now_ms] = data(client.get(url))
        clock.pass_ms(step + 1)
        said[clock.now_ms] = data(client.get(url))
    logged()
    for at_ms, state in said.items():
        answer = client.get(f"{url}/at?time={at_ms}")
        PastAnswer.model_validate_json(answer.data)
        past = data(answer)
        clocks, event = past.pop("clocks"), past.pop("event")
        assert past == state
        assert event["at_ms"] == ms_of(state["updated_at"])
        _expect_clocks(clocks, state)
        iso_asked = data(client.get(f"{url}/at?time={iso(at_ms)}"))
        assert iso_asked["clock"] == state["clock"]
        at_version = data(client.get(f"{url}/at?version={state['version']}"))
        assert at_version["version"] == state["version"]
        assert at_version["server_time_ms"] == ms_of(state["updated_at"])
        assert at_version["participants"] == state["participants"]


def _expect_clocks(clocks: dict[str, Any], state: dict[str, Any]) -> None:
    """Work out from the settled state and the live clock what each clock shows."""
    running = state["clock"]["running"]
    ran_ms = state["server_time_ms"] - (ms_of(state["cycle_started_at"]) or 0) if running else 0
    active_group = None
    for shown, person in zip(clocks["participants"], state["participants"], strict=True):
        active = running and person["is_active"]
        active_group = person.get("group_id") if active else active_group
        assert shown["running"] == active
        assert shown["used_ms"] == person["time_used_ms"] + (ran_ms if active else 0)
        if person["time_remaining_ms"] is not None:
            assert shown["remaining_ms"] == person["time_remaining_ms"] - (ran_ms if active else 0)
            assert not active or shown["remaining_ms"] == state["clock"]["remaining_ms"]
    for shown, group in zip(clocks.get("groups", []), state.get("groups", []), strict=True):
        active = running and group["group_id"] == active_group
        assert shown["running"] == active
        assert shown["remaining_ms"] == group["time_remaining_ms"] - (ran_ms if active else 0)


def test_what_is_not_in_the_log_yet_is_no_past_state(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int]
) -> None:
    url = client.post("/v1/sessions", json=CHESS).headers["Location"]
    assert client.get(f"{url}/at?version=1").get_json()["error"]["code"] == "AUDIT_INCOMPLETE"
    clock.pass_ms(10)
    client.post(f"{url}/start")
    logged()
    started_ms = clock.now_ms
    clock.pass_ms(10)
    client.post(f"{url}/switch")
    assert data(client.get(f"{url}/at?version=2"))["version"] == 2
    for late in (f"time={clock.now_ms}", "version=3"):
        answer = client.get(f"{url}/at?{late}")
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "AUDIT_INCOMPLETE")
        assert answer.headers["Retry-After"] == "1"
    logged()
    assert data(client.get(f"{url}/at?time={clock.now_ms}"))["version"] == 3
    assert data(client.get(f"{url}/at?time={started_ms}"))["version"] == 2
    assert client.get(f"{url}/at?version=4").status_code == 404


def test_a_timeout_that_was_noticed_late_is_told_from_its_deadline_on(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int]
) -> None:
    url = client.post("/v1/sessions", json=CHESS).headers["Location"]
    client.post(f"{url}/start")
    clock.pass_ms(500_000)
    client.get(url)
    logged()
    before = data(client.get(f"{url}/at?time={NOON_MS + 299_999}"))
    assert (before["status"], before["clock"]["remaining_ms"]) == ("running", 1)
    after = data(client.get(f"{url}/at?time={NOON_MS + 300_000}"))
    assert (after["status"], after["event"]["type"]) == ("expired", "participant_expired")


def test_each_life_of_a_session_is_told_of_in_its_time(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int]
) -> None:
    body = CHESS | {"session_id": str(uuid.uuid4()), "metadata": {"life": 1}}
    url = client.post("/v1/sessions", json=body).headers["Location"]
    clock.pass_ms(1000)
    client.post(f"{url}/start")
    clock.pass_ms(1000)
    client.delete(url)
    clock.pass_ms(1000)
    client.post("/v1/sessions", json=body | {"metadata": {"life": 2}})
    logged()
    clock.pass_ms(10_000)

    def life(at_ms: int) -> Any:
        return data(client.get(f"{url}/at?time={at_ms}"))["metadata"]["life"]

    assert [life(NOON_MS), life(NOON_MS + 1999), life(NOON_MS + 3000), life(clock.now_ms)] == [1, 1, 2, 2]
    for gone in (NOON_MS + 2000, NOON_MS + 2999):
        refused = error(client.get(f"{url}/at?time={gone}"), 404, "SESSION_NOT_FOUND")
        assert refused["message"] == f"this session was deleted at {iso(NOON_MS + 2000)}"
    error(client.get(f"{url}/at?time={NOON_MS - 1}"), 404, "SESSION_NOT_FOUND")
    assert data(client.get(f"{url}/at?version=1"))["metadata"] == {"life": 2}
    assert data(client.get(f"{url}/at?version=2&epoch={NOON_MS}"))["status"] == "running"
    error(client.get(f"{url}/at?version=2"), 404, "SESSION_NOT_FOUND")
    error(client.get(f"{url}/at?version=3&epoch={NOON_MS}"), 404, "SESSION_NOT_FOUND")
    error(client.get(f"{url}/at?version=4&epoch={NOON_MS}"), 404, "SESSION_NOT_FOUND")
    error(client.get(f"{url}/at?version=1&epoch=7"), 404, "SESSION_NOT_FOUND")
    assert faults(client.get(f"{url}/at?time={clock.now_ms + 1}")) == {"time": "in_future"}


def test_the_past_is_told_while_redis_is_away(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int], database_url: str
) -> None:
    url, _ = play(client, clock)
    logged()
    away = create_app(settings("redis://127.0.0.1:1/0", redis_timeout_s=0.2, database_url=database_url)).test_client()
    assert data(away.get(f"{url}/at?version=9"))["status"] == "completed"
    error(away.get(f"{url}/at?time=1000"), 404, "SESSION_NOT_FOUND")
    assert faults(away.get(f"{url}/at?time={NOON_MS}")) == {"time": "in_future"}


def test_a_long_session_is_told_of_from_its_nearest_snapshot(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int], db: Db
) -> None:
    url = client.post("/v1/sessions", json=CHESS).headers["Location"]
    client.post(f"{url}/start")
    said = {}
    for _ in range(2 * SNAPSHOT_EVERY + 50):
        clock.pass_ms(7)
        state = data(client.post(f"{url}/switch"))
        said[state["version"]] = state
    logged()
    # What the nearest snapshot makes needless is not read.
    rows(db, "SET syncapp.allow_changes = on; UPDATE sync_events SET patch = '{}' WHERE version < 200; SELECT 1")
    for version in (200, 201, 227, 250):
        past = data(client.get(f"{url}/at?version={version}"))
        assert past["participants"] == said[version]["participants"]
        assert past["clock"] == said[version]["clock"]
    at_ms = ms_of(said[226]["updated_at"])
    assert data(client.get(f"{url}/at?time={at_ms}"))["participants"] == said[226]["participants"]


def test_python_knows_how_often_scripts_write_a_snapshot() -> None:
    assert f"SNAPSHOT_EVERY = {SNAPSHOT_EVERY}\n" in (LUA_DIR / "_commit.lua").read_text()


def test_an_event_that_is_missing_from_the_log_is_named_and_nothing_is_made_up(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int], db: Db
) -> None:
    url, _ = play(client, clock)
    logged()
    rows(db, "SET syncapp.allow_changes = on; DELETE FROM sync_events WHERE version = 4; SELECT 1")
    assert data(client.get(f"{url}/at?version=3"))["version"] == 3
    for path in ("at?version=4", "at?version=6"):
        refused = error(client.get(f"{url}/{path}"), 503, "AUDIT_INCOMPLETE")
        assert (refused["details"]["epoch"], refused["details"]["version"]) == (NOON_MS, 4)
    rows(db, "DELETE FROM sync_events WHERE version = 1; SELECT 1")
    assert error(client.get(f"{url}/at?version=3"), 503, "AUDIT_INCOMPLETE")["details"]["version"] == 1


def test_the_history_lists_sessions_by_status_mode_and_time_page_by_page(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int]
) -> None:
    made: list[str] = []
    for number, mode in enumerate(list(MODES) * 3):
        clock.pass_ms(1000)
        url = client.post("/v1/sessions", json=MODES[mode]).headers["Location"]
        made.append(url.rsplit("/", 1)[1])
        if number % 3 == 0:
            client.post(f"{url}/cancel")
    logged()

    def listed(query: str) -> list[str]:
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            answer = client.get(f"/v1/history?{query}&limit=4{cursor and f'&cursor={cursor}'}")
            HistoryAnswer.model_validate_json(answer.data)
            page = data(answer)
            assert len(page["sessions"]) <= 4
            found += [session["session_id"] for session in page["sessions"]]
            cursor = page["next_cursor"]
        return found

    assert listed("") == made[::-1]
    assert listed("status=cancelled") == made[12::-3]
    assert listed("status=cancelled&status=pending") == made[::-1]
    assert listed("status=running") == []
    assert listed("sync_mode=global") == made[3::5][::-1]
    assert listed("sync_mode=global&sync_mode=count_up&status=pending") == [made[14], made[13], made[8], made[4]]
    third, fifth = NOON_MS + 3000, NOON_MS + 5000
    for name in ("created", "updated"):
        assert listed(f"{name}_from={third}&{name}_to={fifth}") == made[2:4][::-1]
        assert listed(f"{name}_from={iso(third)}&{name}_to={iso(fifth)}") == made[2:4][::-1]
    (first,) = data(client.get(f"/v1/history?updated_to={NOON_MS + 1001}"))["sessions"]
    assert (first["session_id"], first["status"], first["version"]) == (made[0], "cancelled", 2)
    assert first["created_at"] == first["completed_at"] == first["updated_at"] == iso(NOON_MS + 1000)


def test_sessions_changed_in_the_same_instant_are_each_listed_once(
    client: FlaskClient, logged: Callable[[], int]
) -> None:
    made = {client.post("/v1/sessions", json=CHESS).get_json()["data"]["session_id"] for _ in range(7)}
    logged()
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = data(client.get(f"/v1/history?limit=2{cursor and f'&cursor={cursor}'}"))
        found += [session["session_id"] for session in page["sessions"]]
        cursor = page["next_cursor"]
    assert sorted(found) == sorted(made)


def test_statistics_count_each_cycle_with_what_was_charged_to_it(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int]
) -> None:
    url, said = play(client, clock)
    logged()
    answer = client.get(f"{url}/statistics")
    StatisticsAnswer.model_validate_json(answer.data)
    found = data(answer)
    white, black = found["participants"]
    # White: 2000; then 250 before the pause and 3000 after it. Black: 1500; and 710 that were not ended by a switch.
    assert white == {
        "participant_id": "white", "cycles": 2, "total_ms": 5250, "mean_ms": 2625, "longest_ms": 3250, "open_ms": 0,
    }  # fmt: skip
    assert black == {
        "participant_id": "black", "cycles": 1, "total_ms": 2210, "mean_ms": 1500, "longest_ms": 1500, "open_ms": 710,
    }  # fmt: skip
    assert (found["cycles"], found["total_ms"], found["mean_ms"]) == (3, 7460, 2250)
    for person, told in zip(said[-1]["participants"], found["participants"], strict=True):
        assert (person["cycle_count"], person["time_used_ms"]) == (told["cycles"], told["total_ms"])


def test_statistics_of_a_session_without_turns_or_without_cycles(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int]
) -> None:
    url = client.post("/v1/sessions", json=MODES["global"]).headers["Location"]
    pending = client.post("/v1/sessions", json=CHESS).headers["Location"]
    for command in ("start", "switch", "pause"):
        client.post(f"{url}/{command}")
        clock.pass_ms(1000)
    logged()
    found = data(client.get(f"{url}/statistics"))
    assert found["participants"] == []
    assert (found["cycles"], found["total_ms"], found["longest_ms"], found["open_ms"]) == (1, 2000, 1000, 1000)
    found = data(client.get(f"{pending}/statistics"))
    assert [(person["cycles"], person["mean_ms"]) for person in found["participants"]] == [(0, None), (0, None)]


def test_statistics_are_of_the_newest_life(client: FlaskClient, clock: SetClock, logged: Callable[[], int]) -> None:
    session_id = str(uuid.uuid4())
    url, _ = play(client, clock, session_id=session_id)
    client.delete(url)
    clock.pass_ms(1)
    client.post("/v1/sessions", json=CHESS | {"session_id": session_id})
    client.post(f"{url}/start")
    clock.pass_ms(5)
    client.post(f"{url}/switch")
    logged()
    found = data(client.get(f"{url}/statistics"))
    assert (found["cycles"], found["total_ms"], found["epoch"]) == (1, 5, clock.now_ms - 5)


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
def test_an_export_is_compressed_while_it_is_read(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int], form: str
) -> None:
    url, _ = play(client, clock)
    logged()
    plain = client.get(f"{url}/export?format={form}")
    packed = client.get(f"{url}/export?format={form}", headers={"Accept-Encoding": "gzip"})
    assert (plain.headers["Vary"], packed.headers["Vary"]) == ("Accept-Encoding",) * 2
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Length" not in packed.headers
    assert gzip.decompress(packed.data) == plain.data


def test_an_export_has_every_event_in_every_form(
    client: FlaskClient, clock: SetClock, logged: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncapp.history.queries.EXPORT_ROWS", 4)
    url, _ = play(client, clock)
    session_id = url.rsplit("/", 1)[1]
    logged()
    events = data(client.get(f"{url}/events"))["events"]
    forms = {}
    for form, content_type in (
        ("json", "application/json"),
        ("ndjson", "application/x-ndjson"),
        ("csv", "text/csv; charset=utf-8"),
    ):
        answer = client.get(f"{url}/export?format={form}")
        assert answer.status_code == 200
        assert answer.content_type == content_type
        assert "Content-Length" not in answer.headers  # nobody has read it to the end
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
    client: FlaskClient, clock: SetClock, logged: Callable[[], int]
) -> None:
    people = [{"participant_id": name, "total_time_ms": 1000} for name in ("@SUM", "-1-1")]
    body = CHESS | {"participants": people, "action_on_timeout": {"type": "notify"}}
    url = client.post("/v1/sessions", json=body).headers["Location"]
    client.post(f"{url}/start", headers={"X-Request-Id": "-2.3"})
    clock.pass_ms(3000)
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


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("events?limit=0&from=soon&cursor=x&type=A&colour=red", {
            "limit": "greater_than_equal", "from": "instant", "cursor": "cursor", "type": "string_pattern_mismatch",
            "colour": "extra_forbidden"}),
        ("events?limit=1001&limit=2", {"limit": "repeated"}),
        ("events?limit=1001&to=2&to=3", {"limit": "less_than_equal", "to": "repeated"}),
        ("events?from=2&to=1", {"from": "backwards"}),
        ("events?from=2026-01-01T00:00:00", {"from": "instant"}),
        ("events?from=2026-02-30T00:00:00Z", {"from": "instant"}),
        ("events?from=-1", {"from": "greater_than_equal"}),
        ("events?limit=1e2", {"limit": "int_type"}),
        ("events?since=1", {"since": "extra_forbidden"}),
        ("at", {"time": "one_of"}),
        ("at?time=1&version=1", {"time": "one_of"}),
        ("at?time=1&epoch=1", {"epoch": "needs_version"}),
        ("at?version=0", {"version": "greater_than_equal"}),
        ("at?version=white", {"version": "int_type"}),
        ("at?time=99999999999999999", {"time": "less_than_equal"}),
        ("statistics?limit=1", {"limit": "extra_forbidden"}),
        ("export?format=xml", {"format": "literal_error"}),
    ],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused_by_every_name(
    client: FlaskClient, path: str, found: dict[str, str]
) -> None:
    assert faults(client.get(f"/v1/sessions/{UNKNOWN}/{path}")) == found


def test_a_list_of_sessions_names_its_faults_too(client: FlaskClient) -> None:
    query = "status=asleep&sync_mode=chess&created_from=2&created_to=1&updated_from=x&limit=&cursor=1_2"
    assert faults(client.get(f"/v1/history?{query}")) == {
        "status": "literal_error", "sync_mode": "literal_error", "created_from": "backwards",
        "updated_from": "instant", "limit": "int_type", "cursor": "cursor",
    }  # fmt: skip


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(["events", "at", "statistics", "export", "history"]),
    query=st.lists(
        st.tuples(
            st.sampled_from(["type", "from", "to", "limit", "cursor", "time", "version", "epoch", "format", "status",
                             "sync_mode", "created_from", "updated_to", "updated_from"]) | st.text(max_size=5),
            st.integers(-(2**70), 2**70).map(str)
            | st.sampled_from(["1-1", "999999999999999-1", "json", "csv", "running", "global", "2026-01-01T00:00:00Z",
                               "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+14:00", "session_created", "\0",
                               f"253402300799999_{UNKNOWN}", f"99999999999999_{UNKNOWN}"])
            | st.text(max_size=8),
        ),
        max_size=4,
    ),
)  # fmt: skip
def test_nothing_a_client_asks_is_a_500(
    client: FlaskClient, played: str, path: str, query: list[tuple[str, str]]
) -> None:
    target = "/v1/history" if path == "history" else f"{played}/{path}"
    answer = client.get(target, query_string=query)
    assert answer.status_code < 500, answer.text
    assert answer.status_code != 404 or path == "at"
    if answer.status_code >= 400:
        error(answer, answer.status_code, "VALIDATION_ERROR" if answer.status_code == 400 else "SESSION_NOT_FOUND")


@pytest.fixture
def played(client: FlaskClient, clock: SetClock, logged: Callable[[], int]) -> str:
    url, _ = play(client, clock)
    logged()
    return url
