// The candidates' sessions, as an invigilator's page needs them: made, watched, and commanded together.

import {createSession, open, request} from '/sdk/syncapp.js'
import {candidatesOf, groupsOf, isOver} from './exam-model.js'
import {newUuid} from './uuid.js'

const BATCH = 100

/** The seats of a hall. `onChange` is called after each change of one. */
export class Seats {
  #games = new Map()
  #isPreparing = false

  constructor(hall, access, onChange) {
    this.hall = hall
    this.access = access
    this.onChange = onChange
  }

  /** The session of a seat, or null while it is being made. */
  game(id) {
    return this.#games.get(id) ?? null
  }

  /** Watches the seats that the hall names, and makes those that are missing. Throws a `SyncAppError`. */
  async follow() {
    for (const {seat} of candidatesOf(this.hall.state)) {
      if (!seat || this.#games.has(seat)) continue
      const game = open(location.origin, seat, {token: this.access.token, wait: true})
      game.on('change', () => this.onChange())
      game.on('status', () => this.onChange())
      this.#games.set(seat, game)
    }
    await this.#prepare()
  }

  /**
   * Gives each candidate an id, notes it in the hall, then creates the sessions.
   *
   * Each step is safe to repeat, and another invigilator's page may do the same at the same time: the hall is changed
   * only at the version that was read, and an id is created only once.
   */
  async #prepare() {
    const {state} = this.hall, candidates = candidatesOf(state)
    const isDone = state.metadata.seats_ready === true && candidates.every(({seat}) => seat)
    if (this.#isPreparing || isDone || !candidates.length || isOver(state)) return
    this.#isPreparing = true
    try {
      if (candidates.some(({seat}) => !seat)) {
        const withSeats = candidates.map((each) => ({...each, seat: each.seat ?? newUuid()}))
        await this.#note({candidates: withSeats, seats_ready: false})
      } else {
        for (const candidate of candidates) await this.#create(candidate)
        await this.#note({seats_ready: true})
      }
    } catch (error) {
      if (error.code !== 'CONFLICT') throw error               // what was changed meanwhile comes, and asks again
    } finally {
      this.#isPreparing = false
    }
    await this.follow()
  }

  #note(changes) {
    const {metadata, version, epoch} = this.hall.state
    return this.hall.update({metadata: {...metadata, ...changes}, expectedVersion: version, expectedEpoch: epoch})
  }

  async #create({name, group, seat}) {
    const {state} = this.hall
    if (this.game(seat)?.state) return
    const timeMs = (groupsOf(state).find((each) => each.name === group) ?? groupsOf(state)[0]).timeMs
    const body = {
      session_id: seat, sync_mode: 'global', total_time_ms: timeMs, idle_timeout_s: state.idle_timeout_s,
      ...(state.warn_at_ms?.length ? {warn_at_ms: state.warn_at_ms} : {}),
      metadata: {title: state.metadata.title ?? '', exam: this.hall.id, candidate: name, group},
    }
    // Two pages that create the same seat send the same request with the same key, so it is one.
    const options = {token: this.access.token, idempotencyKey: `seat-${seat}`}
    await createSession(location.origin, body, options).catch((error) => {
      if (error.code !== 'SESSION_EXISTS') throw error
    })
  }

  /** Adds a candidate to the hall. */
  add(name, group) {
    return this.#note({candidates: [...candidatesOf(this.hall.state), {name, group, seat: null}], seats_ready: false})
  }

  /**
   * Commands the hall and all seats in one of these statuses, in batches. Each session's command is atomic, and the key
   * makes the whole safe to repeat. Returns how many took effect, and how many were refused.
   */
  async all(command, statuses, args) {
    const seats = candidatesOf(this.hall.state).map(({seat}) => seat).filter(Boolean)
    const statusOf = (id) => (id === this.hall.id ? this.hall : this.game(id))?.state?.status
    // A seat whose state is not here yet is not left out: in a fire alarm, its clock must stop as well.
    const ids = [this.hall.id, ...seats].filter((id) => !statusOf(id) || statuses.includes(statusOf(id)))
    const sum = {succeeded: 0, failed: 0}
    for (let from = 0; from < ids.length; from += BATCH) {
      const {succeeded, failed} = await request(location.origin, 'POST', '/v1/sessions/batch', {
        token: this.access.token, idempotencyKey: newUuid(), headers: {Prefer: 'return=minimal'},
        body: {command, session_ids: ids.slice(from, from + BATCH), ...(args ? {args} : {})},
      })
      sum.succeeded += succeeded
      sum.failed += failed
    }
    return sum
  }
}
