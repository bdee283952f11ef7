"""The differences between modes are in one Lua table."""

from __future__ import annotations

import re
from pathlib import Path

import lupa.lua51
import pytest

LUA_DIR = Path(__file__).resolve().parents[2] / "lua"
MODES = {"per_participant", "per_cycle", "per_group", "global", "count_up"}
OTHERS = sorted(path.name for path in LUA_DIR.glob("*.lua") if path.stem != "_modes")


def test_every_mode_has_its_traits() -> None:
    modes = lupa.lua51.LuaRuntime().execute((LUA_DIR / "_modes.lua").read_text() + "\nreturn MODES")
    traits = {mode: dict(found) for mode, found in modes.items()}
    assert set(traits) == MODES
    assert all(found["budget"] in ("p", "g", "s") and found["timeout_event"] for found in traits.values())
    assert {name for found in traits.values() for name in found} == {"budget", "skips", "refills", "timeout_event"}


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_script_names_a_mode(name: str) -> None:
    code = re.sub(r"--[^\n]*", "", (LUA_DIR / name).read_text())
    assert not re.findall(rf"\b(?:{'|'.join(MODES)})\b", code)
