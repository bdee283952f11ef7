"""An evening of games, and the comparison of two builds, in a form so small that only their numbers are missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import against, evening, evening_plot, report
from bench.build import Build
from bench.hall import Played
from bench.measures import MEASURES
from bench.scale import QUICK
from bench.wire import Wire


@pytest.fixture(scope="module")
def build() -> Iterator[Build]:
    with Build() as found:
        yield found


@pytest.mark.parametrize("name", sorted(MEASURES.keys() - {"evening"}))
def test_a_measurement_yields_numbers(build: Build, name: str) -> None:
    build.flush()
    measure, _ = MEASURES[name]
    with measure(build, QUICK) as turn:
        found = turn()
    assert found
    assert all(each >= 0 for each in found.values())


def test_two_builds_are_measured_by_turns(build: Build) -> None:
    rounds: against.Rounds = []
    against.compare("memory", (build, build), QUICK, 2, rounds)
    key = ("memory of a session", "bytes")
    assert [ours.keys() == theirs.keys() == {key} for ours, theirs in rounds] == [True, True]
    assert against.rows(rounds)[0].startswith("| memory of a session | ")
    assert against.part("other", {"memory": rounds}).figures[0].floor == "other"


def test_an_evening_is_played_and_drawn(build: Build, tmp_path: Path) -> None:
    found = evening.play(build, evening.Shape(sockets=8, rate=20, seconds=1, processes=1, settle_s=0.2))
    count = len(found.played.deliveries)
    assert 0 < count <= 20
    assert set(found.cpu_us) == {"web", "store", "worker"}
    assert f"8 sockets, 20 switches/s: {count} deliveries, " in evening.table([found])
    assert evening_plot.draw(found, tmp_path / "now").name == "now-evening-8-20.svg"
    paths = report.write({"evening": evening.part([found])}, tmp_path, load_before=(0.0,), took_s=1.0)
    assert report.read(paths[0])["evening"].figures[0].count == len(found.waits_ms)


def test_a_tainted_delivery_is_reported_apart() -> None:
    deliveries = [(number * 1_000_000, 2_000_000 + number, number == 5) for number in range(100)]
    found = evening.Evening(evening.Shape(), 1.0, 40.0, {"web": 1.0}, Played(deliveries), [])
    assert (len(found.waits_ms), len(found.tainted_ms), evening.share(found)) == (99, 1, 1.0)
    assert {each.name for each in evening.part([found]).figures} >= {f"tainted, {found.shape.name}"}


def test_the_plot_has_a_point_for_each_50_ms_and_the_rarest_wait_at_its_end() -> None:
    points = evening_plot.bins(
        [(0, 1_000_000, False), (49_000_000, 3_000_000, True), (50_000_000, 2_000_000, False)], 0
    )
    assert points == {0.0: ([1.0, 3.0, 3.0], True), 0.05: ([2.0, 2.0, 2.0], False)}
    curve = evening_plot.exceeded([float(each) for each in range(1, 1001)])
    assert curve[0] == (1.0, 1.0)
    assert curve[-1] == (1000.0, 0.001)


def test_a_wire_reads_the_version_and_the_turn_of_an_update() -> None:
    text = b'{"type":"STATE_UPDATE","epoch":7,"version":12,"state":{"active_participant_id":"p1","version":12}}'
    assert Wire.moved in text
    assert Wire().move(text) == (12, 1)


def test_a_ratio_is_of_one_round_and_a_bound_is_on_the_side_of_the_better() -> None:
    fast, slow = ("GET, 64 connections", "requests/s"), ("memory of a session", "bytes")
    rounds: against.Rounds = [({fast: 30.0, slow: 102.0}, {fast: 10.0, slow: 100.0})] * 2
    assert against.ratios(rounds, fast) == [3.0, 3.0]
    assert [against.target(fast, each) for each in (2.2, 2.1)] == ["≥ 2.20 met", "≥ 2.20 missed"]
    assert [against.target(slow, each) for each in (1.02, 1.03)] == ["≤ 1.02 met", "≤ 1.02 missed"]
    assert against.target(("drain", "CPU µs"), 1.0) == ""
