// Takes the place of the core in tests of the other entry points: sessions that do what a test says.

export { timeText } from '../dist/syncapp.js'

/** All sessions that were opened, in order. */
export const opened = []

export class FakeSession {
  state = null
  status = 'connecting'
  reason = null
  isClosed = false
  /** Whether the server's clock is known. */
  isTimeKnown = true
  /** What the clocks show, in ms, by owner; '' is the clock that runs. */
  times = {}
  #listeners = { change: new Set(), status: new Set(), clock: new Set() }

  constructor(base = '', id = 'game', options = {}) {
    Object.assign(this, { base, id, options })
  }

  on(name, listener) {
    this.#listeners[name].add(listener)
    return () => this.#listeners[name].delete(listener)
  }

  emit(name, value = {}) {
    for (const listener of [...this.#listeners[name]]) listener(value)
  }

  get listeners() {
    return Object.values(this.#listeners).reduce((count, each) => count + each.size, 0)
  }

  /** Sets the state, as when a version arrives. */
  change(state) {
    this.state = state
    this.emit('change', { state, event: null, skipped: 0 })
  }

  become(status, reason = null) {
    Object.assign(this, { status, reason })
    this.emit('status', { status, reason })
  }

  remaining(owner = '') {
    return this.times[owner] ?? null
  }

  reading(owner = '') {
    const ms = this.remaining(owner)
    return this.isTimeKnown ? { ms, usedMs: 60_000 - (ms ?? 20_000), running: true, delayMs: 0, phase: 'main' } : null
  }

  elapsed() {
    return 60_000 - (this.times[''] ?? 20_000)
  }

  close() {
    this.isClosed = true
  }
}

export function open(base, id, options) {
  const session = new FakeSession(base, id, options)
  opened.push(session)
  return session
}
