"""Mutation check: each small fault in a script must make a test fail.

    make mutants               every mutation, one after the other; the exit status is 1 if one survives
    make mutants ONLY="7 12"   these only

A mutation is a file, a text that occurs in it exactly once, and its replacement. For each mutation, the tests of
the scripts run against a copy of `lua/` with that one change, on shared servers; a mutation is killed when a test
fails. MODEL_EXAMPLES (here 15) is how long test_model.py searches.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from redis import Redis

from syncapp.dev.servers import Servers
from syncapp.store import scripts
from tests.support.paths import ROOT

# Fast and specific tests first: most mutants do not reach the last.
SUITES = [
    "tests/lua/test_idempotency.py",
    "tests/lua/test_clock.py",
    "tests/lua/test_timeouts.py",
    "tests/lua/test_rotation.py",
    "tests/lua/test_warnings.py",
    "tests/lua/test_adjustments.py",
    "tests/lua/test_adjusted_controls.py",
    "tests/lua/test_lifetime.py",
    "tests/lua/test_server_time.py",
    "tests/lua/test_shown_state.py",
    "tests/lua/test_statuses.py",
    "tests/lua/test_idle.py",
    "tests/lua/test_time_controls.py",
    "tests/lua/test_time_control_limits.py",
    "tests/docs/test_time_controls.py",
    "tests/api/test_arbiters_commands.py",
    "tests/lua/test_lag_at_the_end.py",
    "tests/lua/test_lag_compensation.py",
    "tests/lua/test_reopening.py",
    "tests/lua/test_takebacks.py",
    "tests/store/test_sessions.py",
    "tests/store/test_metadata.py",
    "tests/store/test_script_runner.py",
    "tests/store/test_session_cache.py",
    "tests/store/test_drain_requests.py",
    "tests/lua/test_completion.py",
    "tests/lua/test_limits.py",
    "tests/lua/test_quotas.py",
    "tests/store/test_split_limits.py",
    "tests/audit/test_private_parts.py",
    "tests/audit/test_erasures.py",
    "tests/store/test_session_list.py",
    "tests/store/test_list_query.py",
    "tests/store/test_list_upkeep.py",
    "tests/store/test_sweeper.py::test_the_entry_of_a_session_that_is_gone_is_removed",
    "tests/store/test_sweeper.py::test_an_entry_that_is_too_early_is_put_right_and_nothing_happens_to_its_session",
    "tests/lua/test_control_machine.py",
    "tests/lua/test_arbiter_machine.py",
    "tests/lua/test_model.py",
    "tests/history/test_restored_clock.py",
    "tests/history/test_restored_controls.py",
    "tests/history/test_recovery.py",
    "tests/history/test_rollback.py",
    "tests/history/test_recovery_on_miss.py",
]
TEST_S = 30

MUTATIONS: list[tuple[str, str, str]] = [
    # Token buckets.
    ("_limits", "if principal_us < 0 or principal_us - burst_us > 0 then", "if principal_us - burst_us > 0 then"),
    ("_limits", "if principal_us < 0 or principal_us - burst_us > 0 then", "if principal_us < 0 then"),
    ("_limits", "principal_us = principal_us + token_us\n", "principal_us = principal_us + token_us + 1\n"),
    ("_limits", "if principal_us - burst_us > 0 then return", "if principal_us - burst_us >= 0 then return"),
    ("_limits", "if session_us < 0 or session_us - session_burst_us > 0 then", "if session_us - session_burst_us > 0 then"),
    ("_limits", "if session_us < 0 or session_us - session_burst_us > 0 then", "if session_us < 0 then"),
    ("_limits", "session_us = session_us + session_token_us\n", "session_us = session_us + session_token_us + 1\n"),
    ("_limits", "if session_us - session_burst_us > 0 then return", "if session_us - session_burst_us >= 0 then return"),
    ("_limits", "now_us + principal_us, 'PXAT'", "now_us, 'PXAT'"),
    ("_bucket", "if ahead_us < 0 or ahead_us - burst_us > 0 then", "if ahead_us - burst_us > 0 then"),
    ("_bucket", "if ahead_us < 0 or ahead_us - burst_us > 0 then", "if ahead_us < 0 then"),
    ("_bucket", "return now_us + ahead_us + cost_us, ahead_us + cost_us - burst_us", "return now_us + ahead_us + cost_us, ahead_us - burst_us"),
    ("_bucket", "return now_us + ahead_us + cost_us, ahead_us + cost_us - burst_us", "return now_us + cost_us, ahead_us + cost_us - burst_us"),
    ("_quotas", "(live or 0) - most >= 0 then", "(live or 0) - most > 0 then"),
    ("_quotas", "  if wait_us > 0 then return quota_refusal(now_ms, CREATES, wait_us) end\n", ""),
    ("_quotas", "  if wait_us > 0 then return BYTES, wait_us end\n", ""),
    ("_quotas", "  if wait_us > 0 then return COMMITS, wait_us end\n", ""),
    ("_bucket", "math.ceil(full_us / 1000) + 1)", "math.ceil(full_us / 1000))"),
    ("_bucket", "math.max(0, math.min(cost_us, cost_us - (now_us - taken_at_us)))", "cost_us"),
    ("_bucket", "math.max(0, math.min(cost_us, cost_us - (now_us - taken_at_us)))", "math.min(cost_us, cost_us - (now_us - taken_at_us))"),
    ("_bucket", "math.max(0, math.min(cost_us, cost_us - (now_us - taken_at_us)))", "math.max(0, cost_us - (now_us - taken_at_us))"),
    ("_bucket", "math.max(0, math.min(cost_us, full_us - now_us))", "cost_us"),
    ("_bucket", "math.max(0, math.min(cost_us, full_us - now_us))", "math.min(cost_us, full_us - now_us)"),
    ("_bucket", "if full_us - back_us > now_us then write_bucket", "if full_us - back_us >= now_us then write_bucket"),
    ("refund_principal", "if token_us > 0 then refund_bucket(limits_key, now_us, surely_missing(now_us, token_us, at_us)) end\n", ""),
    ("refund_principal", "if create_us > 0 then refund_bucket(creates_key, now_us, surely_missing(now_us, create_us, at_us)) end\n", ""),
    ("refund_tenant", "live > 0 and -live or nil", "nil"),
    ("refund_tenant", "bytes and bytes - probably_missing(now_ms * 1000, size_us, bytes_us)", "nil"),
    ("refund_tenant", "commits and commits - probably_missing(now_ms * 1000, commit_us, commits_us)", "nil"),
    ("_limits", "    if paid_until_ms ~= '0' then call.commits_paid_ms = tonumber(paid_until_ms) end\n", ""),
    ("charge_principal", "if wait_us > 0 then return quota_refusal(now_ms, CREATES, wait_us) end\n", ""),
    ("charge_principal", "if principal_us - burst_us > 0 then", "if principal_us - burst_us >= 0 then"),
    ("charge_principal", "if creates then write_bucket(creates_key, creates) end\n", ""),
    ("charge_principal", "write_bucket(limits_key, now_us + principal_us)", "write_bucket(limits_key, now_us)"),
    ("charge_tenant", "commits and now_ms + HOUR_MS or 0", "0"),
    ("charge_tenant", "commit_us = unpaid(paid_until_ms, now_ms, commit_us)", "commit_us = unpaid(0, now_ms, commit_us)"),
    ("_commit", "  if call.charge_quotas then call.charge_quotas() end\n", ""),
    ("_arguments", "  refusal = refusal or take_tokens(keys, call)\n", "  refusal = take_tokens(keys, call) or refusal\n"),
    ("_limits", "now_ms + math.ceil(principal_us / 1000) + 1", "now_ms + 1"),
    ("_limits", "call.limit_us, call.fields = now_ms, now_us + session_us, fields", "call.limit_us, call.fields = now_ms, now_us, fields"),
    ("_commit", "update_chain(session, hashed), 'limit_us', call.limit_us)", "update_chain(session, hashed))"),
    ("_quotas", "(1 - math.max(0, math.min(paid_ms, HOUR_MS)) / HOUR_MS)", "1"),
    ("_commit", "  if session and call.commits_paid_ms then\n", "  if false then\n"),
    # Private parts.
    ("_private", "if actor == 'client' then digests, parts", "if actor then digests, parts"),
    ("_private", "    private[name] = true\n", ""),
    ("_private", "details.reason, details.result = nil, nil", "details.result = nil"),
    ("_private", "details.reason, details.result = nil, nil", "details.reason = nil"),
    ("_private", "patch = patch_of(session, true) end", "patch = patch_of(session) end"),
    ("_private", "snapshot[IN_SNAPSHOT.metadata] = '{}' end", "session = session end"),
    ("_private", "  if not private.completion then members", "  if true then members"),
    ("_private", "' completion=.*$', '')", "' nothing=.*$', '')"),
    ("_private", "return of == redis.sha1hex(session.metadata) and proof or nil", "return proof"),
    ("_private", "actor == 'client' and call.token_id ~= ''", "call.token_id ~= ''"),
    ("delete_session", "'client')\nif erases then erase_logged(keys, call, now) end", "'client')"),
    ("delete_session", "  if erases then erase_logged(keys, call, now) end\n  return", "  return"),
    ("_commit", "local before = math.max(now, tonumber(stored[1]) or 0)", "local before = now - 1"),
    # When a clock ends.
    ("_timeouts", "timeout + wait <= now and", "timeout + wait < now and"),
    ("_timeouts", "elseif idle <= now then", "elseif idle < now then"),
    ("_timeouts", "warning <= now and", "warning < now and"),
    ("_timeouts", "warning <= math.min(boundary or timeout or warning, idle)", "warning < math.min(boundary or timeout or warning, idle)"),
    ("_timeouts", "timeout <= idle then", "timeout < idle then"),
    ("_timeouts", "elapsed = charge(session, at)\n    set_crossed", "elapsed = charge(session, now)\n    set_crossed"),
    ("_timeouts", "finish(session, 'expired', at)", "finish(session, 'expired', now)"),
    ("_timeouts", "set_crossed(session, kind, index, true)\n    details.remaining_ms = int(session.rules", "details.remaining_ms = int(session.rules"),
    ("_timeouts", "set_crossed(session, kind, index, true)\n    details.remaining_ms = remaining_text", "details.remaining_ms = remaining_text"),
    ("_timeouts", "details.remaining_ms = int(session.rules and session.rules.main_at(session, at) or deadline_of(session) - at)", "details.remaining_ms = '0'"),
    ("_timeouts", "end_cycle(session, next_index, at) and next_index", "end_cycle(session, next_index, now) and next_index"),
    ("_timeouts", "if skips and (next_index or not session.turn) then", "if skips and next_index then"),
    ("_timeouts", "session.on_timeout == 'skip_cycle' and mode.skips", "session.on_timeout == 'skip_cycle'"),
    ("_timeouts", "session.warned + 2 ^ (number - 1)", "session.warned"),
    ("_timeouts", "remaining_ms = int(session.rules and session.rules.shown_in_phase(session, at) or deadline_of(session) - at),", "remaining_ms = session.warn_at[number],"),
    ("_timeouts", "commit(session, keys, call, now, at, 'time_warning'", "commit(session, keys, call, now, now, 'time_warning'"),
    ("_timeouts", "if kind ~= 's' then call.expired_id", "if kind == 's' then call.expired_id"),
    ("_timeouts", "if not LIVE[session.status] then return false end", ""),
    ("_timeouts", "local elapsed = charge(session, at)\n  finish(session, 'cancelled', at)", "local elapsed\n  finish(session, 'cancelled', at)"),
    ("_timeouts", "action_on_timeout = redis.call('HGET', session.key, 'action_on_timeout') or type_only(session.on_timeout),", ""),
    ("_settle", "    if not settle_one(session, keys, call, now) then return true end\n  end\n  return false", "    if not settle_one(session, keys, call, now) then return true end\n  end\n  return true"),
    ("_settle", "look > now", "look >= now"),
    ("_settle", "local MAX_COMMITS = 64", "local MAX_COMMITS = 63"),
    # When a session becomes idle, and when it is due.
    ("_idle", "local counts = live and counts_idle(session, timeout)", "local counts = live"),
    ("_idle", "return not timeout\n    or", "return"),
    ("_idle", " and not session.max_cycles", ""),
    ("_idle", "session.on_timeout == 'skip_cycle' and", ""),
    ("_idle", "MODES[session.sync_mode].refills and", ""),
    ("_idle", "if live and by_client then", "if live then"),
    ("_idle", "(counts and at or timeout)", "(timeout or at)"),
    ("_idle", "elseif by_client == false and counts and not session.idling then", "elseif false then"),
    ("_idle", "elseif by_client == false and counts and not session.idling then", "elseif by_client == false and counts then"),
    ("_idle", "math.max(session.idle_ms, at + session.idle_timeout_ms)", "at + session.idle_timeout_ms"),
    ("_idle", "math.max(session.idle_ms, at + session.idle_timeout_ms)", "session.idle_ms"),
    ("_idle", "if idling ~= session.idling then", "if idling then"),
    ("_idle", "math.min(timeout or session.idle_ms, counts and session.idle_ms or timeout)", "timeout or session.idle_ms"),
    ("_idle", "math.min(timeout or session.idle_ms, counts and session.idle_ms or timeout)", "counts and session.idle_ms or timeout"),
    ("_idle", "math.min(due, (warning_at(session)) or due)", "due"),
    ("_timeouts", "counts_idle(session, timeout) and session.idle_ms or math.huge", "session.idle_ms"),
    ("_commit", "set_next_due(session, at, actor == 'client')", "set_next_due(session, at, true)"),
    ("_commit", "session.idling and ',\"idle_ms\":' .. int(session.idle_ms) or ''", "''"),
    ("_commit", "session.changed.idling and not session.idling and", "false and"),
    ("attend_session", "session.idle_ms > now and", ""),
    ("attend_session", " and session.idle_ms < idle_ms then", " then"),
    ("attend_session", "LIVE[session.status] and ", ""),
    ("attend_session", "counts_idle(session, timeout_at(session))", "true"),
    ("attend_session", "  write_fields(session)\n", ""),
    ("attend_session", "  write_deadline(session, keys, call, now)\n", ""),
    ("attend_session", "  set_next_due(session, now)\n", ""),
    # Unattended cycles.
    ("_timeouts", ">= tonumber(call.max_unattended_cycles)", "> tonumber(call.max_unattended_cycles)"),
    ("_timeouts", "if session.status == 'running' and (session.unattended", "if (session.unattended"),
    ("_timeouts", "(session.unattended or 0) + 1", "(session.unattended or 0)"),
    ("_timeouts", "pause_unattended(session, keys, call, now, timeout)\n      call.instants[#call.instants + 1] = int(timeout)", "pause_unattended(session, keys, call, now, timeout)"),
    ("_timeouts", "  local elapsed = charge(session, at)\n  stop_clock(session, 'paused')", "  local elapsed\n  stop_clock(session, 'paused')"),
    ("_commit", "if actor == 'client' and session.unattended then set(session, 'unattended', nil) end", ""),
    ("_commit", "if actor == 'client' and session.unattended then", "if session.unattended then"),
    # The running clock, and switches.
    ("_run", "time_remaining_ms - elapsed)\n", "time_remaining_ms)\n"),
    ("_run", "local elapsed = at - session.cycle_started_ms", "local elapsed = at - session.cycle_started_ms + 1"),
    ("_run", "record.time_used_ms = record.time_used_ms + elapsed", "record.time_used_ms = elapsed"),
    ("_run", "set(session, 'time_used_ms', session.time_used_ms + elapsed)", "set(session, 'time_used_ms', elapsed)"),
    ("_run", "if group then add_time_used", "if false then add_time_used"),
    ("_budgets", "return math.max(deadline, session.updated_ms)", "return deadline"),
    ("_budgets", "if not deadline or has_crossed(session, current_budget(session)) then", "if not deadline then"),
    ("_budgets", "math.max(deadline - tonumber(threshold), session.updated_ms)", "deadline - tonumber(threshold)"),
    ("_cycles", "tonumber(threshold) >= left", "tonumber(threshold) > left"),
    ("_budgets", "or at < soonest) then", "or at <= soonest) then"),
    ("_cycles", "if session.increment_ms > 0 and not has_crossed(session, kind, index) then", "if session.increment_ms > 0 then"),
    ("_cycles", "time_remaining_ms + session.increment_ms)", "time_remaining_ms + 1)"),
    ("_cycles", "local index = (session.turn + step) % session.participant_count", "local index = (session.turn + step - 1) % session.participant_count"),
    ("_cycles", "if even_expired or not is_expired(session, 'p', index) then", "if true then"),
    ("_cycles", "local group = (from + step) % session.group_count", "local group = (from + step - 1) % session.group_count"),
    ("_cycles", "(even_expired or not is_expired(session, 'g', group)) and member_count", "member_count"),
    ("_cycles", "if members > 0 then return", "if members >= 0 then return"),
    ("_cycles", ".count % members + 1) end", ".count % members) end"),
    ("_cycles", "session.last_place, record.count = record.count, place", "session.last_place, record.count = record.count, place - 1"),
    ("_cycles", "session.cycle_count == session.max_cycles", "session.cycle_count + 1 == session.max_cycles"),
    ("_cycles", "record.count = record.count + 1", "record.count = record.count"),
    ("_cycles", "set(session, 'cycle_count', session.cycle_count + 1)", "set(session, 'cycle_count', session.cycle_count)"),
    ("_cycles", "set(session, 'time_remaining_ms', session.time_per_cycle_ms)", ""),
    ("_cycles", "set(session, 'crossed', 0)", ""),
    ("_cycles", "  reset_warnings(session)\n  return true", "  return true"),
    ("_cycles", "or (session.on_timeout == 'notify' and next_in_order(session, true)) or nil", "or nil"),
    ("_cycles", "session.on_timeout ~= 'notify' and is_expired(session, 'p', index)", "is_expired(session, 'p', index)"),
    ("_budgets", "touch(session, 'p', tonumber(member)).has_expired = crossed", "touch(session, 'p', tonumber(member))"),
    ("_budgets", "touch(session, kind, index).has_expired = crossed", "record_of(session, kind, index).has_expired = crossed"),
    ("_run", "  set(session, 'cycle_started_ms', nil)\nend", "end"),
    ("_run", "  set(session, 'session_completed_ms', at)\nend", "end"),
    ("_run", "if session.turn then touch(session, 'p', session.turn) end\n  stop_clock", "stop_clock"),
    # The lists of sessions.
    ("_write", "elseif session.version == 1 or session.changed.status then", "elseif session.version == 1 then"),
    ("_write", "elseif session.version == 1 or session.changed.status then", "elseif session.changed.status and session.version > 1 then"),
    ("_write", "if not session or session.status == 'deleted' then", "if not session then"),
    ("_write", "int(session.created_ms), call.session_id)", "int(session.updated_ms), call.session_id)"),
    ("expire_session", "    update_list(nil, keys, call)\n", ""),
    # The completion.
    ("complete_session", "if details.reason or details.result then", "if details.reason then"),
    ("_reply", "string.gsub(completion, ' ', '\\\\u0020')", "completion"),
    ("_write", "if session.changed.completion then field", "if false then field"),
    ("_snapshot", ".. completion_word(session)", ""),
    ("_commit", "completion and ',\"completion\":' .. completion or ''", "''"),
    ("_commit", "idle_member .. idle_cleared .. completion_member", "idle_member .. idle_cleared"),
    ("_commit", "patch, idle_member .. completion_member, snapshot", "patch, idle_member, snapshot"),
    ("_reply", "session.status == 'completed' and redis.call('HGET', session.key, 'completion')", "nil"),
    # Adjustments.
    ("_adjust", "math.max(not_after_ms - now, math.min(target, shown))", "not_after_ms - now"),
    ("_adjust", "now + target > not_after_ms", "now + target > not_after_ms + 1"),
    ("_adjust", "return math.max(target, math.min(0, shown))", "return target"),
    ("_adjust", "math.max(target, math.min(0, shown))", "math.max(target, 0)"),
    ("_adjust", "session.on_timeout == 'notify' and is_running(session, kind, index) and", "session.on_timeout == 'notify' and"),
    ("_adjust", "is_running(session, kind, index) and not in_period then", "is_running(session, kind, index) then"),
    ("_adjust", "session.status == 'running' and is_current", "is_current"),
    ("_adjust", "kind == current_kind and (kind == 's' or index == current_index)", "kind == current_kind"),
    ("_adjust", "remaining_ms > tonumber(threshold)", "remaining_ms >= tonumber(threshold)"),
    ("_adjust", "if warned ~= session.warned then set", "if false then set"),
    ("_adjust", "  if is_current(session, kind, index) then\n", "  if is_running(session, kind, index) then\n"),
    ("_adjust", "  if is_current(session, kind, index) then\n", "  if true then\n"),
    ("_adjust", "at_least = function(shown, ms) return math.max(shown, ms) end", "at_least = function(shown, ms) return ms end"),
    ("_adjust", "if kind ~= 'p' and kind ~= 'g' then return nil, nil, 'no_participant_budget' end", ""),
    ("_adjust", "if left > 0 and has_crossed", "if false and has_crossed"),
    ("_adjust", "if left > 0 and has_crossed", "if left >= 0 and has_crossed"),
    ("adjust_session", "\nsettle(session, keys, call, now)\n", "\n"),
    ("_adjust", "target < MIN_REMAINING_MS or target > MAX_REMAINING_MS", "target > MAX_REMAINING_MS"),
    ("_adjust", "target < MIN_REMAINING_MS or target > MAX_REMAINING_MS", "target < MIN_REMAINING_MS"),
    ("adjust_session", "details.reason = reason ~= '' and reason or nil\n", ""),
    # Commits, and the checks before them.
    ("_write", "redis.call('ZREM', keys.deadlines, call.session_id)\n    if session.status", "if session.status"),
    ("_write", "redis.call('PEXPIREAT', session.key, int(now + call.session_ttl_ms))\n    end", "end"),
    ("_write", "elseif session.changed.status then", "else"),
    ("_write", "if session.static or updated[name] then session.block_tags[number] = tag end", "if session.static then session.block_tags[number] = tag end"),
    ("_write", "parts.from = at + WIDTH[kind] + 1", "parts.from = at + WIDTH[kind]"),
    ("_write", "  table.sort(indexes)\n", ""),
    ("_write", "  if later < index then index, later = later, index end\n", ""),
    ("_write", "string.sub(block, at + width + 1, later_at)", "''"),
    ("_session", "ids = {[0] = first or nil, [1] = second or nil}", "ids = {[1] = first or nil, [0] = second or nil}"),
    ("_commit", "session.version % SNAPSHOT_EVERY == 0", "session.version % SNAPSHOT_EVERY == 1"),
    ("_command", "  now = math.max(now, session.updated_ms)\n  local settled = settle(session, keys, call, now)\n  publish(keys, call)\n  if not settled then return nil", "  local settled = settle(session, keys, call, now)\n  publish(keys, call)\n  if not settled then return nil"),
    ("_command", "if record.fingerprint ~= call.fingerprint then", "if false then"),
    ("_command", "(call.expected_version == '' or call.expected_version == int(session.version))", "true"),
    ("_command", "(call.expected_epoch == '' or call.expected_epoch == int(session.epoch))", "true"),
    ("_command", "int(session.created_ms) ~= record.created then", "int(session.epoch) ~= record.epoch then"),
    ("_command", " or int(session.created_ms) ~= record.created then", " then"),
    ("_command", "  if not settled then return refuse('busy', now, nil, call) end\n", ""),
    ("_command", "  call.expired_id = record.expired_id\n", ""),
    ("_idempotency", "if #event > room then event = '' end", ""),
    ("_idempotency", "if event == '' or #event + #patch > room then patch = '' end", ""),
    ("_idempotency", "if string.sub(text, 1, 1) == '[' then return previous_record(text) end", ""),
    ("_idempotency", "string.rep('[^ ]* ', 13)", "string.rep('[^ ]* ', 14)"),
    ("_command", "  if not settled then return nil, now, refuse('busy', now, nil, call) end\n", ""),
    ("_message", "tostring(active(session) == index)", "tostring(session.turn == index)"),
    ("_message", "if changed.status or changed.turn then", "if changed.turn then"),
    ("_message", "for index in pairs(session.touched.g) do", "for index in pairs({}) do"),
    ("_message", "details.group_id = group and quote(group_id(session, group))", ""),
    ("_session", "'turn', 'cycle_count', 'time_used_ms'", "'cycle_count', 'turn', 'time_used_ms'"),
    # Restores from the log.
    ("_restore", "if warn_at ~= '' then field('warn_at', warn_at) end", ""),
    ("_restore", "string.sub(records, groups_at)", "''"),
    ("_restore", "and at - session.cycle_started_ms or 0", "and 0 or 0"),
    ("_restore", "return session.status == 'running' and charge(session, session.updated_ms) or nil", ""),
    ("_restore", "    if session.status == 'running' then start_clock(session, now) end\n", ""),
    ("_restore", "  set_next_due(session, now, true)\n", ""),
    ("_restore", "math.max(session.idle_ms or 0, now + session.idle_timeout_ms)", "session.idle_ms"),
    ("_restore", "    restart_idle_time(session, now)\n    return session.updated_ms", "    return session.updated_ms"),
    ("_restore", "    set(session, 'unattended', nil)\n    restart_idle_time(session, now)\n    return now, elapsed\n  end,\n}", "    restart_idle_time(session, now)\n    return now, elapsed\n  end,\n}"),
    ("_restore", "  set(restored, 'status', restored.status)  -- the first commit then treats the status as new\n", ""),
    ("restore_session", "if existing then delete_hash(existing) end", ""),
    ("restore_session", "if existing and call.expected_epoch == '' then", "if false then"),
    ("restore_session", "if existing and not is_expected(existing, call) then", "if false then"),
    ("restore_session", "(epoch >= last_epoch or call.expected_epoch ~= '')", "call.expected_epoch ~= ''"),
    ("restore_session", "last_epoch + 1, epoch + 1", "0"),
    ("restore_session", "'chain', chain}", "}"),
    ("restore_session", "\nsettle(session, keys, call, now)\n", "\n"),
    ("renew_session", "if not is_expected(session, call) then", "if false then"),
    ("renew_session", "set(session, 'metadata_version', 1)", ""),
    # Guards of the commands.
    ("start_session", "if session.status ~= 'pending' then", "if false then"),
    ("start_session", "reset_warnings(session)\n", "\n"),
    ("start_session", "\nsettle(session, keys, call, now)\n", "\n"),
    ("switch_session", "if session.status ~= 'running' then", "if not LIVE[session.status] then"),
    ("switch_session", "if participant_arg ~= '' and quote(participant_arg) ~= details.participant_id then", "if false then"),
    ("switch_session", "if is_out_of_time(session, next_index) then", "if false then"),
    ("switch_session", "if end_cycle(session, next_index, now) and next_index then", "end_cycle(session, next_index, now) if next_index then"),
    ("switch_session", "\nsettle(session, keys, call, now)\n", "\n"),
    ("pause_session", "local elapsed = charge(session, now)", "local elapsed"),
    ("pause_session", "if session.status ~= 'running' then", "if not LIVE[session.status] then"),
    ("resume_session", "if session.status ~= 'paused' then", "if false then"),
    ("resume_session", "\nsettle(session, keys, call, now)\n", "\n"),
    ("complete_session", "if session.status == 'completed' then", "if false then"),
    ("complete_session", "local elapsed = charge(session, now)", "local elapsed"),
    ("cancel_session", "local elapsed = charge(session, now)", "local elapsed"),
    ("expire_session", "if session.look_ms then write_deadline(session, keys, call, now) else remove_deadline(keys, call) end", ""),
    ("expire_session", "set_next_due(session, now)", ""),
    ("create_session", "(tonumber(tombstone[1]) or 0) + 1", "0"),
    ("update_session", "if base_version ~= int(session.metadata_version) then", "if base_version == '' then"),
    # Traits of the modes.
    ("_modes", "per_participant = {budget = 'p', skips = true,", "per_participant = {budget = 'p',"),
    ("_modes", "per_group = {budget = 'g', skips = true,", "per_group = {budget = 'g',"),
    ("_modes", "budget = 's', skips = true, refills", "budget = 's', refills"),
    ("_modes", "refills = true, ", ""),
    ("_modes", "count_up = {budget = 's',", "count_up = {budget = 'p',"),
    # Time controls: charges.
    ("_time_control", "return math.max(0, turn_ms - (stage.delay_ms or 0))", "return math.max(0, turn_ms)"),
    ("_time_control", "math.floor((cost + place) / others)", "math.floor(cost / others)"),
    ("_time_control", "math.max(clock.period_ms - cost, LEAST_PERIOD_MS)", "clock.period_ms"),
    ("_time_control", "math.max(clock.period_ms - cost, LEAST_PERIOD_MS)", "clock.period_ms - cost"),
    ("_time_control", "chargeable(stage, turn_ms) - chargeable(stage, clock.turn_ms)", "chargeable(stage, elapsed)"),
    ("_time_control", "if value <= 0 or not clock.overtime then return end", "if not clock.overtime then return end"),
    ("_time_control", "math.max(LEAST_MAIN_MS, math.min(value, MAX_MS))", "math.max(LEAST_MAIN_MS, value)"),
    ("_time_control", "if owner.stage.period_moves then clock.count = 0 end", ""),
    ("_time_control", "redis.call('HGET', session.key, 'control:' .. int(index)) or string.sub(text, 2)", "string.sub(text, 2)"),
    # Boundaries and the flag.
    ("_boundaries", "if least and total <= least then return 0 end", ""),
    ("_boundaries", "math.ceil(total / unit) * unit", "total"),
    ("_boundaries", "needed + (stage.delay_ms or 0) - turn_ms", "needed - turn_ms"),
    ("_boundaries", " - (clock.overtime and 1 or 0)", ""),
    ("_boundaries", "left + to_come * stage.period_ms, to_come", "left, to_come"),
    ("_boundaries", " + (owner.control.margin_ms or 0)", ""),
    ("_boundaries", "if owner.record.has_expired then return nil, nil end", ""),
    ("_boundaries", "in_period and owner.clock.period_ms or owner.record.time_remaining_ms", "owner.record.time_remaining_ms"),
    ("_boundaries", "math.max(0, (owner.stage.delay_ms or 0) - owner.clock.turn_ms)", "0"),
    ("_boundaries", "return owner.clock.overtime and owner.record.time_remaining_ms or shown_in_phase(session, at)", "return shown_in_phase(session, at)"),
    ("_boundaries", "owner.clock.overtime and not owner.control.warns_in_periods then return nil", "owner.clock.overtime then return nil"),
    ("_periods", "clock.count = clock.count - 1", "clock.count = clock.count"),
    ("_periods", "clock.period_ms = clock.period_ms + stage.period_ms", "clock.period_ms = stage.period_ms"),
    ("_periods", "stage.period_ms + owner.record.time_remaining_ms", "stage.period_ms"),
    ("_periods", "if session.rules.current_owner(session).control.warns_in_periods then reset_warnings(session) end", ""),
    ("_periods", "if session.rules.current_owner(session).control.warns_in_periods then reset_warnings(session) end", "reset_warnings(session)"),
    ("_periods", "start_clock(session, at)", "start_clock(session, now)"),
    # Completed moves.
    ("_moves", "math.max(main, math.min(main + stage.increment_ms, stage.cap_ms or math.huge))", "math.min(main + stage.increment_ms, stage.cap_ms or math.huge)"),
    ("_moves", "if left.per_move_ms then main = 0 end", ""),
    ("_moves", "main - (left.bronstein_ms or 0) + (stage", "main + (stage"),
    ("_moves", "if stage.periods then clock.period_ms = stage.period_ms end", ""),
    ("_moves", "if clock.count > 0 then return false end", "if clock.count > 1 then return false end"),
    ("_moves", "clock.lag_left_ms - lag_ms + (control.lag_per_move_ms or 0)", "clock.lag_left_ms + (control.lag_per_move_ms or 0)"),
    ("_moves", "math.min(clock.lag_left_ms - lag_ms + (control.lag_per_move_ms or 0), control.lag_quota_ms)", "clock.lag_left_ms - lag_ms + (control.lag_per_move_ms or 0)"),
    ("_moves", "math.floor(cost / unit) * unit)", "cost)"),
    ("_moves", "math.max(control.min_charge_ms or 0, math.floor(cost / unit) * unit)", "math.floor(cost / unit) * unit"),
    ("_moves", "if owner.record.has_expired then return main, false, false end", ""),
    ("_moves", "math.min(clock.turn_ms, stage.bronstein_ms or 0)", "(stage.bronstein_ms or 0)"),
    ("_moves", "main = with_increment(main, owner.stage) end", "main = with_increment(main, stage) end"),
    # Lag.
    ("_act", "claimed = now - acted_ms", "claimed = math.min(now - acted_ms, limit_ms or math.huge)"),
    ("_act", "math.min(clock.turn_ms + elapsed - spent_ms, limit_ms)", "clock.turn_ms + elapsed - spent_ms"),
    ("_act", "clock.turn_ms + elapsed - spent_ms", "elapsed - spent_ms"),
    ("_act", "math.min(claimed, elapsed, clock.lag_left_ms)", "math.min(claimed, elapsed)"),
    ("_act", "math.min(claimed, elapsed, clock.lag_left_ms)", "math.min(claimed, clock.lag_left_ms)"),
    ("_act", "settle(session, keys, call, now - lag_ms)", "settle(session, keys, call, now)"),
    ("_act", "  call.waits_for_lag = false\n", ""),
    ("_act", "lag_ms, settled = 0, settle(session, keys, call, now)", "settled = settle(session, keys, call, now)"),
    ("_act", "lag_ms, settled = 0, settle(session, keys, call, now)", "lag_ms = 0"),
    ("_timeouts", "boundary + wait <= now", "boundary <= now"),
    ("_timeouts", "timeout + wait <= now", "timeout <= now"),
    ("_settle", "look = look - session.rules.current_owner(session).clock.lag_left_ms", "look = look"),
    ("_idle", " + session.rules.current_owner(session).clock.lag_left_ms", ""),
    ("get_session", "call.waits_for_lag = true\n", ""),
    ("expire_session", "call.waits_for_lag = true\n", ""),
    ("summarize_session", "call.waits_for_lag = true\n", ""),
    ("_act", "if id ~= '' and id ~= active_id(session) then return 0, true end", ""),
    ("switch_session", "call.waits_for_lag = true\n", ""),
    ("switch_session", "charge(session, now - lag_ms)", "charge(session, now)"),
    ("switch_session", "  if not is_expected(session, call) then return refuse('version_conflict', now, session, call) end\n", ""),
    # The arbiter.
    ("_takebacks", "record.count = session.last_place or place", "record.count = place"),
    ("_takebacks", "turns[session.takebacks + 2] = nil", "turns[session.takebacks + 3] = nil"),
    ("_takebacks", "for _ = 1, cycles do table.remove", "for _ = 1, cycles + 1 do table.remove"),
    ("_takebacks", "    if has_crossed(session, kind, owner) then set_crossed(session, kind, owner, false) end\n", ""),
    ("_takebacks", "    if has_crossed(session, kind, owner) then set_crossed(session, kind, owner, true) end\n", ""),
    ("_takebacks", "  if group then touch(session, 'g', group).count = place end\n", ""),
    ("_takebacks", "session.wants_snapshot = true  --", "--"),
    ("_takebacks", "if session.rules and session.rules.current_owner(session).stage.hourglass then", "if false then"),
    ("takeback_session", "if elapsed then start_clock(session, now) end", ""),
    ("takeback_session", "reset_warnings(session)\n", "\n"),
    ("takeback_session", "#kept_turns(session) <= cycles", "#kept_turns(session) < cycles"),
    ("takeback_session", "session.status == 'running' and 0 or nil", "0"),
    ("takeback_session", "\nsettle(session, keys, call, now)\n", "\n"),
    ("_adjust", "if session.takebacks then session.turns, session.changed.turns = {}, true end", ""),
    ("_adjust", "session.rules and session.rules.warned_left(session) or target", "target"),
    ("_adjust", "if not seen[index] then indexes", "if true then indexes"),
    ("_adjust", "(kind == 'g' and session.group_count or session.participant_count) - 1", "session.participant_count - 1"),
    ("_arbiter", "    clock.moves_left, clock.count = stage.moves or 0, stage.periods or 0\n", ""),
    ("_arbiter", "    clock.overtime, clock.period_ms = false, 0\n", ""),
    ("_arbiter", "changes.moves_to_next_stage > (stage.moves or 0)", "changes.moves_to_next_stage >= (stage.moves or 0)"),
    ("_arbiter", "changes.block_moves_left > (stage.period_moves or 0)", "changes.block_moves_left >= (stage.period_moves or 0)"),
    ("_arbiter", "if not clock.overtime then return 'no_period' end", ""),
    ("_arbiter", "changes.periods_left > (stage.periods or 0)", "changes.periods_left >= (stage.periods or 0)"),
    ("_adjust", "left = session.rules.left_until_flag(owner)", ""),
    ("_adjust", "return target, target - before", "return target, target - shown"),
    ("_arbiter", "true, stage.period_ms, 0", "true, stage.period_ms, owner.record.time_remaining_ms"),
    ("adjust_session", "if elapsed then start_clock(session, now) end", ""),
    ("reopen_session", "session.reopened, session.wants_snapshot = true, true", "session.wants_snapshot = true"),
    ("reopen_session", "session.reopened, session.wants_snapshot = true, true", "session.reopened = true"),
    ("reopen_session", "if not session.session_started_ms then set(session, 'status', 'pending') end", ""),
    ("reopen_session", "set(session, 'session_completed_ms', nil)", ""),
    ("reopen_session", "if kind and has_crossed(session, kind, index) then set_crossed(session, kind, index, false) end", ""),
    ("reopen_session", "session.cycle_count >= session.max_cycles", "session.cycle_count > session.max_cycles"),
    ("reopen_session", "if session.turn then touch(session, 'p', session.turn) end", ""),
    ("_write", "redis.call('PERSIST', session.key)\n    session.reopened = nil", "session.reopened = nil"),
    ("_write", "    redis.call('HDEL', session.key, 'completion', 'completion_proof')\n", ""),
]  # fmt: skip


def pytest_configure() -> None:
    """Let the tests of a mutant read its scripts; pytest loads this module as a plugin."""
    scripts.LUA_DIR = Path(os.environ["MUTANT_LUA_DIR"])


def survives(mutation: tuple[str, str, str], environment: dict[str, str]) -> bool:
    """Tell whether the tests pass with a mutation."""
    name, old, new = mutation
    with tempfile.TemporaryDirectory(prefix="syncapp-mutant-") as directory:
        lua = Path(directory) / "lua"
        shutil.copytree(ROOT / "lua", lua)
        script = lua / f"{name}.lua"
        script.write_text(script.read_text().replace(old, new))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tests.lua.mutants", "-p", "no:cacheprovider"]
        # A mutant may never finish settling.
        command += ["-o", f"timeout={TEST_S}", *SUITES]
        with Redis.from_url(environment["REDIS_URL"]) as client:
            client.flushall()
        done = subprocess.run(
            command, cwd=ROOT, env=environment | {"MUTANT_LUA_DIR": str(lua)}, capture_output=True, check=False
        )
        if done.returncode not in (0, 1):
            raise SystemExit(f"the tests did not run:\n{done.stdout.decode()}{done.stderr.decode()}")
        return done.returncode == 0


def misplaced() -> list[str]:
    """Name the mutations whose text does not occur exactly once in their file."""
    return [
        f"{name}: {old!r} occurs {count} times, not once"
        for name, old, _ in MUTATIONS
        if (count := (ROOT / "lua" / f"{name}.lua").read_text().count(old)) != 1
    ]


def main() -> None:
    """Try all mutations, or those with the given numbers."""
    if faults := misplaced():
        raise SystemExit("\n".join(faults))
    chosen = [int(number) for number in sys.argv[1:]] or list(range(1, len(MUTATIONS) + 1))
    survivors = []
    with tempfile.TemporaryDirectory(prefix="syncapp-mutants-") as directory, Servers(Path(directory)) as servers:
        environment = os.environ | {
            "REDIS_URL": servers.redis_url,
            "DATABASE_URL": servers.database_url,
            "MODEL_EXAMPLES": os.environ.get("MODEL_EXAMPLES", "15"),
            "PYTHONPATH": str(ROOT),
        }
        for number in chosen:
            began_s = time.monotonic()
            name, old, new = MUTATIONS[number - 1]
            survived = survives(MUTATIONS[number - 1], environment)
            verdict = "SURVIVED" if survived else "killed"
            print(f"{number:3} {verdict:8} {time.monotonic() - began_s:4.0f} s  {name}: {old!r} -> {new!r}", flush=True)
            survivors += [number] if survived else []
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed; survivors: {survivors or 'none'}")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
