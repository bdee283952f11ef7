// What the clocks of a state show. Pure functions: the time comes from the caller.

/**
 * The clocks of a state: one for each participant or group, or one that all share.
 *
 * ms: what it shows while it stands. liveMs: for a clock that does not stand, what it shows at a time of the server.
 */
export function rows(state) {
  const {scope, direction} = state.clock;
  if (scope === "participant") return owners(state, state.participants, "participant_id", state.active_participant_id);
  const mover = state.participants.find((each) => each.participant_id === state.active_participant_id);
  if (scope === "group") return owners(state, state.groups, "group_id", mover?.group_id);
  const name = direction === "up" ? "Time" : "Time left";
  return [{name, ms: null, active: true, liveMs: (now) => shownMs(state, now)}];
}

function owners(state, all, key, active) {
  const mover = all.find((each) => each[key] === active), others = all.filter((each) => each !== mover);
  const {running} = state.clock, isHourglass = state.time_control?.stages[0].hourglass;
  return all.map((each) => {
    const row = {name: each[key], ms: leftMs(each), active: each === mover};
    if (running && row.active) row.liveMs = (now) => shownMs(state, now);
    else if (running && isHourglass) row.liveMs = (now) => gainedMs(state, now, mover, each, others);
    return row;
  });
}

/** What a clock of an hourglass shows that gains what the mover uses. */
function gainedMs(state, now, mover, owner, others) {
  const left = shownMs(state, now);
  if (left === null) return null;
  return owner.time_remaining_ms + Math.floor((mover.time_remaining_ms - left + others.indexOf(owner)) / others.length);
}

/** What an owner's clock shows while it stands: its period or block, if it has used up its main time. */
function leftMs(owner) {
  return owner.period_remaining_ms ?? owner.time_remaining_ms;
}

/** What the counting clock shows at `now`, the server's time in ms; null while that is null. */
function shownMs(state, now) {
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
