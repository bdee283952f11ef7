"""The history over REST: events, past states and sessions, from the log alone."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py
from flask.testing import FlaskClient

from syncapp import create_app
from syncapp.api.reference.history_schemas import EventsAnswer, HistoryAnswer, PastAnswer
from syncapp.domain.instants import iso, ms_of
from syncapp.history.replay import SNAPSHOT_EVERY
from syncapp.store.scripts import LUA_DIR
from tests.support.audit_log import query_rows
from tests.support.played_game import answer_data, play_game
from tests.support.rest import CHESS, MODES, UNKNOWN, expect_error, expect_faults
from tests.support.store import NOON_MS, ManualClock, make_settings
from tests.support.types import Db


def test_events_are_told_as_they_happened_and_page_by_page(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int]
) -> None:
    url, said = play_game(client, clock)
    logged()
    answer = client.get(f"{url}/events")
    EventsAnswer.model_validate_json(answer.data)
    whole = answer_data(answer)
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
        page = answer_data(client.get(f"{url}/events?limit=2{cursor and f'&cursor={cursor}'}"))
        assert len(page["events"]) <= 2
        paged += page["events"]
        cursor = page["next_cursor"]
    assert paged == whole["events"]


def test_events_are_told_newest_first_page_by_page(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int]
) -> None:
    body = CHESS | {"session_id": str(uuid.uuid4())}
    url = client.post("/v1/sessions", json=body).headers["Location"]
    clock.advance_ms(1000)
    client.post(f"{url}/start")
    client.delete(url)
    clock.advance_ms(1000)
    client.post("/v1/sessions", json=body)
    client.post(f"{url}/start")
    logged()
    whole = answer_data(client.get(f"{url}/events"))["events"]
    assert answer_data(client.get(f"{url}/events?order=newest_first"))["events"] == whole[::-1]
    paged: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = answer_data(client.get(f"{url}/events?order=newest_first&limit=2{cursor and f'&cursor={cursor}'}"))
        paged += page["events"]
        cursor = page["next_cursor"]
    assert paged == whole[::-1]
    assert expect_faults(client.get(f"{url}/events?order=newest"))["order"]


def test_events_are_filtered_by_type_and_by_time(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int]
) -> None:
    url, said = play_game(client, clock)
    logged()

    def versions(query: str) -> list[int]:
        return [event["version"] for event in answer_data(client.get(f"{url}/events?{query}"))["events"]]

    assert versions("type=cycle_switched&type=session_paused") == [3, 4, 5, 7]
    third, fifth = said[2]["updated_at"], said[4]["updated_at"]
    assert versions(f"from={third}&to={fifth}") == [3, 4]
    assert versions(f"from={ms_of(third)}&to={ms_of(fifth)}") == [3, 4]
    assert versions("from=2100-01-01T14:00:00%2B02:00") == versions("from=2100-01-01T14:00:00+02:00")
    assert versions("type=session_expired") == []


def test_a_session_is_told_of_after_redis_has_forgotten_it_and_a_404_when_the_log_never_knew_it(
    client: FlaskClient, clock: ManualClock, redis: redis_py.Redis, logged: Callable[[], int]
) -> None:
    url, _ = play_game(client, clock)
    logged()
    redis.flushdb()
    clock.set(clock.now_ms)
    expect_error(client.get(url), 404, "SESSION_NOT_FOUND")
    assert len(answer_data(client.get(f"{url}/events"))["events"]) == 9
    assert answer_data(client.get(f"{url}/at?version=9"))["status"] == "completed"
    assert answer_data(client.get(f"{url}/statistics"))["cycles"] == 3
    assert len(answer_data(client.get(f"{url}/export"))["events"]) == 9
    for path in ("events", "at?version=1", f"at?time={NOON_MS}", "statistics", "export", "export?format=csv"):
        expect_error(client.get(f"/v1/sessions/{UNKNOWN}/{path}"), 404, "SESSION_NOT_FOUND")
        assert expect_faults(client.get(f"/v1/sessions/17/{path}")) == {"session_id": "uuid"}


@pytest.mark.parametrize("mode", MODES)
def test_a_past_state_and_its_clocks_are_what_redis_said_then(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int], mode: str
) -> None:
    made = client.post("/v1/sessions", json=MODES[mode] | {"metadata": {"big": 9007199254740993, "list": []}})
    url = made.headers["Location"]
    said = {clock.now_ms: answer_data(client.get(url))}
    for step, command in enumerate(("start", "switch", "pause", "resume", "", "switch", "", "complete", "")):
        clock.advance_ms(777 * (step + 1))
        assert not command or client.post(f"{url}/{command}").status_code == 200
        said[clock.now_ms] = answer_data(client.get(url))
        clock.advance_ms(step + 1)
        said[clock.now_ms] = answer_data(client.get(url))
    logged()
    for at_ms, state in said.items():
        answer = client.get(f"{url}/at?time={at_ms}")
        PastAnswer.model_validate_json(answer.data)
        past = answer_data(answer)
        clocks, event = past.pop("clocks"), past.pop("event")
        assert past == state
        assert event["at_ms"] == ms_of(state["updated_at"])
        _expect_clocks(clocks, state)
        iso_asked = answer_data(client.get(f"{url}/at?time={iso(at_ms)}"))
        assert iso_asked["clock"] == state["clock"]
        at_version = answer_data(client.get(f"{url}/at?version={state['version']}"))
        assert at_version["version"] == state["version"]
        assert at_version["server_time_ms"] == ms_of(state["updated_at"])
        assert at_version["participants"] == state["participants"]


def _expect_clocks(clocks: dict[str, Any], state: dict[str, Any]) -> None:
    """Check the clocks against the settled state and the live clock."""
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
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int]
) -> None:
    url = client.post("/v1/sessions", json=CHESS).headers["Location"]
    assert client.get(f"{url}/at?version=1").get_json()["error"]["code"] == "AUDIT_INCOMPLETE"
    clock.advance_ms(10)
    client.post(f"{url}/start")
    logged()
    started_ms = clock.now_ms
    clock.advance_ms(10)
    client.post(f"{url}/switch")
    assert answer_data(client.get(f"{url}/at?version=2"))["version"] == 2
    for late in (f"time={clock.now_ms}", "version=3"):
        answer = client.get(f"{url}/at?{late}")
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "AUDIT_INCOMPLETE")
        assert answer.headers["Retry-After"] == "1"
    logged()
    assert answer_data(client.get(f"{url}/at?time={clock.now_ms}"))["version"] == 3
    assert answer_data(client.get(f"{url}/at?time={started_ms}"))["version"] == 2
    assert client.get(f"{url}/at?version=4").status_code == 404


def test_a_timeout_that_was_noticed_late_is_told_from_its_deadline_on(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int]
) -> None:
    url = client.post("/v1/sessions", json=CHESS).headers["Location"]
    client.post(f"{url}/start")
    clock.advance_ms(500_000)
    client.get(url)
    logged()
    before = answer_data(client.get(f"{url}/at?time={NOON_MS + 299_999}"))
    assert (before["status"], before["clock"]["remaining_ms"]) == ("running", 1)
    after = answer_data(client.get(f"{url}/at?time={NOON_MS + 300_000}"))
    assert (after["status"], after["event"]["type"]) == ("expired", "participant_expired")


def test_each_life_of_a_session_is_told_of_in_its_time(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int]
) -> None:
    body = CHESS | {"session_id": str(uuid.uuid4()), "metadata": {"life": 1}}
    url = client.post("/v1/sessions", json=body).headers["Location"]
    clock.advance_ms(1000)
    client.post(f"{url}/start")
    clock.advance_ms(1000)
    client.delete(url)
    clock.advance_ms(1000)
    client.post("/v1/sessions", json=body | {"metadata": {"life": 2}})
    logged()
    clock.advance_ms(10_000)

    def life(at_ms: int) -> Any:
        return answer_data(client.get(f"{url}/at?time={at_ms}"))["metadata"]["life"]

    assert [life(NOON_MS), life(NOON_MS + 1999), life(NOON_MS + 3000), life(clock.now_ms)] == [1, 1, 2, 2]
    for gone in (NOON_MS + 2000, NOON_MS + 2999):
        refused = expect_error(client.get(f"{url}/at?time={gone}"), 404, "SESSION_NOT_FOUND")
        assert refused["message"] == f"this session was deleted at {iso(NOON_MS + 2000)}"
    expect_error(client.get(f"{url}/at?time={NOON_MS - 1}"), 404, "SESSION_NOT_FOUND")
    assert answer_data(client.get(f"{url}/at?version=1"))["metadata"] == {"life": 2}
    assert answer_data(client.get(f"{url}/at?version=2&epoch={NOON_MS}"))["status"] == "running"
    expect_error(client.get(f"{url}/at?version=2"), 404, "SESSION_NOT_FOUND")
    expect_error(client.get(f"{url}/at?version=3&epoch={NOON_MS}"), 404, "SESSION_NOT_FOUND")
    expect_error(client.get(f"{url}/at?version=4&epoch={NOON_MS}"), 404, "SESSION_NOT_FOUND")
    expect_error(client.get(f"{url}/at?version=1&epoch=7"), 404, "SESSION_NOT_FOUND")
    assert expect_faults(client.get(f"{url}/at?time={clock.now_ms + 1}")) == {"time": "in_future"}


def test_the_past_is_told_while_redis_is_away(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int], database_url: str
) -> None:
    url, _ = play_game(client, clock)
    logged()
    away = create_app(
        make_settings("redis://127.0.0.1:1/0", redis_timeout_s=0.2, database_url=database_url)
    ).test_client()
    assert answer_data(away.get(f"{url}/at?version=9"))["status"] == "completed"
    expect_error(away.get(f"{url}/at?time=1000"), 404, "SESSION_NOT_FOUND")
    assert expect_faults(away.get(f"{url}/at?time={NOON_MS}")) == {"time": "in_future"}


def test_a_long_session_is_told_of_from_its_nearest_snapshot(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int], db: Db
) -> None:
    url = client.post("/v1/sessions", json=CHESS).headers["Location"]
    client.post(f"{url}/start")
    said = {}
    for _ in range(2 * SNAPSHOT_EVERY + 50):
        clock.advance_ms(7)
        state = answer_data(client.post(f"{url}/switch"))
        said[state["version"]] = state
    logged()
    # Rows before the nearest snapshot are not read.
    query_rows(db, "SET syncapp.allow_changes = on; UPDATE sync_events SET patch = '{}' WHERE version < 200; SELECT 1")
    for version in (200, 201, 227, 250):
        past = answer_data(client.get(f"{url}/at?version={version}"))
        assert past["participants"] == said[version]["participants"]
        assert past["clock"] == said[version]["clock"]
    at_ms = ms_of(said[226]["updated_at"])
    assert answer_data(client.get(f"{url}/at?time={at_ms}"))["participants"] == said[226]["participants"]


def test_python_knows_how_often_scripts_write_a_snapshot() -> None:
    assert f"SNAPSHOT_EVERY = {SNAPSHOT_EVERY}\n" in (LUA_DIR / "_commit.lua").read_text()


def test_an_event_that_is_missing_from_the_log_is_named_and_nothing_is_made_up(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int], db: Db
) -> None:
    url, _ = play_game(client, clock)
    logged()
    query_rows(db, "SET syncapp.allow_changes = on; DELETE FROM sync_events WHERE version = 4; SELECT 1")
    assert answer_data(client.get(f"{url}/at?version=3"))["version"] == 3
    for path in ("at?version=4", "at?version=6"):
        refused = expect_error(client.get(f"{url}/{path}"), 503, "AUDIT_INCOMPLETE")
        assert (refused["details"]["epoch"], refused["details"]["version"]) == (NOON_MS, 4)
    query_rows(db, "DELETE FROM sync_events WHERE version = 1; SELECT 1")
    assert expect_error(client.get(f"{url}/at?version=3"), 503, "AUDIT_INCOMPLETE")["details"]["version"] == 1


def test_the_history_lists_sessions_by_status_mode_and_time_page_by_page(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int]
) -> None:
    made: list[str] = []
    for number, mode in enumerate(list(MODES) * 3):
        clock.advance_ms(1000)
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
            page = answer_data(answer)
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
    (first,) = answer_data(client.get(f"/v1/history?updated_to={NOON_MS + 1001}"))["sessions"]
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
        page = answer_data(client.get(f"/v1/history?limit=2{cursor and f'&cursor={cursor}'}"))
        found += [session["session_id"] for session in page["sessions"]]
        cursor = page["next_cursor"]
    assert sorted(found) == sorted(made)
