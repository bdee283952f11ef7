"""The units in deploy/ run the Procfile's commands, and systemd understands them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from syncapp.config import Settings
from syncapp.dev.runner import procfile

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy").glob("*.service"))
KINDS = {"syncapp-migrate": "release", "syncapp-web": "web", "syncapp-worker": "worker"}
HOME = "/opt/syncapp"


def service(unit: Path) -> dict[str, list[str]]:
    """A unit's [Service] section; a directive may be there several times."""
    values: dict[str, list[str]] = {}
    section = unit.read_text().split("[Service]", 1)[1].split("\n[", 1)[0]
    for name, value in re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE):
        values.setdefault(name, []).append(value)
    return values


def environment(unit: Path) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(service(unit)["Environment"][0]))


def test_there_is_a_unit_for_each_line_of_the_procfile() -> None:
    assert [unit.stem for unit in UNITS] == sorted(KINDS)
    assert set(KINDS.values()) == set(procfile())


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_runs_the_command_of_the_procfile(unit: Path) -> None:
    (command,) = service(unit)["ExecStart"]
    given = environment(unit)
    command = re.sub(r"\$\{(\w+)\}", lambda found: f"${{{found[1]}:-{given[found[1]]}}}", command)
    assert command == f"{HOME}/.venv/bin/{procfile()[KINDS[unit.stem]]}"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_sets_settings_that_exist_and_finds_its_commands(unit: Path) -> None:
    given = environment(unit)
    assert given.pop("PATH").split(":")[0] == f"{HOME}/.venv/bin"
    assert given.pop("PYTHONUNBUFFERED") == "1"
    assert set(given) <= {each.name.upper() for each in fields(Settings)}
    Settings.from_env({"AUTH": "off", **given})


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_does_not_run_as_root_and_writes_nowhere(unit: Path) -> None:
    found = service(unit)
    assert found["User"] == ["syncapp"]
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["ProtectSystem"] == ["strict"]


def test_web_and_worker_have_time_to_stop_and_files_for_their_connections() -> None:
    web, worker = (service(ROOT / "deploy" / f"syncapp-{kind}.service") for kind in ("web", "worker"))
    assert [int(each["TimeoutStopSec"][0]) for each in (web, worker)] == [30, 30]
    assert web["KillMode"] == ["mixed"]  # SIGTERM to each gunicorn worker would end it without gunicorn's knowledge
    assert int(web["LimitNOFILE"][0]) >= Settings().ws_max_connections + 2000


def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    if not (analyze := shutil.which("systemd-analyze")):
        pytest.skip("no systemd-analyze here")
    copies = [tmp_path / unit.name for unit in UNITS]
    for unit, copy in zip(UNITS, copies, strict=True):
        copy.write_text(unit.read_text().replace(HOME, str(ROOT)))  # it checks that the commands exist
    done = subprocess.run([analyze, "verify", *copies], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
