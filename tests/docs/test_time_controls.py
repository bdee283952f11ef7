"""docs/time-controls.md says what the scripts do: its numbers, pictures and requests come from them, or run on them."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
from click.testing import CliRunner

from bench.time_controls import DOCS, DOCUMENT, written
from syncapp.cli import time_control
from syncapp.domain.command_bodies import CLOCK_CHANGES, Adjust, CommandBody, Reopen, Takeback
from syncapp.domain.notation import DIALECTS, format_control, parse
from syncapp.domain.notation.explain import summary
from syncapp.domain.schemas import CreateSession, LagCompensation
from syncapp.domain.time_control import Stage, TimeControl
from syncapp.store.sessions import SessionStore
from tests.support.captured_logs import capture_own_logs
from tests.support.store import NOON_MS, ManualClock, outbox_messages
from tests.support.types import Redis

TEXT = DOCUMENT.read_text()


def section(heading: str) -> str:
    level = heading.split(" ", maxsplit=1)[0]
    return re.split(rf"\n#{{2,{len(level)}}} ", TEXT.split(f"\n{heading}\n")[1])[0]


def blocks(text: str) -> list[str]:
    return re.findall(r"```json\n(.*?)```", text, re.DOTALL)


def rows(text: str) -> list[list[str]]:
    """Return the cells of all tables, without their headers."""
    lines = [line for line in text.splitlines() if re.match(r"\| `", line)]
    return [line.strip("| ").split(" | ") for line in lines]


def names(text: str) -> list[str]:
    return [re.findall(r"`(\w+)`", cells[0])[0] for cells in rows(text)]


BODIES = [json.loads(block) for block in blocks(TEXT) if block.startswith('{"sync_mode"')]
EVENTS = blocks(section("## Boundaries and their events"))


def test_the_clocks_and_pictures_of_all_examples_are_what_the_scripts_show(
    store: SessionStore, clock: ManualClock
) -> None:
    text, pictures = written(TEXT, store, clock)
    assert text == TEXT, "python -m bench.time_controls writes it"
    assert {path: (DOCS / path).read_text() for path in pictures} == pictures
    assert {f"images/time-controls/{path.name}" for path in (DOCS / "images/time-controls").iterdir()} == set(pictures)
    assert len(pictures) == 9


def test_each_kind_has_an_example_with_its_object() -> None:
    kinds = re.findall(r"^### (.+)$", section("## Kinds"), re.MULTILINE)
    examples = re.findall(r"^`(\w+:.+?)` is `(\{.+\})`:$", TEXT, re.MULTILINE)
    assert len(examples) == len(kinds) + 1  # the stages
    for notation, text in examples:
        assert TimeControl.parse(json.loads(text)).normalized() == parse(notation)


def test_the_tables_have_all_fields_of_a_control_with_their_limits() -> None:
    tables = section("## The object").split("A stage has these fields:")
    control, stage = TimeControl.model_json_schema()["properties"], Stage.model_json_schema()["properties"]
    assert [set(names(table)) for table in tables] == [set(control), set(stage)]
    for name, *cells in (cells for table in tables for cells in rows(table)):
        schema = (control | stage)[name.strip("`")]
        whole = next((each for each in [schema, *schema.get("anyOf", [])] if each.get("type") == "integer"), None)
        if whole:
            shown = [re.sub(r" \(default\)", "", end) for end in cells[0].split(" to ")]
            assert [_number(shown[0]), _number(shown[1])] == [whole["minimum"], whole["maximum"]], name
    default = TimeControl.parse({"stages": [{"time_ms": 1}]}).document()
    assert json.loads(blocks(tables[0])[0]) == default | {"stages": json.loads(blocks(tables[0])[0])["stages"]}


def _number(text: str) -> int:
    amount, _, unit = text.replace(",", "").partition(" ")
    return int(amount) * {"": 1, "ms": 1, "h": 3_600_000, "days": 86_400_000}[unit]


def test_every_dialect_has_an_example_that_means_what_is_said() -> None:
    table = rows(section("## Notations").split("How to choose:")[0])
    assert [cells[0].strip("`") for cells in table] == list(DIALECTS)
    for dialect, _, example, meaning in table:
        assert example.strip("`").startswith(f"{dialect.strip('`')}:")
        assert summary(parse(example.strip("`"))) == meaning


def test_every_part_of_our_own_notation_can_be_read() -> None:
    table = rows(section("## Notations").split("In `syncapp`,")[1])
    parts = [part for cells in table for part in re.findall(r"`([^`]+)`", cells[0])]
    assert len(parts) == 18
    for part in parts:
        if part.startswith(","):
            text = f"5m +1s{part}"
        elif part == "40 in 1h30m":
            text = f"{part}; 30m"
        else:
            text = part if " " in part.replace("90 min", "") else f"{part} then 1x1s"
        assert format_control(parse(f"syncapp:{text}"))


@pytest.mark.parametrize("line", re.findall(r"^\$ (.+)$", section("## Try it"), re.MULTILINE))
def test_the_commands_print_what_is_shown(line: str) -> None:
    stdin, _, command = line.rpartition(" | ")
    words = shlex.split(command or line)
    assert words[:3] == ["AUTH=off", ".venv/bin/flask", "time-control"]
    with capture_own_logs():
        done = CliRunner().invoke(time_control.commands(), words[3:], input=(shlex.split(stdin) or ["", ""])[1])
    assert done.exit_code == 0, done.output
    assert f"$ {line}\n{done.stdout}```" in TEXT


@pytest.mark.parametrize("body", BODIES, ids=lambda body: str(body["time_control"]))
def test_every_session_in_the_document_can_be_played(
    store: SessionStore, clock: ManualClock, body: dict[str, Any]
) -> None:
    session_id = store.create(CreateSession.parse(body)).found.session_id
    store.start(session_id)
    deadline_ms = 0
    for _ in range(6):
        clock.advance_ms(2500)
        played = store.switch(session_id)
        deadline_ms = played.found.clock(clock.now_ms)["deadline_ms"]
    state = store.get(session_id).found.state(clock.now_ms)
    assert state["time_control_notation"] == format_control(parse(body["time_control"]))
    clock.set(deadline_ms + 1000)
    assert store.get(session_id).found.status == "expired"


def test_there_are_eight_sessions_ready_to_use() -> None:
    assert len(blocks(section("## Ready to use"))) == 8


@pytest.mark.parametrize(
    ("number", "moves", "left_ms"),
    [
        (0, [1000] * 40, 5_400_000 + 40 * 29_000 + 1_800_000),
        (1, [1000], 300_000 + 2000),
        (2, [1000], 1_799_000 + 5 * 30_000),
        (3, [1000], 539_000 + 600_000),
        (5, [1000], 303_000 - 1000 + 3000 + 1000),
        (6, [1000], 259_200_000),
        (7, [1000], 59_000),
    ],
)
def test_after_its_first_moves_a_player_of_these_sessions_has_so_long_until_the_flag(
    store: SessionStore, clock: ManualClock, number: int, moves: list[int], left_ms: int
) -> None:
    given = CreateSession.parse(json.loads(blocks(section("## Ready to use"))[number]))
    session_id = store.create(given).found.session_id
    store.start(session_id)
    for spent_ms in moves:
        clock.advance_ms(spent_ms)
        store.switch(session_id)
        store.switch(session_id)  # the other player does not think
    assert store.get(session_id).found.clock(clock.now_ms)["deadline_ms"] == clock.now_ms + left_ms


def test_a_move_of_less_than_a_minute_costs_nothing_in_the_title_match(store: SessionStore, clock: ManualClock) -> None:
    body = json.loads(blocks(section("## Ready to use"))[4])
    session_id = store.create(CreateSession.parse(body)).found.session_id
    store.start(session_id)
    for spent_ms, left_ms in ((59_999, 28_800_000), (119_999, 28_740_000)):
        clock.advance_ms(spent_ms)
        session = store.switch(session_id).found
        assert session.participants[0].time_remaining_ms == left_ms
        store.switch(session_id)


def played(store: SessionStore, clock: ManualClock, redis: Redis, notation: str, *moves: int) -> list[dict[str, Any]]:
    """Play moves; return the events without their instants."""
    people = [{"participant_id": "white"}, {"participant_id": "black"}]
    body = {"sync_mode": "per_participant", "participants": people, "time_control": notation}
    session_id = store.create(CreateSession.parse(body)).found.session_id
    store.start(session_id)
    for spent_ms in moves:
        clock.advance_ms(spent_ms)
        store.switch(session_id)
    store.get(session_id)
    events = [dict(message["event"]) for message in outbox_messages(redis, session_id)]
    return [{name: value for name, value in event.items() if name != "at_ms"} for event in events]


def shown(block: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in block.splitlines()]


def test_the_events_of_byo_yomi_are_those_of_the_example(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    events = played(store, clock, redis, "sgf:10 3x5 byo-yomi", 4000, 6000, 8500, 3000, 11_000)
    assert events[4:9] == shown(EVENTS[0])


def test_the_events_of_stages_are_those_of_the_example(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    events = played(store, clock, redis, "pgn:3/20+2:10+2", 5000, 4000, 8000, 3000, 6000, 2000)
    assert events[-4:] == shown(EVENTS[1])


def test_the_events_of_blocks_are_those_of_the_example(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    events = played(store, clock, redis, "sgf:10 3/12 Canadian", 13_000, 6000, 4000, 3000, 2000)
    first = next(event for event in events if event["type"] == "block_started")
    assert [first, *events[-2:]] == shown(EVENTS[2])


def test_the_events_table_has_every_boundary() -> None:
    assert names(section("## Boundaries and their events")) == [
        "period_started", "period_lost", "block_started", "stage_entered"
    ]  # fmt: skip


def test_the_members_of_a_state_and_its_clock_are_all_named(store: SessionStore, clock: ManualClock) -> None:
    body = next(body for body in BODIES if "lag_compensation" in body)
    session_id = store.create(CreateSession.parse(body)).found.session_id
    state = store.start(session_id).found.state(clock.now_ms)
    owners, running = section("## What the state shows").split("`clock` is the clock that runs")
    plain = {"participant_id", "participant_index", "total_time_ms", "time_used_ms", "cycle_count", "is_active"}
    assert set(names(owners)) == set(state["participants"][0]) - plain - {"has_expired"}
    assert set(names(running)) == set(state["clock"]) - {"scope", "direction", "running", "elapsed_ms"}


def test_the_clock_in_a_period_is_that_of_the_example(store: SessionStore, clock: ManualClock) -> None:
    people = [{"participant_id": "white"}, {"participant_id": "black"}]
    body = {"sync_mode": "per_participant", "participants": people, "time_control": "sgf:10 3x5 byo-yomi"}
    session_id = store.create(CreateSession.parse(body)).found.session_id
    store.start(session_id)
    for spent_ms in (4000, 6000):
        clock.advance_ms(spent_ms)
        store.switch(session_id)
    clock.set(NOON_MS + 18_000)
    (example,) = blocks(section("## What the state shows"))
    assert str(clock.now_ms) in section("## What the state shows")
    assert store.get(session_id).found.clock(clock.now_ms) == json.loads(example)


def test_lag_is_compensated_as_in_the_example(store: SessionStore, clock: ManualClock) -> None:
    body, event = blocks(section("## Lag compensation"))
    session_id = store.create(CreateSession.parse(json.loads(body))).found.session_id
    store.start(session_id)
    clock.advance_ms(1300)
    done = store.switch(session_id, acted_at_ms=clock.now_ms - 300)
    assert dict(done.event or {}) == json.loads(event) | {"at_ms": clock.now_ms}
    assert done.found.clocks[0].lag_left_ms == 300
    for name, field in LagCompensation.model_json_schema()["properties"].items():
        assert name in section("## Lag compensation")
        assert field["maximum"] == 10_000


def test_a_move_without_a_measured_connection_is_charged_in_full(store: SessionStore, clock: ManualClock) -> None:
    body, _ = blocks(section("## Lag compensation"))
    session_id = store.create(CreateSession.parse(json.loads(body))).found.session_id
    store.start(session_id)
    clock.advance_ms(1300)
    assert (store.switch(session_id, spent_ms=1000).event or {})["lag_ms"] == 0


def test_a_flag_waits_for_a_move_on_its_way_and_falls_at_its_own_instant(
    store: SessionStore, clock: ManualClock
) -> None:
    body, _ = blocks(section("## Lag compensation"))
    session_id = store.create(CreateSession.parse(json.loads(body))).found.session_id
    store.start(session_id)
    clock.advance_ms(180_499)
    waiting = store.get(session_id).found
    assert (waiting.status, waiting.clock(clock.now_ms)["remaining_ms"]) == ("running", 0)
    clock.advance_ms(1)
    expired = store.get(session_id).found
    assert (expired.status, expired.session_completed_ms) == ("expired", NOON_MS + 180_000)


def test_the_arbiters_fields_and_requests_are_accepted(store: SessionStore, clock: ManualClock) -> None:
    text = section("## The arbiter's tools")
    assert set(names(text)) == {"targets", *CLOCK_CHANGES}
    assert {"op", "ms", "reason", *names(text)} <= set(Adjust.model_fields) - set(CommandBody.model_fields)
    adjustments, takeback, reopen = blocks(text)
    body = json.loads(blocks(section("## Ready to use"))[0])
    session_id = store.create(CreateSession.parse(body)).found.session_id
    store.start(session_id)
    for line in adjustments.splitlines():
        store.adjust(session_id, **Adjust.parse(json.loads(line)).changes())
    session = store.get(session_id).found
    assert session.clocks[0].moves_left == 12
    assert [each.time_remaining_ms for each in session.participants] == [5_520_000, 5_520_000]
    for _ in range(3):  # the turn of the adjustment cannot be taken back
        clock.advance_ms(1000)
        store.switch(session_id)
    asked = Takeback.parse(json.loads(takeback))
    assert store.takeback(session_id, cycles=asked.cycles, reason=asked.reason).found.cycle_count == 1
    store.complete(session_id)
    assert store.reopen(session_id, reason=Reopen.parse(json.loads(reopen)).reason).found.status == "paused"


def test_facts_about_other_systems_are_linked_to_public_sources() -> None:
    table = section("## What other servers do differently")
    links = re.findall(r"\]\((\S+)\)", table)
    assert len(links) >= 8
    assert all(link.startswith("https://github.com/") for link in links)
