// What the sessions of an exam mean. No page is needed here.
//
// The session of the hall runs as long as the group with the most time; it shows when each group ends, and knows the
// candidates. Each candidate has a session, a seat, with a clock of its own, which says nothing about the others.

/** Whether a session is the clock of one candidate. */
export function isSeat(state) {
  return typeof state.metadata.candidate === 'string'
}

/** The groups of a hall: [{name, timeMs}], at least one. */
export function groupsOf(state) {
  const given = Array.isArray(state.metadata.groups) ? state.metadata.groups : []
  const groups = given.filter(({time_ms: timeMs}) => Number.isFinite(timeMs))
    .map(({name, time_ms: timeMs}) => ({name: String(name ?? ''), timeMs}))
  return groups.length ? groups : [{name: '', timeMs: state.total_time_ms ?? 0}]
}

/** The candidates of a hall: [{name, group, seat}]; seat is the id of the candidate's session, or null. */
export function candidatesOf(state) {
  const given = Array.isArray(state.metadata.candidates) ? state.metadata.candidates : []
  const text = (value) => String(value ?? '')
  return given.map(({name, group, seat}) => ({name: text(name), group: text(group), seat: seat ?? null}))
}

export function isOver({status}) {
  return ['completed', 'expired', 'cancelled'].includes(status)
}

/**
 * The clocks of a hall's groups: [{name, timeMs, leftMs, endsAtMs}], null while unknown.
 *
 * leftMs: what the hall's clock shows. nowMs: the server's time. While the clock stands, endsAtMs is when the group
 * would end if it went on now. Time that is added to the hall is added to each group.
 */
export function groupClocks(state, leftMs, nowMs) {
  return groupsOf(state).map(({name, timeMs}) => {
    const laterMs = (state.total_time_ms ?? timeMs) - timeMs    // how long the hall goes on after this group
    const left = isOver(state) ? 0 : leftMs === null ? null : Math.max(0, leftMs - laterMs)
    return {name, timeMs, leftMs: left, endsAtMs: left === null || left === 0 || nowMs === null ? null : nowMs + left}
  })
}

/** The smallest warning threshold that a clock has reached, in ms; null if none, or if it has ended. */
export function warningAt(state, leftMs) {
  if (leftMs === null || leftMs <= 0) return null
  const reached = (state.warn_at_ms ?? []).filter((threshold) => leftMs <= threshold)
  return reached.length ? Math.min(...reached) : null
}

/** A time of day in this device's time zone; with seconds unless they are 0 and not wanted. */
export function timeOfDay(ms, {seconds = false} = {}) {
  if (ms === null) return '–:––'
  const date = new Date(seconds ? ms : Math.ceil(ms / 1000) * 1000), two = (number) => String(number).padStart(2, '0')
  const hasSeconds = seconds || date.getSeconds() !== 0
  return `${two(date.getHours())}:${two(date.getMinutes())}${hasSeconds ? `:${two(date.getSeconds())}` : ''}`
}

/** A duration in words: '1 h 30 min', '1 h 52 min 30 s'. */
export function durationText(ms) {
  const all = Math.round(ms / 1000), hours = Math.floor(all / 3600), minutes = Math.floor(all / 60) % 60
  const parts = [hours && `${hours} h`, minutes && `${minutes} min`, all % 60 && `${all % 60} s`].filter(Boolean)
  return parts.join(' ') || '0 min'
}
