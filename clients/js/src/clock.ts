// What the clocks of a state show at a time of the server. Pure functions: the time comes from the caller.
//
// The rules are in docs/clock.md and docs/time-controls.md; the server has them in lua/_boundaries.lua and in
// syncapp/domain. All is computed from what is settled, as of `cycle_started_at`. It goes on past the boundaries of
// periods and blocks, as the server will say when it applies them. At the end of the time a clock stands.

import type { Participant, Reading, Stage, State } from './types.js'

/** Whatever has a budget: a participant, a group, or the session itself. */
type Holder = Partial<Pick<Participant, 'group_id' | 'time_remaining_ms' | 'has_expired' | 'stage' | 'periods_left'
  | 'period_remaining_ms' | 'block_moves_left' | 'turn_ms' | 'lag_left_ms'>> & { time_control?: unknown }

interface Control {
  stages: (Stage & { delay?: string; delay_ms?: number; period_moves?: number })[]
  charge_unit_ms: number
  min_charge_ms: number
}

/** What the clock of an owner shows; null if that is not known. Without an owner, the clock that runs or would run. */
export function reading(state: State, nowMs: number | null, owner?: string): Reading | null {
  const { participants, groups, clock: { running } } = state
  const mover = moverOf(state)
  const person = participants.find((each) => each.participant_id === owner)
  const group = groups?.find((each) => each.group_id === owner)
  const holder = person ? holderOf(state, person) : owner === undefined ? mover : group
  if (!holder) return null

  const isMover = holder === mover
  // In an hourglass, what one owner uses, the others gain.
  const others: Holder[] = isMover || !state.time_control?.stages[0]?.hourglass ? []
    : (groups ?? participants as Holder[]).filter((each) => each !== mover)
  const changes = running && (isMover || others.length > 0)
  if (changes && nowMs === null) return null

  const moving = momentOf(state, mover, nowMs)
  const { left, phase, delayMs, periodsLeft, blockMovesLeft } = isMover ? moving : momentOf(state, holder)
  const gained = others.length
    && Math.floor((mover.time_remaining_ms! - moving.left + others.indexOf(holder)) / others.length)
  const usedMs = (person ?? group ?? state).time_used_ms as number | undefined
  return {
    ms: holder.time_remaining_ms == null ? null : left + gained,
    running: changes && !moving.isOver,
    phase,
    delayMs,
    periodsLeft,
    blockMovesLeft,
    usedMs: (usedMs ?? participants.reduce((sum, each) => sum + each.time_used_ms, 0))
      + ((person ? person.is_active : isMover) ? moving.ranMs : 0),
  }
}

/** What an owner's clock shows, in ms; null if it has no budget, or if that is not known. */
export function remaining(state: State, nowMs: number | null, owner?: string): number | null {
  return reading(state, nowMs, owner)?.ms ?? null
}

/** How long the cycle or the stopwatch has run, in ms; null if that is not known. */
export function elapsed(state: State, nowMs: number | null): number | null {
  const { running, direction } = state.clock
  if (running && nowMs === null) return null
  return momentOf(state, moverOf(state), nowMs).elapsedMs + (direction === 'up' ? state.time_used_ms as number : 0)
}

/** The holder of the budget that a participant uses. */
function holderOf(state: State, person: Participant): Holder {
  const { clock: { scope }, groups } = state
  return scope === 'participant' ? person
    : groups?.find((each) => each.group_id === person.group_id) ?? state as unknown as Holder
}

/** The holder of the budget that runs or would run. */
function moverOf(state: State): Holder {
  const { participants, clock, groups } = state
  const person = participants.find((each) => each.is_active) ?? (state.session_started_at ? undefined : participants[0])
  if (person) return holderOf(state, person)
  if (clock.scope === 'cycle' || clock.scope === 'session') return state as unknown as Holder
  // A finished session does not say whose turn it was, only what that clock shows.
  const inPeriod = clock.phase === 'period' || clock.phase === 'block'
  const left = inPeriod ? clock.phase_remaining_ms : clock.remaining_ms
  const holders: Holder[] = groups ?? participants
  return holders.find((each) => each.turn_ms) ?? holders.find((each) => leftOn(each) === left) ?? holders[0]!
}

const leftOn = (holder: Holder) => holder.period_remaining_ms ?? holder.time_remaining_ms ?? 0

/** A holder's clock as it was settled; with a time, if a clock runs, as it is if this one runs until then. */
function momentOf(state: State, holder: Holder, nowMs: number | null = null) {
  const { clock, action_on_timeout: { type }, server_time_ms } = state
  const control = (holder.time_control ?? state.time_control) as Control | null | undefined
  const stage = control?.stages[(holder.stage ?? 1) - 1]
  const delay = stage?.delay === 'simple' ? stage.delay_ms! : 0
  let left = leftOn(holder)
  let inPeriod = holder.period_remaining_ms != null
  let periodsLeft = holder.periods_left ?? null
  let blockMovesLeft = holder.block_moves_left ?? null
  let turn = holder.turn_ms ?? 0
  let ranMs = 0
  let elapsedMs = 0
  let isOver = false

  if (clock.running && nowMs !== null) {
    const started = Date.parse(state.cycle_started_at!)
    const now = Math.max(Math.floor(nowMs), server_time_ms)
    const end = type === 'notify' ? Infinity : clock.deadline_ms ?? Infinity
    let from = started
    let until = now
    const run = (to: number) => {
      const before = Math.max(0, turn - delay)
      turn += to - from
      left -= Math.max(0, turn - delay) - before
      from = to
    }
    // A stage with periods or blocks has no delay.
    while (stage?.period_ms && !holder.has_expired && (!inPeriod || periodsLeft! > 1)) {
      const total = left + turn
      const unit = control!.charge_unit_ms
      const next = from + (total > control!.min_charge_ms ? Math.max(0, Math.ceil(total / unit) * unit - turn) : 0)
      if (now < next + (holder.lag_left_ms ?? 0)) {
        until = Math.min(now, next)  // a move that was made in time may be on its way
        break
      }
      run(next)
      left += stage.period_ms
      if (inPeriod) periodsLeft!--
      else blockMovesLeft = stage.period_moves ?? null
      inPeriod = true
    }
    isOver = now >= end
    ranMs = Math.min(now, end) - started
    elapsedMs = Math.min(now, end) - from
    run(Math.min(until, end))
  }
  const delayMs = Math.max(0, delay - turn)
  const phase: Reading['phase'] = delayMs ? 'delay' : inPeriod ? stage?.periods ? 'period' : 'block' : 'main'
  return { left, phase, delayMs, periodsLeft, blockMovesLeft, ranMs, elapsedMs, isOver }
}
