-- Loading a session, with the rules of its time control if it has one.
-- @include _budgets

-- Load a session (see read_session); nil if there is none. If it has a time control, its rules replace those of a plain
-- budget. They are defined only here, because defining functions is a large part of a short script's time.
local function load_session(key, fields)
  local session = read_session(key, fields)
  if not session or not session.control then return session end
  -- @include _time_control
  -- @include _boundaries
  session.records.c, session.controls, session.owners = {}, {}, {}
  session.rules = {
    owner_at = owner_at, current_owner = current_owner, mark = mark, stage_of = stage_of, set_main = set_main,
    charge = charge_owner, chargeable = chargeable, shown_in_phase = shown_in_phase,
    main_at = main_at, next_due = next_due, warned_zero_at = warned_zero_at, clock_text = clock_text,
    clock_members = clock_members, warned_left = warned_left, left_until_flag = left_until_flag,
  }
  return session
end
