"""`GET /v1/sessions/<id>/text`: the clock as text for people."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from syncapp.domain.clock_text import FORMATS, format_time
from tests.support.rest import CHESS, UNKNOWN, expect_error, expect_faults
from tests.support.store import ManualClock

TEAMS = {
    "sync_mode": "per_group",
    "participants": [{"participant_id": name, "group_id": name.upper(), "total_time_ms": 60_000} for name in "ab"],
}
NOTIFY = {"action_on_timeout": {"type": "notify"}}


def made(client: FlaskClient, *commands: str, **body: Any) -> str:
    path: str = client.post("/v1/sessions", json=body or CHESS).headers["Location"]
    for command in commands:
        assert client.post(f"{path}/{command}").status_code == 200
    return path


def text(client: FlaskClient, path: str, query: str = "") -> str:
    answer = client.get(f"{path}/text{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.content_type == "text/plain; charset=utf-8"
    return answer.text


@pytest.mark.parametrize(
    ("ms", "down", "shown"),
    [
        (0, True, "00:00 0:00 00:00:00 0:00:00 00 00:00.0"),
        (1, True, "00:01 0:01 00:00:01 0:00:01 01 00:00.1"),
        (1000, True, "00:01 0:01 00:00:01 0:00:01 01 00:01.0"),
        (59_950, True, "01:00 1:00 00:01:00 0:01:00 60 01:00.0"),
        (59_901, True, "01:00 1:00 00:01:00 0:01:00 60 01:00.0"),
        (59_900, True, "01:00 1:00 00:01:00 0:01:00 60 00:59.9"),
        (300_000, True, "05:00 5:00 00:05:00 0:05:00 300 05:00.0"),
        (5_400_000, True, "90:00 90:00 01:30:00 1:30:00 5400 90:00.0"),
        (360_000_000, True, "6000:00 6000:00 100:00:00 100:00:00 360000 6000:00.0"),
        (-1, True, "00:00 0:00 00:00:00 0:00:00 00 00:00.0"),
        (-999, True, "00:00 0:00 00:00:00 0:00:00 00 -00:00.9"),
        (-1000, True, "-00:01 -0:01 -00:00:01 -0:00:01 -01 -00:01.0"),
        (-61_500, True, "-01:01 -1:01 -00:01:01 -0:01:01 -61 -01:01.5"),
        (999, False, "00:00 0:00 00:00:00 0:00:00 00 00:00.9"),
        (3_661_999, False, "61:01 61:01 01:01:01 1:01:01 3661 61:01.9"),
    ],
)
def test_a_time_is_written_in_every_format(ms: int, down: bool, shown: str) -> None:
    assert [format_time(ms, form, down=down) for form in FORMATS] == shown.split()


@given(st.integers(-10_000_000_000, 100_000_000_000), st.sampled_from(FORMATS), st.booleans())
def test_what_is_written_is_the_time_to_its_unit(ms: int, form: str, down: bool) -> None:
    shown = format_time(ms, form, down=down)
    value = 0.0
    for part in shown.removeprefix("-").split(":"):
        value = value * 60 + float(part)
    value = -value if shown.startswith("-") else value
    unit_ms = 100 if form.endswith("t") else 1000
    behind = round(value * 1000) - ms
    assert 0 <= (behind if down else -behind) < unit_ms
    assert not (shown.startswith("-") and value == 0)


def test_the_running_clock_is_shown_live(client: FlaskClient, clock: ManualClock) -> None:
    path = made(client, "start")
    assert text(client, path) == "05:00"
    clock.advance_ms(1)
    assert text(client, path) == "05:00"
    clock.advance_ms(60_999)
    assert text(client, path) == "03:59"
    assert text(client, path, "?format=mm:ss.t") == "03:59.0"
    client.post(f"{path}/switch")
    assert text(client, path) == "05:00"
    clock.advance_ms(1500)
    assert text(client, path) == "04:59"


def test_a_clock_that_stands_shows_what_it_stands_at(client: FlaskClient, clock: ManualClock) -> None:
    assert text(client, made(client)) == "05:00"
    path = made(client, "start")
    clock.advance_ms(30_000)
    client.post(f"{path}/pause")
    clock.advance_ms(30_000)
    assert text(client, path) == "04:30"
    client.post(f"{path}/complete")
    assert text(client, path) == "04:30"
    flagged = made(client, "start")
    clock.advance_ms(400_000)
    assert text(client, flagged) == "00:00"


@pytest.mark.parametrize(
    ("body", "running"),
    [
        ({"sync_mode": "global", "total_time_ms": 90_000}, "01:17"),
        ({"sync_mode": "per_cycle", "time_per_cycle_ms": 20_000}, "00:07"),
        ({"sync_mode": "count_up"}, "00:13"),
        ({"sync_mode": "count_up", "max_time_ms": 60_000}, "00:13"),
        ({"sync_mode": "global", "total_time_ms": 10_000} | NOTIFY, "-00:03"),
        (TEAMS, "00:47"),
    ],
)
def test_every_mode_shows_its_own_clock(
    client: FlaskClient, clock: ManualClock, body: dict[str, Any], running: str
) -> None:
    path = made(client, "start", **body)
    clock.advance_ms(13_400)
    assert text(client, path) == running
    client.post(f"{path}/pause")
    clock.advance_ms(5000)
    assert text(client, path) == running


def test_an_owner_can_be_chosen(client: FlaskClient, clock: ManualClock) -> None:
    path = made(client, "start")
    teams = made(client, "start", **TEAMS)
    talk = made(client, "start", sync_mode="count_up", participants=[{"participant_id": "a"}, {"participant_id": "b"}])
    clock.advance_ms(10_000)
    assert [text(client, path, f"?participant_id={name}") for name in ("white", "black")] == ["04:50", "05:00"]
    assert [text(client, teams, f"?participant_id={name}") for name in "ab"] == ["00:50", "01:00"]
    assert [text(client, teams, f"?group_id={name}") for name in "AB"] == ["00:50", "01:00"]
    assert [text(client, talk, f"?participant_id={name}") for name in "ab"] == ["00:10", "00:00"]


def test_an_array_of_one_string_is_what_some_programs_want(client: FlaskClient) -> None:
    path = made(client)
    answer = client.get(f"{path}/text?as=array&format=h:mm:ss")
    assert (answer.content_type, answer.get_json()) == ("application/json", ["0:05:00"])
    assert answer.headers["Cache-Control"] == "no-store"
    assert text(client, path, "?as=text") == "05:00"


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("format=s", {"format": "literal_error"}),
        ("format=MM:SS", {"format": "literal_error"}),
        ("format=mm:ss&format=ss", {"format": "repeated"}),
        ("as=list&format=", {"as": "literal_error", "format": "literal_error"}),
        ("participant_id=nobody", {"participant_id": "unknown_participant"}),
        ("group_id=A", {"group_id": "not_in_mode"}),
        ("participant_id=white&group_id=A", {"group_id": "contradiction"}),
        ("pretty=1", {"pretty": "extra_forbidden"}),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(client: FlaskClient, query: str, fault: dict[str, str]) -> None:
    assert expect_faults(client.get(f"{made(client)}/text?{query}")) == fault


def test_an_unknown_group_and_an_unknown_session_are_told(client: FlaskClient) -> None:
    path = made(client, **TEAMS)
    assert expect_faults(client.get(f"{path}/text?group_id=C")) == {"group_id": "unknown_group"}
    expect_error(client.get(f"/v1/sessions/{UNKNOWN}/text"), 404, "SESSION_NOT_FOUND")
    assert expect_faults(client.get("/v1/sessions/x/text")) == {"session_id": "uuid"}
