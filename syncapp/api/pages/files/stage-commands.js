// Changes of a stage timer. Each can be repeated, and several operators lose nothing of each other's work.
//
// Metadata is changed by merge patches (RFC 7396), and each patch has only what its operator changed. It is made from a
// state, and refused by the server if the session has changed since (`expectedVersion`); then it is made anew.

import {readStage} from './stage-model.js'

const TRIES = 8

/** The state at this version, or a later one, as soon as it is here. */
export function reached(game, version) {
  if (game.state && (version === null || game.state.version >= version)) return Promise.resolve(game.state)
  return new Promise((resolve) => {
    const end = game.on('change', ({state}) => {
      if (state.version < version) return
      end()
      resolve(state)
    })
  })
}

/** Calls `attempt(state)` until it is not refused because somebody else was faster. */
async function untilCurrent(game, attempt) {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt(game.state)
    } catch (error) {
      const isLate = ['CONFLICT', 'INVALID_STATE_TRANSITION'].includes(error.code)
      const current = error.current?.version
      if (!isLate || tries === TRIES) throw error
      if (current > game.state.version) await reached(game, current)
      else if (error.code !== 'CONFLICT') throw error
    }
  }
}

/**
 * Changes `metadata.stage` by the merge patch that `patchOf(stage)` returns, now or after a conflict.
 *
 * Returns what was done, or null if `patchOf` returned null: there is nothing to do any more.
 */
export function change(game, patchOf) {
  return untilCurrent(game, async (state) => {
    if (!state) return null                                    // nothing has been shown yet
    const patch = patchOf(readStage(state))
    if (patch === null) return null
    return game.update({metadata: {stage: patch}, expectedVersion: state.version})
  })
}

/** Starts, pauses or resumes, whichever comes next. A second press of somebody who saw the same status does nothing. */
export function toggle(game) {
  const {status: seen} = game.state
  const name = {pending: 'start', running: 'pause', paused: 'resume'}[seen] ?? 'reopen'
  return untilCurrent(game, async ({status, version}) => {
    if (status !== seen) return null
    return game.command(name, {expectedVersion: version})
  })
}

/** Adds time to the clock, or takes it off. */
export function addTime(game, ms) {
  return game.adjust({op: 'add', ms})
}

/** Sets what the clock shows. */
export function setTime(game, ms) {
  return game.adjust({op: 'set', ms})
}

/**
 * Puts an item on stage, with so much time, paused. `from` is the item that the operator saw there.
 *
 * elapsedMs and run are for taking it back: how long the item has run already, and whether it runs again.
 * Three commands: pause, set the time, name the item. Each names the version that the one before has made, so they
 * take effect together or are repeated. Returns null if the item is gone, or another is on stage than was seen.
 */
export function load(game, {id, ms, from, elapsedMs = 0, run = false}) {
  return untilCurrent(game, async (state) => {
    const stage = readStage(state)
    if (from !== undefined && (stage.item?.id ?? null) !== from) return null
    if (id !== null && !stage.items.some((item) => item.id === id)) return null
    let settled = state
    const first = {running: 'pause', completed: 'reopen', expired: 'reopen', cancelled: 'reopen'}[state.status]
    if (first) settled = await reached(game, (await game.command(first, {expectedVersion: state.version})).version)
    const usedMs = Math.round((settled.time_used_ms ?? 0) - elapsedMs)
    const {version} = settled
    const current = {used_ms: Math.max(0, usedMs), ...(id === null ? {} : {item: id})}
    const done = [
      game.adjust({op: 'set', ms: Math.max(0, Math.round(ms)), expectedVersion: version}),
      game.update({metadata: {stage: {current}}, expectedVersion: version + 1}),
    ]
    const results = await Promise.allSettled(done)
    const failed = results.find((result) => result.status === 'rejected')
    if (failed) throw failed.reason
    if (run) await game.resume({})
    return results[1].value
  })
}
