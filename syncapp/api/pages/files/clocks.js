// What the clocks of a state show. Pure functions: the time comes from the caller.

/** The clocks of a state: one for each participant or group, or one that all share. */
export function rows(state) {
  if (state.clock.scope === "participant") return state.participants.map((each) => ({
    name: each.participant_id, ms: leftMs(each), active: each.participant_id === state.active_participant_id,
  }));
  const mover = state.participants.find((each) => each.participant_id === state.active_participant_id);
  if (state.clock.scope === "group") return state.groups.map((each) => ({
    name: each.group_id, ms: leftMs(each), active: each.group_id === mover?.group_id,
  }));
  return [{name: state.clock.direction === "up" ? "Time" : "Time left", ms: null, active: true}];
}

/** What an owner's clock shows while it stands: its period or block, if it has used up its main time. */
function leftMs(owner) {
  return owner.period_remaining_ms ?? owner.time_remaining_ms;
}

/** What the counting clock shows at `now`, the server's time in ms; null while that is null. */
export function shownMs(state, now) {
  const {clock, server_time_ms} = state, up = clock.direction === "up";
  const inOvertime = clock.phase === "period" || clock.phase === "block";
  const then = up ? clock.elapsed_ms : inOvertime ? clock.phase_remaining_ms : clock.remaining_ms;
  if (!clock.running || then === null) return then;
  if (now === null) return null;
  const ran = clock.phase === "delay" ? Math.max(0, now - clock.next_at_ms) : now - server_time_ms;
  const ms = up ? then + ran : then - ran;
  return up || state.action_on_timeout.type === "notify" ? ms : Math.max(0, ms);
}

/** A time as text: a clock that runs down is rounded up and shows tenths in its last ten seconds. */
export function clockText(ms, up = false) {
  if (ms === null) return "–:––";
  const tenths = !up && ms > 0 && ms < 10_000, unit = tenths ? 100 : 1000;
  const count = up ? Math.floor(ms / unit) : Math.ceil(ms / unit), whole = Math.abs(count);
  const seconds = tenths ? Math.floor(whole / 10) : whole, two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(seconds / 3600), minutes = Math.floor(seconds / 60) % 60;
  return (count < 0 ? "−" : "") + (hours ? `${hours}:${two(minutes)}` : minutes) + `:${two(seconds % 60)}`
    + (tenths ? `.${whole % 10}` : "");
}
