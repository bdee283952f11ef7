"""The benchmark calculates correctly, and its documents name existing tests."""

from __future__ import annotations

import importlib
import re
import tempfile
from pathlib import Path

import orjson
import pytest
import requests

from bench import evidence, publish, report
from bench.__main__ import ALONE, ONLY_IF_NAMED, PARTS
from bench.acceptance import ROWS
from bench.crowd import Client, masked
from bench.figures import Part, figure, interleave, quantile, value
from bench.load import _is_whole
from bench.rig import Rig
from bench.targets import TARGETS, Target, Verdict, verdicts

TESTS = Path(__file__).parent


def test_a_ratio_is_the_median_of_the_rounds_so_that_a_disturbed_round_does_not_count() -> None:
    found = figure("ours", "µs", [[20, 22, 24], [900, 900, 900], [30, 30, 30]], ("floor", [[11], [10], [15]]))
    assert (found.ratio, found.floor, found.count) == (2.0, "floor", 9)
    assert found.median == 30


def test_a_quantile_is_the_smallest_sample_that_so_many_do_not_exceed() -> None:
    ordered = [float(each) for each in range(1, 101)]
    assert [quantile(ordered, share) for share in (0.5, 0.95, 0.99, 1)] == [50, 95, 99, 100]
    assert quantile([7.0], 0.99) == 7


def test_subjects_have_their_turns_in_an_order_that_alternates() -> None:
    turns: list[str] = []

    def turn(name: str) -> list[float]:
        turns.append(name)
        return [1.0]

    found = interleave({"floor": lambda: turn("floor"), "ours": lambda: turn("ours")}, 3)
    assert turns == ["floor", "ours", "ours", "floor", "floor", "ours"]
    assert found == {"floor": [[1.0]] * 3, "ours": [[1.0]] * 3}


def test_a_target_is_met_at_its_bound_on_its_own_side_only() -> None:
    most = Target("store", "get", "µs", "ratio", 1.3, "")
    least = Target("rest", "GET", "requests/s", "ratio", 0.85, "", least=True)
    assert [Verdict(most, each).met for each in (1.2, 1.3, 1.31, None)] == [True, True, False, None]
    assert [Verdict(least, each).met for each in (0.84, 0.85, 1.0)] == [False, True, True]


def test_every_target_is_of_a_part_that_there_is_and_a_part_without_its_figure_is_not_measured() -> None:
    assert {target.part for target in TARGETS} <= {*PARTS, *ONLY_IF_NAMED}
    found = verdicts({"store": Part("Store", [value("get", "µs", 12.0, ("bare", 10.0))])})
    assert (found[0].target.figure, found[0].measured) == ("get", 1.2)
    assert all(each.measured is None for each in found[1:])
    assert set(PARTS) == publish.PARTS


@pytest.mark.parametrize("name", PARTS)
def test_every_part_can_be_run_by_its_name(name: str) -> None:
    assert callable(importlib.import_module(f"bench.{name}").run)


@pytest.mark.parametrize("name", ALONE)
def test_every_part_with_options_of_its_own_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(f"bench.{name}").main(["--help"])
    assert f"python -m bench {name}" in capsys.readouterr().out


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    parts = {"store": Part("Store", [value("get", "µs", 12.0, ("bare", 10.0))], ["A note."])}
    json, markdown, *_ = report.write(parts, tmp_path, load_before=(0.0, 0.0, 0.0), took_s=1.0)
    assert report.read(json) == parts
    assert "| get | 12.0 µs | " in markdown.read_text()
    assert "| `get` ≤ 1.3 × a bare EVALSHA round trip | 1.20 | met |" in markdown.read_text()


def test_only_a_whole_run_goes_into_the_document_and_what_is_written_by_hand_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "performance.md"
    document.write_text("before\n" + publish._BEGIN + "OLD FIGURES\n" + publish._END + "after\n")
    monkeypatch.setattr(publish, "DOCUMENT", document)
    some = {"store": Part("Store", [])}
    report.write(some, tmp_path, load_before=(0.0, 0.0, 0.0), took_s=1.0)
    assert not publish.newest(tmp_path)
    whole = {name: Part(name.title(), []) for name in PARTS}
    head = {"at": "now", "took_s": 1, "machine": report.machine() | {"load_before": [0]}}
    parts = {name: {"title": part.title, "figures": [], "notes": []} for name, part in whole.items()}
    (tmp_path / "2999.json").write_bytes(orjson.dumps(head | {"parts": parts}))
    for _ in range(2):
        assert publish.newest(tmp_path)
    text = document.read_text()
    assert text.startswith("before\n" + publish._BEGIN)
    assert text.endswith(publish._END + "after\n")
    assert "OLD FIGURES" not in text
    assert text.count("## What one machine holds") == 1


def test_an_answer_is_whole_when_its_body_is() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
    assert [_is_whole(each) for each in (head[:20], head, head + b"abc", head + b"abcd")] == [False, False, False, True]
    assert _is_whole(b"HTTP/1.1 204 NO CONTENT\r\n\r\n")


def test_frames_are_told_apart_however_they_are_cut() -> None:
    import socket

    small, large = b"\x81\x03abc", b"\x81\x7e\x01\x00" + b"x" * 256
    stream = b"HTTP/1.1 101 Switching\r\n\r\n" + small + b"\x89\x00" + large
    for cut in range(1, len(stream)):
        with socket.socket() as unused:
            client = Client(unused)
            client.take(stream[:cut], 1)
            client.take(stream[cut:], 2)
            assert [frame for _, frame in client.heard] == [small, large]
            assert client.buffer == b""
    assert masked(b"hi") == b"\x81\x82\0\0\0\0hi"


def test_local_state_is_found_where_there_is_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "syncapp"
    package.mkdir()
    (package / "bad.py").write_text(
        "SEEN = {}\nLIST = []\ndef f():\n    global SEEN\n    SEEN['a'] = 1\n    LIST.append(2)\n"
    )
    monkeypatch.setattr(evidence, "ROOT", tmp_path)
    found = sorted(each.partition(": ")[2] for each in evidence.local_state())
    assert found == ["LIST is changed", "SEEN is changed", "global SEEN"]


@pytest.mark.parametrize("name", sorted({name for row in ROWS for name in row.tests}))
def test_the_acceptance_list_names_tests_that_there_are(name: str) -> None:
    path, _, test = name.partition("::")
    assert (TESTS / path).exists()
    assert not test or re.search(rf"^def {test}\(", (TESTS / path).read_text(), re.MULTILINE)


def test_the_floor_of_rest_runs_under_the_settings_of_the_service(run_directory: Path) -> None:
    with Rig(Path(tempfile.mkdtemp(dir=run_directory))) as rig, rig.floor() as floor:
        answer = requests.get(f"{floor.url}/bare/name", timeout=60)
        assert (answer.status_code, bool(answer.text)) == (200, True)
