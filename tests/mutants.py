"""Mutation check: small faults put into the scripts, each of which the tests must notice.

    make mutants            every mutation, one after the other; ends with 1 when one survives
    make mutants ONLY=7     one of them

A mutation is a file, a text that occurs in it exactly once, and what takes its place. For each, the tests of
the scripts run against a copy of `lua/` with that one change; a mutation is killed when they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUITES = ["tests/test_sessions.py", "tests/test_clock.py", "tests/test_model.py"]

MUTATIONS: list[tuple[str, str, str]] = [
    # When a clock ends.
    ("_settle", "timeout <= now and", "timeout < now and"),
    ("_settle", "elseif idle <= now then", "elseif idle < now then"),
    ("_settle", "warning <= now and", "warning < now and"),
    ("_settle", "warning <= math.min(timeout or warning, idle)", "warning < math.min(timeout or warning, idle)"),
    ("_settle", "timeout <= idle then", "timeout < idle then"),
    ("_settle", "elapsed = charge(session, at)\n    set_crossed", "elapsed = charge(session, now)\n    set_crossed"),
    ("_settle", "finish(session, 'expired', at)", "finish(session, 'expired', now)"),
    ("_settle", "set_crossed(session, kind, index, true)\n    details.remaining_ms = int(deadline_of", "details.remaining_ms = int(deadline_of"),
    ("_settle", "set_crossed(session, kind, index, true)\n    details.remaining_ms = remaining_text", "details.remaining_ms = remaining_text"),
    ("_settle", "hand_over(session, next, at) and next", "hand_over(session, next, now) and next"),
    ("_settle", "session.warned + 2 ^ (place - 1)", "session.warned"),
    ("_settle", "if kind ~= 's' then call.expired_id", "if kind == 's' then call.expired_id"),
    ("_settle", "if not LIVE[session.status] then return false end", ""),
    ("_settle", "local elapsed = charge(session, at)\n  finish(session, 'cancelled', at)", "local elapsed\n  finish(session, 'cancelled', at)"),
    # What runs and what a switch does.
    ("_modes", "time_remaining_ms - elapsed) end", "time_remaining_ms) end"),
    ("_modes", "record.time_used_ms = record.time_used_ms + elapsed", "record.time_used_ms = elapsed"),
    ("_modes", "set(session, 'time_used_ms', session.time_used_ms + elapsed)", "set(session, 'time_used_ms', elapsed)"),
    ("_modes", "return math.max(deadline, session.updated_ms)", "return deadline"),
    ("_modes", "math.max(deadline - tonumber(threshold), session.updated_ms)", "deadline - tonumber(threshold)"),
    ("_modes", "tonumber(threshold) >= holder_of", "tonumber(threshold) > holder_of"),
    ("_modes", "or at < soonest) then", "or at <= soonest) then"),
    ("_modes", "if session.increment_ms > 0 and not has_crossed(session, kind, index) then", "if session.increment_ms > 0 then"),
    ("_modes", "time_remaining_ms + session.increment_ms)", "time_remaining_ms + 1)"),
    ("_modes", "local index = (session.turn + step) % session.participant_count", "local index = (session.turn + step - 1) % session.participant_count"),
    ("_modes", "local group = (from + step) % session.group_count", "local group = (from + step - 1) % session.group_count"),
    ("_modes", "if #members > 0 and (even_expired", "if (even_expired"),
    ("_modes", ".count % #members + 1])", ".count % #members])"),
    ("_modes", "touch(session, 'g', group).count = place", "touch(session, 'g', group).count = place - 1"),
    ("_modes", "session.cycle_count == session.max_cycles", "session.cycle_count + 1 == session.max_cycles"),
    ("_modes", "record.count = record.count + 1", "record.count = record.count"),
    ("_modes", "set(session, 'cycle_count', session.cycle_count + 1)", "set(session, 'cycle_count', session.cycle_count)"),
    ("_modes", "set(session, 'time_remaining_ms', session.time_per_cycle_ms)", ""),
    ("_modes", "set(session, 'crossed', 0)", ""),
    ("_modes", "  begin_warnings(session)\n  return true", "  return true"),
    ("_modes", "or (session.on_timeout == 'notify' and next_in_order(session, true)) or nil", "or nil"),
    ("_modes", "if session.on_timeout == 'notify' then return false end", ""),
    ("_modes", "touch(session, 'p', tonumber(member)).has_expired = crossed", "touch(session, 'p', tonumber(member))"),
    ("_modes", "  set(session, 'cycle_started_ms', nil)\nend", "end"),
    ("_modes", "  set(session, 'session_completed_ms', at)\nend", "end"),
    # Adjustments.
    ("_adjust", "math.max(not_after_ms - now, math.min(target, shown))", "not_after_ms - now"),
    ("_adjust", "now + target > not_after_ms", "now + target >= not_after_ms + 1000"),
    ("_adjust", "return math.max(target, math.min(0, shown))", "return target"),
    ("_adjust", "remaining - (now - session.cycle_started_ms) or remaining", "remaining or remaining"),
    ("_adjust", "at_least = function(shown, ms) return math.max(shown, ms) end", "at_least = function(shown, ms) return ms end"),
    ("adjust_session", "if target > 0 and has_crossed", "if false and has_crossed"),
    ("adjust_session", "\nsettle(session, keys, call, now)\n", "\n"),
    ("adjust_session", "if target > MOST_REMAINING then", "if false then"),
    # The commit, and what comes before it.
    ("_commit", "math.max(at, deadline_of(session) or at) + session.idle_timeout_ms", "at + session.idle_timeout_ms"),
    ("_commit", "if actor == 'client' and LIVE[session.status] then", "if LIVE[session.status] then"),
    ("_commit", "redis.call('ZREM', keys.deadlines, call.session_id)\n    if session.status", "if session.status"),
    ("_commit", "math.min(look, timeout_at(session) or look, (warning_at(session)) or look)", "math.min(look, timeout_at(session) or look)"),
    ("_commit", "if session.static or renewed[name] then session.block_tags[number] = tag end", "if session.static then session.block_tags[number] = tag end"),
    ("_command", "now = math.max(now, session.updated_ms)", ""),
    ("_command", "if first[1] ~= call.fingerprint then", "if false then"),
    ("_command", "call.expected_version ~= int(session.version))", "false)"),
    ("_command", "(call.expected_epoch ~= '' and call.expected_epoch ~= int(session.epoch))", "false"),
    ("_message", "tostring(active(session) == index)", "tostring(session.turn == index)"),
    ("_message", "if changed.status or changed.turn then", "if changed.turn then"),
    ("_message", "for index in pairs(session.touched.g) do", "for index in pairs({}) do"),
    # Guards of the commands.
    ("start_session", "if session.status ~= 'pending' then", "if false then"),
    ("switch_session", "if mover_arg ~= '' and mover_arg ~= mover then", "if false then"),
    ("switch_session", "if out_of_time(session, next) then", "if false then"),
    ("switch_session", "local elapsed = charge(session, now)\nlocal remaining = credit_increment(session)", "local remaining = credit_increment(session)\nlocal elapsed = charge(session, now)"),
    ("pause_session", "local elapsed = charge(session, now)", "local elapsed"),
    ("resume_session", "if session.status ~= 'paused' then", "if false then"),
    ("complete_session", "if session.status == 'completed' then return unchanged(now, session, call) end", ""),
    ("cancel_session", "local elapsed = charge(session, now)", "local elapsed"),
    ("create_session", "(tonumber(last[1]) or 0) + 1", "0"),
    ("update_session", "if based_on ~= int(session.metadata_version) then", "if based_on == '' then"),
]  # fmt: skip


def pytest_configure() -> None:
    """Let the tests of a mutant read its scripts: this module is their plugin then."""
    from syncapp import scripts

    scripts.LUA_DIR = Path(os.environ["MUTANT_LUA_DIR"])


def survives(mutation: tuple[str, str, str]) -> bool:
    """Tell whether the tests pass in spite of a mutation."""
    name, old, new = mutation
    with tempfile.TemporaryDirectory(prefix="syncapp-mutant-") as directory:
        lua = Path(directory) / "lua"
        shutil.copytree(ROOT / "lua", lua)
        script = lua / f"{name}.lua"
        text = script.read_text()
        if text.count(old) != 1:
            raise SystemExit(f"{name}: {old!r} occurs {text.count(old)} times, not once")
        script.write_text(text.replace(old, new))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "mutants", "-p", "no:cacheprovider", *SUITES]
        # A mutant needs no long search: what is wrong with it shows soon, or not at all.
        environment = os.environ | {"MUTANT_LUA_DIR": str(lua), "PYTHONPATH": str(ROOT / "tests")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=600, check=False)
        return done.returncode == 0


def main() -> None:
    """Try every mutation, or the one that is named by its number."""
    chosen = [int(number) for number in sys.argv[1:]] or range(1, len(MUTATIONS) + 1)
    survivors = []
    for number in chosen:
        began_s = time.monotonic()
        name, old, new = MUTATIONS[number - 1]
        survived = survives(MUTATIONS[number - 1])
        verdict = "SURVIVED" if survived else "killed"
        print(f"{number:3} {verdict:8} {time.monotonic() - began_s:4.0f} s  {name}: {old!r} -> {new!r}", flush=True)
        survivors += [number] if survived else []
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed; survivors: {survivors or 'none'}")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
