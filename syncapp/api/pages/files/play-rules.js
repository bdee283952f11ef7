// What the page /play/<id> says about a state: the clocks' owners, their rules in words, who has won. Pure functions.

import {play} from './texts.js'

/**
 * Who has a clock: [{id, people}], in the order of the turns. `people` are the ids of the participants that use it.
 *
 * Empty if all share one clock.
 */
export function ownersOf(state) {
  const {scope} = state.clock
  if (scope === 'participant') return state.participants.map(({participant_id: id}) => ({id, people: [id]}))
  if (scope !== 'group') return []
  return state.groups.map(({group_id: id}) => ({
    id, people: state.participants.filter((each) => each.group_id === id).map((each) => each.participant_id),
  }))
}

/** The document of an owner: a participant or a group. Undefined for the clock that all share. */
export function documentOf(state, id) {
  return (state.groups ?? []).find((each) => each.group_id === id)
    ?? state.participants.find((each) => each.participant_id === id)
}

/** The stage that an owner is in; undefined without a time control. */
export function stageOf(state, owner) {
  return (owner?.time_control ?? state.time_control)?.stages[(owner?.stage ?? 1) - 1]
}

/** From which times (ms) on a clock is low and critical: the last two warnings of the session, or 20 s and 10 s. */
export function thresholdsOf(state) {
  const [critical, low] = [...state.warn_at_ms ?? [10_000, 20_000]].sort((a, b) => a - b)
  return {critical, low: low ?? critical}
}

/** How a clock stands: 'ok', 'low', 'critical', or 'flag' when its time is up. */
export function levelOf(state, owner, reading) {
  if (owner?.has_expired || (!owner && state.status === 'expired')) return 'flag'
  if (!reading || reading.ms === null || state.clock.direction === 'up') return 'ok'
  const {critical, low} = thresholdsOf(state), stage = stageOf(state, owner)
  // Main time with periods after it, and a clock that stands, warn nobody.
  const isLast = reading.phase === 'period' || reading.phase === 'block' || !stage?.period_ms
  if (!isLast || state.status === 'pending') return 'ok'
  return reading.ms <= critical ? 'critical' : reading.ms <= low ? 'low' : 'ok'
}

/** The rules of a session's clocks in words, such as "3 min + 2 s per move"; empty if there is nothing to say. */
export function rulesOf(state) {
  const control = state.time_control ?? state.participants.find((each) => each.time_control)?.time_control
  if (control) return control.stages.map((stage, index) => stageInWords(stage, index)).join(play.thenStage)
  if (state.time_per_cycle_ms) return play.perCycle(duration(state.time_per_cycle_ms))
  const budgets = new Set((state.groups ?? state.participants).map((each) => each.total_time_ms))
  const [ms] = budgets
  if (!ownersOf(state).length || budgets.size > 1 || !ms) return ''
  return duration(ms) + (state.increment_ms ? play.increment(duration(state.increment_ms)) : '')
}

function stageInWords(stage) {
  if (stage.per_move_ms) return play.perMove(duration(stage.per_move_ms))
  const time = duration(stage.time_ms)
  let words = stage.moves ? play.movesIn(stage.moves, time) : time
  if (stage.hourglass) words = play.hourglass(time)
  if (stage.increment_ms) words += play.increment(duration(stage.increment_ms))
  if (stage.delay_ms) words += play[stage.delay === 'bronstein' ? 'bronstein' : 'delay'](duration(stage.delay_ms))
  if (stage.period_ms) words += stage.time_ms ? play.thenOvertime(overtime(stage)) : overtime(stage)
  return words
}

/** The periods or blocks of a stage: "3 × 30 s", "25 moves per 10 min". */
export function overtime({periods, period_moves: moves, period_ms: ms}) {
  return periods ? `${periods} × ${duration(ms)}` : play.blocks(moves, duration(ms))
}

/** A time in words: "1 h 30 min", "3 min", "90 s" is "1 min 30 s". */
export function duration(ms) {
  const units = [['d', 86_400_000], ['h', 3_600_000], ['min', 60_000], ['s', 1000]]
  const parts = []
  for (const [name, unit] of units) {
    const count = name === 's' ? Math.round(ms / 100) / 10 : Math.floor(ms / unit)
    if (count) parts.push(`${count} ${name}`)
    ms -= name === 's' ? 0 : count * unit
  }
  return parts.join(' ') || '0 s'
}

/** What a session's state is, in words: whose turn, or how it ended. */
export function headlineOf(state, own) {
  const {status, completion, active_participant_id: mover} = state
  if (status === 'pending') return play.pending
  if (status === 'paused') return mover ? play.pausedTurn(name(mover)) : play.paused
  if (status === 'running') {
    return mover === null ? play.running : mover === own ? play.yourMove : play.toMove(name(mover))
  }
  if (status === 'expired') return expiredText(state)
  if (status === 'cancelled') return play.cancelled
  const {winner} = completion?.result ?? {}
  const reason = completion?.reason
  if (typeof winner === 'string') return play.won(name(winner), reason)
  return reason ? play.endedBecause(reason) : play.ended
}

function expiredText(state) {
  const owners = ownersOf(state), lost = owners.filter(({id}) => documentOf(state, id).has_expired)
  if (owners.length === 2 && lost.length === 1) {
    return play.wonOnTime(name(owners.find(({id}) => id !== lost[0].id).id))
  }
  return lost.length ? play.outOfTime(lost.map(({id}) => name(id)).join(', ')) : play.timeIsUp
}

let names = {}

/** Takes the names of people from `metadata.names`, an object by id. */
export function takeNames({metadata}) {
  names = {...metadata.names}
}

/** The name of a player as people see it: from `metadata.names`, or the id; `white` gets a capital letter. */
export function name(id) {
  const given = Object.hasOwn(names, id) && typeof names[id] === 'string' ? names[id].trim().slice(0, 40) : ''
  if (given) return given
  return /^[a-z]+$/.test(id) ? id[0].toUpperCase() + id.slice(1) : id
}

/** The id of the game that followed this one, if somebody has begun one from this page; else null. */
export function nextGame({metadata}) {
  const id = metadata.next_session_id
  return typeof id === 'string' && /^[0-9a-f-]{36}$/i.test(id) ? id : null
}

const KEPT = [
  'sync_mode', 'action_on_timeout', 'idle_timeout_s', 'metadata', 'warn_at_ms', 'warn_scope', 'lag_compensation',
  'takeback_cycles', 'max_cycles', 'max_time_ms',
]

/** The body of `POST /v1/sessions` for another game with the same settings. */
export function newGame(state) {
  const owns = state.groups ? 'groups' : 'participants', control = state.time_control
  const body = Object.fromEntries(KEPT.filter((key) => state[key] != null).map((key) => [key, state[key]]))
  if (body.metadata) {
    const {next_session_id: _, ...metadata} = body.metadata
    body.metadata = metadata
  }
  if (control) body.time_control = control
  else if (state.increment_ms && ownersOf(state).length) body.increment_ms = state.increment_ms
  for (const key of ['total_time_ms', 'time_per_cycle_ms']) {
    if (state[key] && !ownersOf(state).length) body[key] = state[key]
  }
  const budget = (each) => each.time_control ? {time_control: each.time_control}
    : control || !each.total_time_ms ? {} : {total_time_ms: each.total_time_ms}
  body.participants = state.participants.map((each) => ({
    participant_id: each.participant_id,
    ...(each.group_id ? {group_id: each.group_id} : {}),
    ...(owns === 'participants' ? budget(each) : {}),
  }))
  if (state.groups) body.groups = state.groups.map((each) => ({group_id: each.group_id, ...budget(each)}))
  return body
}
