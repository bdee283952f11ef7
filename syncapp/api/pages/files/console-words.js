// Times, durations and events in words. Pure functions.

import {timeText} from '/sdk/syncapp.js'
import {consoleTexts as texts} from './texts.js'

// Always with 24 hours, so that times line up and are short.
const SECONDS = {hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23'}
const CLOCK = new Intl.DateTimeFormat(undefined, SECONDS)
const EXACT = new Intl.DateTimeFormat(undefined, {...SECONDS, fractionalSecondDigits: 3})
const DAY = new Intl.DateTimeFormat(undefined, {day: 'numeric', month: 'short'})
const FULL = new Intl.DateTimeFormat(undefined, {...SECONDS, day: 'numeric', month: 'short', year: 'numeric'})
const UNITS = {ms: 1, s: 1000, m: 60_000, h: 3_600_000}

/** An instant (ms or ISO 8601) in local time: the time, and the day if it is not today. */
export function instantText(instant) {
  return instant === null || instant === undefined ? '–' : withDay(new Date(instant), CLOCK)
}

function withDay(date, format) {
  const isToday = date.toDateString() === new Date().toDateString()
  return isToday ? format.format(date) : `${DAY.format(date)}, ${format.format(date)}`
}

/** An instant with its date. */
export function fullInstantText(instant) {
  return FULL.format(new Date(instant))
}

/** An instant to the millisecond. */
export function exactInstantText(ms) {
  return withDay(new Date(ms), EXACT)
}

/** A length of time, with tenths below a minute: "0:04.2". Null gives a dash. */
export function lengthText(ms) {
  if (ms === null || ms === undefined) return '–'
  if (Math.abs(ms) >= 60_000) return timeText(ms, {up: true, tenths: false})
  const tenths = Math.round(Math.abs(ms) / 100)
  if (tenths === 600) return `${ms < 0 ? '−' : ''}1:00`
  return `${ms < 0 ? '−' : ''}0:${String(Math.floor(tenths / 10)).padStart(2, '0')}.${tenths % 10}`
}

/** What is left of a budget: from a minute on rounded as clocks round, so that both show the same. */
export function leftText(ms) {
  return Math.abs(ms) >= 60_000 ? timeText(ms, {tenths: false}) : lengthText(ms)
}

/** A change of a clock, with its sign: "+0:30". */
export function changeText(ms) {
  return `${ms < 0 ? '−' : '+'}${lengthText(Math.abs(ms)).replace(/\.0$/, '')}`
}

/** How long ago, or how old, in words that need no clock: "12 s", "5 min", "3 h", "2 days". */
export function ageText(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000))
  if (seconds < 90) return `${seconds} s`
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`
  return seconds < 129_600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`
}

/**
 * Reads what people write for a length of time: "+0:30", "-1:00", "1:30:00", "45s", "2m", "90".
 *
 * Returns {ms, isSigned}; null if it is none. A number alone is in seconds.
 */
export function readLength(text) {
  const [, sign, rest] = /^\s*([+\-−]?)\s*(.*?)\s*$/.exec(text)
  const ms = readUnsigned(rest)
  if (ms === null || ms > 30 * 86_400_000) return null
  return {ms: sign && sign !== '+' ? -ms : ms, isSigned: sign !== ''}
}

function readUnsigned(text) {
  const parts = /^(?:(\d{1,4}):)?(\d{1,5}):([0-5]?\d(?:\.\d{1,3})?)$/.exec(text)
  if (parts) {
    const [hours, minutes, seconds] = parts.slice(1).map((part) => Number(part ?? 0))
    return Math.round(hours * UNITS.h + minutes * UNITS.m + seconds * UNITS.s)
  }
  const amount = /^(\d{1,7}(?:\.\d{1,3})?)\s*(ms|s|m|min|h)?$/.exec(text)
  return amount ? Math.round(Number(amount[1]) * UNITS[(amount[2] ?? 's').replace('min', 'm')]) : null
}

/** What happened, in words. `logged`: a row of the audit log, or what is known of it before it is there. */
export function eventText({type, event = {}}) {
  const who = event.participant_id ?? event.group_id
  const name = texts.events[type] ?? type
  const next = event.next_participant_id
  const parts = [who ? `${name}: ${who}${next && next !== who ? ` → ${next}` : ''}` : name]
  if (event.cycles) parts.push(texts.turns(event.cycles))
  if (event.stage) parts.push(texts.stage(event.stage))
  if (event.threshold_ms) parts.push(texts.left(lengthText(event.threshold_ms)))
  if (event.reason) parts.push(texts.because(event.reason))
  if (event.result !== undefined) parts.push(JSON.stringify(event.result))
  return parts.join(' · ')
}

/** How a budget changed, in words; empty if none did. */
export function budgetText({event = {}, remaining_ms: remaining, elapsed_ms: elapsed}) {
  if (event.adjusted) {
    return Object.entries(event.adjusted).map(([owner, {remaining_ms: after, adjusted_ms: by}]) =>
      `${owner} ${changeText(by)}: ${texts.from(leftText(after - by), leftText(after))}`).join('; ')
  }
  if (event.adjusted_ms !== undefined && remaining !== null && remaining !== undefined) {
    const before = remaining - event.adjusted_ms
    return `${changeText(event.adjusted_ms)}: ${texts.from(leftText(before), leftText(remaining))}`
  }
  const parts = []
  if (elapsed) parts.push(texts.spent(lengthText(elapsed)))
  if (event.bonus_ms) parts.push(texts.gained(changeText(event.bonus_ms)))
  if (remaining !== null && remaining !== undefined) parts.push(texts.left(leftText(remaining)))
  if (event.periods_left) parts.push(texts.period(event.periods_left))
  return parts.join(', ')
}

/** Who caused an event. linkNames: names of links by `jti`. */
export function actorText({actor, principal, erased}, linkNames = new Map()) {
  if (actor === 'system') return texts.itself
  if (principal?.startsWith('link:')) {
    const jti = principal.slice(5)
    return texts.link(linkNames.get(jti) ?? jti.slice(0, 8))
  }
  return principal ?? (erased?.includes('principal') ? texts.erased : texts.client)
}
