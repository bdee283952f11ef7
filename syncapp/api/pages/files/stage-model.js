// What a stage timer shows, from the session's state. docs/pages.md describes `metadata.stage`.
// Anyone who may control the session can have written the metadata, so every member is checked here.

import {timeText} from '/sdk/syncapp.js'
import {stage as texts} from './texts.js'

export const MESSAGE_COLOURS = ['white', 'green', 'yellow', 'red', 'blue']
export const TIMES = ['down', 'up', 'clock', 'none']
export const PARTS = ['title', 'speaker', 'next', 'message', 'sign', 'bar', 'clock']
const LENGTHS = {title: 120, speaker: 80, notes: 500, message: 200}
const DAY_MS = 86_400_000

/** The members of `metadata.stage`, each of its right type. Items are in order. */
export function readStage(state) {
  const raw = object(state?.metadata?.stage)
  const items = Object.entries(object(raw.items)).map(([id, item], index) => readItem(id, object(item), index))
  items.sort((one, other) => one.place - other.place)
  const current = object(raw.current), message = object(raw.message), show = object(raw.show)
  const isNamed = typeof current.item === 'string'              // until an item was loaded, the first is on stage
  const index = isNamed ? items.findIndex((item) => item.id === current.item) : 0
  return {
    title: text(raw.title, LENGTHS.title),
    items,
    index,
    item: items[index] ?? null,
    next: items[index + 1] ?? null,
    previous: items[index - 1] ?? null,
    isLoaded: isNamed,
    usedMs: number(current.used_ms, 0, Infinity, 0),
    message: {
      text: text(message.text, LENGTHS.message),
      colour: MESSAGE_COLOURS.includes(message.colour) ? message.colour : 'white',
      shown: message.shown === true,
    },
    flashAt: number(raw.flash_at, 0, Infinity, 0),
    blackout: raw.blackout === true,
    warn: readWarnings(object(raw.warn), state?.warn_at_ms),
    time: TIMES.includes(show.time) ? show.time : 'down',
    // Everything is shown unless it is switched off; the time of day only if it is switched on.
    show: {...Object.fromEntries(PARTS.map((part) => [part, show[part] !== false])), clock: show.clock === true},
  }
}

function readItem(id, item, index) {
  return {
    id,
    place: number(item.place, -Infinity, Infinity, index),
    title: text(item.title, LENGTHS.title),
    speaker: text(item.speaker, LENGTHS.speaker),
    notes: text(item.notes, LENGTHS.notes),
    ms: number(item.ms, 1000, DAY_MS, 300_000),
  }
}

/** The thresholds in ms: those of the stage, or else the largest and smallest at which the session warns. */
function readWarnings(warn, warnAtMs) {
  const sorted = [...(Array.isArray(warnAtMs) ? warnAtMs : [])].sort((one, other) => other - one)
  const [largest, smallest] = sorted.length ? [sorted[0], sorted.at(-1)] : [60_000, 15_000]
  return {yellowMs: number(warn.yellow_ms, 0, DAY_MS, largest), redMs: number(warn.red_ms, 0, DAY_MS, smallest)}
}

function object(value) {
  return value !== null && typeof value === 'object' && !Array.isArray(value) ? value : {}
}

function text(value, length) {
  return typeof value === 'string' ? value.slice(0, length) : ''
}

function number(value, least, most, otherwise) {
  return Number.isFinite(value) && value >= least && value <= most ? value : otherwise
}

/**
 * The times at this instant, in ms.
 *
 * leftMs: until the item's end, negative in overtime, null for a stopwatch; elapsedMs: since the item was loaded;
 * grantedMs: both together: the item's time with all adjustments. All are null while the server's clock is not known.
 * level: green, yellow, red or over; status: pending, running, paused or over (the session has ended).
 */
export function moment(game, stage) {
  const {state} = game
  const isOver = ['completed', 'expired', 'cancelled'].includes(state.status)
  const status = isOver ? 'over' : state.status
  const leftMs = game.remaining()
  const reading = game.reading()
  const elapsedMs = reading && Math.max(0, reading.usedMs - stage.usedMs)
  const grantedMs = leftMs === null || elapsedMs === null ? null : leftMs + elapsedMs
  const isUp = state.clock.direction === 'up'
  const level = levelOf(leftMs, grantedMs, stage)
  return {leftMs, elapsedMs, grantedMs, isUp, status, level, clockMs: game.clock.now()}
}

function levelOf(leftMs, grantedMs, stage) {
  if (leftMs === null) return 'green'
  if (leftMs < 0 || (leftMs === 0 && grantedMs > 0)) return 'over'
  const {yellowMs, redMs} = thresholds(stage)
  if (leftMs <= redMs) return 'red'
  return leftMs <= yellowMs ? 'yellow' : 'green'
}

/** The thresholds that count for the item on stage: those below its whole time, so that a short one begins green. */
export function thresholds({item, warn: {yellowMs, redMs}}) {
  const wholeMs = item?.ms ?? Infinity
  return {yellowMs: yellowMs < wholeMs ? yellowMs : -1, redMs: redMs < wholeMs ? redMs : -1}
}

/**
 * Whether the clock still has the session's own time, and the item on stage has another: nothing was loaded yet, and
 * nobody has changed the time.
 */
export function hasOtherTime(game, {item, isLoaded}) {
  const {status, total_time_ms: totalMs} = game.state, reading = game.reading()
  if (!item || isLoaded || totalMs === null || totalMs === item.ms || !reading) return false
  if (!['pending', 'running', 'paused'].includes(status)) return false
  const leftMs = game.remaining()
  return leftMs !== null && Math.abs(leftMs + reading.usedMs - totalMs) < 1000
}

/** The large time: what is left, with a plus sign in overtime; or what has passed; or the time of day. */
export function mainText(time, now) {
  if (time === 'none') return ''
  if (time === 'clock') return dayText(now.clockMs)
  if (time === 'up' || now.isUp) return timeText(now.elapsedMs, {up: true, tenths: false})
  return now.level === 'over' ? overText(now.leftMs) : timeText(now.leftMs, {tenths: false})
}

export function overText(leftMs) {
  return `+${timeText(Math.max(0, -leftMs), {up: true, tenths: false})}`
}

/** The words that go with the colour. */
export function signText(time, now) {
  if (now.status === 'over') return texts.ended
  if (now.level === 'over') return time === 'down' ? texts.over : `${texts.over} ${overText(now.leftMs)}`
  if (now.status === 'pending') return texts.ready
  if (now.status === 'paused') return now.elapsedMs > 0 ? texts.paused : texts.ready
  return {green: '', yellow: texts.yellow, red: texts.red}[now.level]
}

const dayFormats = new Map()

/** The time of day where the reader is, as there is usual. */
export function dayText(ms, timeStyle = 'medium') {
  if (ms === null) return '–:––'
  if (!dayFormats.has(timeStyle)) dayFormats.set(timeStyle, new Intl.DateTimeFormat(undefined, {timeStyle}))
  return dayFormats.get(timeStyle).format(ms)
}

/** A duration as it is written in a form: 1:30, 0:05, 1:00:00. */
export function durationText(ms) {
  return timeText(ms, {tenths: false})
}

/** Reads "5" (minutes), "1:30", "1:00:00", "90s", "1h 30m"; returns ms, or null if it is none of them. */
export function readDuration(written) {
  const trimmed = written.trim().toLowerCase()
  const units = /^(?:(\d{1,2})\s*h)?\s*(?:(\d{1,4})\s*m(?:in)?)?\s*(?:(\d{1,5})\s*s(?:ec)?)?$/.exec(trimmed)
  const sum = (parts) => parts.reduce((total, part) => total * 60 + Number(part ?? 0), 0)
  let seconds
  if (trimmed && units) seconds = sum(units.slice(1))
  else if (/^\d{1,4}(:[0-5]?\d){1,2}$/.test(trimmed)) seconds = sum(trimmed.split(':'))
  else if (/^\d{1,4}([.,]\d)?$/.test(trimmed)) seconds = Math.round(Number(trimmed.replace(',', '.')) * 60)
  else return null
  return seconds * 1000
}
