"""What SyncApp is compared with starts, answers, and stops; what is not installed is skipped."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path

import pytest

from bench import peers, report
from bench.peers.services import Missing, SocketIo

TINY = Namespace(clients=[1, 3], times=2, sockets=8, rate=20, seconds=1, settle=0.2)


@pytest.mark.parametrize("name", ["socket.io", "nchan"])
def test_a_peer_is_measured_if_it_is_there(name: str, tmp_path: Path) -> None:
    found = peers.Results(name)
    try:
        peers.measure(name, TINY, found)
    except Missing as missing:
        pytest.skip(str(missing))
    assert [len(found.last[clients][0]) for clients in TINY.clients] == [2, 2]
    assert len(found.evenings) == (name == "socket.io")
    assert all(0 < len(each.played.deliveries) <= 20 for each in found.evenings)
    assert f"| {found.name} | " in peers.table([found], TINY.clients)
    report.write({"peers": peers.part([found])}, tmp_path, load_before=(0.0,), took_s=1.0)


def test_a_peer_that_is_not_there_is_skipped_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert peers.main(["socket.io", "nchan", "--out", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "skipped: socket.io: npm is not on PATH (Debian: apt-get install nodejs npm)" in shown
    assert "skipped: nchan: nginx is not on PATH (Debian: apt-get install nginx libnginx-mod-nchan)" in shown


def test_a_client_of_socket_io_connects_answers_pings_and_reads_the_clock() -> None:
    wire = SocketIo()
    assert wire.greeting(b'0{"sid":"a"}').endswith(b"40")
    assert (wire.reply(b"2")[-1:], wire.reply(b'42["other"]')) == (b"3", b"")
    assert wire.move(b'42["moved",{"version":7,"turn":1}]') == (7, 1)
