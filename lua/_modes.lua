-- The traits of each mode (docs/clock.md). No other script names a mode.
--   budget         what has a budget: 'p' each participant, 'g' each group, 's' the session (optional in count_up)
--   skips          whether skip_cycle ends only the cycle; otherwise a timeout ends the session
--   refills        whether each cycle starts with a full budget
--   timeout_event  the type of a timeout's event
local MODES = {
  per_participant = {budget = 'p', skips = true, timeout_event = 'participant_expired'},
  per_group = {budget = 'g', skips = true, timeout_event = 'group_expired'},
  per_cycle = {budget = 's', skips = true, refills = true, timeout_event = 'cycle_timed_out'},
  global = {budget = 's', timeout_event = 'session_expired'},
  count_up = {budget = 's', timeout_event = 'session_expired'},
}
