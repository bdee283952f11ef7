import { elapsed, reading, remaining } from './clock.js'
import { because, makeConnection } from './connection.js'
import type { Connection, Watcher } from './connection.js'
import { SyncAppError, errorFrom } from './errors.js'
import { applyPatch } from './patch.js'
import { jitter, newId } from './rest.js'
import { ServerClock } from './server-clock.js'
import type {
  Change, ClockStats, CommandOptions, Done, Events, Options, Reading, Reason, SessionEvent, State, Status, TokenSource, Transport,
} from './types.js'
import type { Message } from './wire.js'

const COMMAND_TIMEOUT_MS = 15_000
const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

const UNKNOWN = new ServerClock()

type Listener<T> = (value: T) => void

/** One session, live: its state, its clocks, and its commands. */
export class Session implements Watcher {
  /** The newest state, settled as of its `server_time_ms`; null until the first has come. */
  state: State | null = null
  status: Status = 'connecting'
  /** Why the session is not live. */
  reason: Reason | null = null
  /** Resolves with the session when its state and the server's time are here; rejects if they will not come. */
  readonly ready: Promise<this>
  /** The server's clock. */
  readonly clock: { now(): number | null; stats(): ClockStats }
  #connection: Connection | null = null
  #listeners: { [K in keyof Events]: Set<Listener<Events[K]>> } = { change: new Set(), status: new Set(), clock: new Set() }
  #isOpen = false
  #synced = false
  #lost: Reason | null = null
  #shownAt: number | null = null
  #retries = 0
  #wasLive = false
  #settle!: { done(session: any): void; failed(error: SyncAppError): void }

  constructor(readonly base: string, readonly id: string, readonly options: Options) {
    this.ready = new Promise((done, failed) => { this.#settle = { done, failed } })
    this.ready.catch(() => {}) // whoever waits for it hears of it
    this.clock = {
      now: () => this.#connection?.clock.now() ?? null,
      stats: () => (this.#connection?.clock ?? UNKNOWN).stats(),
    }
    const { signal } = options
    signal?.addEventListener('abort', () => this.close(), { once: true })
    if (signal?.aborted) this.close()
    else this.#attach(options)
  }

  /** How the messages come. */
  get transport(): Transport { return this.#connection?.transport ?? 'none' }
  /** The token in use. */
  get token(): string | null { return this.#connection?.token ?? null }
  get known(): { epoch: number; version: number } | null {
    return this.state && { epoch: this.state.epoch, version: this.state.version }
  }

  /** Calls `listener` for each event of a kind; returns a function that ends this. */
  on<K extends keyof Events>(name: K, listener: Listener<Events[K]>): () => void {
    this.#listeners[name].add(listener)
    return () => this.off(name, listener)
  }

  off<K extends keyof Events>(name: K, listener: Listener<Events[K]>): void { this.#listeners[name].delete(listener) }

  #emit<K extends keyof Events>(name: K, value: Events[K]): void {
    for (const listener of [...this.#listeners[name]]) {
      try { listener(value) } catch (error) { queueMicrotask(() => { throw error }) }
    }
  }

  /** What a clock shows now, in whole ms; null without a budget, and while the server's time is not known. */
  remaining(owner?: string): number | null { return this.state && remaining(this.state, this.clock.now(), owner) }
  /** All that a clock shows now. */
  reading(owner?: string): Reading | null { return this.state && reading(this.state, this.clock.now(), owner) }
  /** How long the present cycle, or the stopwatch, has run, in ms. */
  elapsed(): number | null { return this.state && elapsed(this.state, this.clock.now()) }

  start(options?: CommandOptions & { participantId?: string }) { return this.command('start', options) }
  /** Ends the turn. Without `participantId` it is that of the active participant, so that a double press does no harm. */
  switch(options?: CommandOptions & { participantId?: string; nextParticipantId?: string; spentMs?: number }) {
    return this.command('switch', options)
  }

  pause(options?: CommandOptions) { return this.command('pause', options) }
  resume(options?: CommandOptions) { return this.command('resume', options) }
  adjust(options: CommandOptions & {
    op?: 'add' | 'set' | 'at_least'; ms?: number; participantId?: string; groupId?: string; targets?: string[] | 'all'
    notAfterMs?: number; reason?: string
  }) { return this.command('adjust', options) }

  takeback(options?: CommandOptions & { cycles?: number; reason?: string }) { return this.command('takeback', options) }
  reopen(options?: CommandOptions & { reason?: string }) { return this.command('reopen', options) }
  complete(options?: CommandOptions & { reason?: string; result?: unknown }) { return this.command('complete', options) }
  cancel(options?: CommandOptions & { reason?: string }) { return this.command('cancel', options) }
  update(options: CommandOptions & { metadata: Record<string, unknown> }) { return this.command('update', options) }
  delete(options?: CommandOptions) { return this.command('delete', options) }

  /**
   * Sends a command by name; its fields are those of `/api-docs`, also in camelCase.
   *
   * It is tried until it is answered or `commandTimeoutMs` is over, always with the same key, so it takes effect once.
   * Rejects with a `SyncAppError`.
   */
  async command(name: string, options: CommandOptions = {}): Promise<Done> {
    if (!this.#connection) throw new SyncAppError('CLOSED', 'This session is closed')
    const { idempotencyKey = newId(), expectedVersion, expectedEpoch, ...fields } = options
    const args = Object.fromEntries(Object.entries(fields).map(([key, value]) => [snake(key), value]))
    const { state } = this
    let claim = { expected_version: expectedVersion, expected_epoch: expectedEpoch }
    if (name === 'switch' && state) {
      // Presses are for the turn that is shown, so the second of two does nothing. A participant's name says which turn.
      if (state.active_participant_id) args['participant_id'] ??= state.active_participant_id
      else if (!args['participant_id']) {
        claim = { expected_version: expectedVersion ?? state.version, expected_epoch: expectedEpoch ?? state.epoch }
      }
      if (state.lag_compensation && this.#shownAt !== null && !('acted_at_ms' in args)) {
        args['spent_ms'] ??= Math.round(performance.now() - this.#shownAt)
      }
    }
    const message: Message = { command: name, args, idempotency_key: idempotencyKey }
    for (const [key, value] of Object.entries(claim)) if (value !== undefined) message[key] = value
    return this.#connection.command(this.id, message, this.options.commandTimeoutMs ?? COMMAND_TIMEOUT_MS)
  }

  /** Ends watching. The session itself goes on. */
  close(): void { this.#close(because('CLOSED', 'Closed by this page')) }

  #attach(options: Options) {
    this.#connection = connectionFor(this.base, options.token ?? null, options)
    this.#connection.watch(this)
  }

  #close(reason: Reason) {
    if (this.status === 'closed') return
    this.#lost = reason
    this.status = 'closed'
    this.#connection?.unwatch(this)
    this.#connection = null
    this.#settle.failed(new SyncAppError(reason.code, reason.message))
    this.reason = reason
    this.#emit('status', { status: 'closed', reason })
  }

  // What the connection says.

  connection(isOpen: boolean, reason: Reason | null): void {
    this.#isOpen = isOpen
    this.#synced = false
    this.#lost = reason
    if (reason?.final) this.#close(reason)
    else this.#update()
  }

  clockChanged(): void {
    this.#update()
    this.#emit('clock', this.clock.stats())
  }

  receive(message: Message): void {
    if (this.status === 'closed') return
    switch (message['type']) {
      case 'CONNECTED':
        if (message['version'] === null) return this.#missing()
        this.#synced = this.state?.epoch === message['epoch'] && this.state?.version === message['version']
        this.#lost = null
        break
      case 'STATE_SYNC': case 'STATE_UPDATE': case 'STATE_PATCH':
        this.#accept(message)
        break
      case 'SESSION_DELETED':
        if (this.state && message['event']) this.#emit('change', { state: this.state, event: message['event'], skipped: 0 })
        return this.#close(because('DELETED', 'The session was deleted', true))
      case 'ERROR':
        return this.#failed(errorFrom(message as any))
    }
    this.#update()
  }

  #accept(message: Message) {
    const { type, event = null } = message, had = this.state
    let state = message['state'] as State
    if (type === 'STATE_PATCH') {
      const next = had?.epoch === message['epoch'] ? message['version'] - had!.version : NaN
      if (next < 1) return
      if (next !== 1) return this.#connection?.resync(this)
      state = applyPatch(had!, message as any)
    }
    this.#synced ||= !message['direct']
    this.#lost = null
    const order = had ? state.epoch - had.epoch || state.version - had.version : 1
    // An older state that the server itself sends is what a failover has left; an answer may just be late.
    if (!order || (order < 0 && (message['direct'] || type !== 'STATE_SYNC'))) return
    const sameTurn = had?.active_participant_id === state.active_participant_id && had?.cycle_count === state.cycle_count
    if (!sameTurn || !state.clock.running) this.#shownAt = event ? performance.now() : null
    this.state = state
    const skipped = had && had.epoch === state.epoch ? Math.max(0, state.version - had.version - 1) : 0
    this.#update()
    this.#emit('change', { state, event: event as SessionEvent | null, skipped } satisfies Change)
  }

  // A session that was there may come back, for instance when it is restored after an outage.
  #missing() {
    const isFinal = this.state ? !/pending|running|paused/.test(this.state.status) : !this.options.wait
    this.connection(this.#isOpen, because('SESSION_NOT_FOUND', 'The server does not have this session', isFinal))
  }

  #failed(error: SyncAppError) {
    const { code, message } = error
    if (code === 'SESSION_NOT_FOUND') return this.#missing()
    if (code === 'TOO_MANY_SUBSCRIPTIONS') {
      this.#connection?.unwatch(this)
      return this.#attach({ ...this.options, shareTabs: false })
    }
    const isFinal = !error.isTemporary && code !== 'INTERNAL_ERROR'
    this.connection(this.#isOpen, because(code, message, isFinal))
    if (isFinal || code === 'STORE_UNAVAILABLE') return // the server sends the state when it can read it
    setTimeout(() => this.#connection?.resync(this), (error.retryAfterMs ?? 0) + jitter(this.#retries++))
  }

  #update() {
    if (this.status === 'closed') return
    const isLive = this.#isOpen && this.#synced && this.clock.now() !== null
    if (isLive) {
      this.#retries = 0
      this.#settle.done(this)
      this.#wasLive = true
    }
    const status: Status = isLive ? 'live' : this.#wasLive ? 'stale' : 'connecting'
    const reason = isLive ? null : this.#lost
    if (status === this.status && reason?.code === this.reason?.code && reason?.retryInMs === this.reason?.retryInMs) return
    this.status = status
    this.reason = reason
    this.#emit('status', { status, reason })
  }
}

// Connections are shared by sessions of the same server, token and options.
const connections = new Map<Connection, string>()
const functions = new WeakMap<object, string>()

function connectionFor(base: string, source: TokenSource | null, options: Options): Connection {
  if (typeof source === 'function' && !functions.has(source)) functions.set(source, newId())
  const who = typeof source === 'function' ? functions.get(source) : source
  const key = JSON.stringify([base, who, options.shareTabs, options.transports])
  for (const [each, its] of connections) if (its === key && !each.isFull) return each
  const made = makeConnection(base, source, options, () => connections.delete(made))
  connections.set(made, key)
  return made
}

/** Opens a session at once. Its `ready` resolves when it is live for the first time. */
export function open(base: string, sessionId: string, options: Options = {}): Session {
  const url = new URL(base || '/', globalThis.location?.href)
  return new Session(url.href.replace(/\/+$/, ''), sessionId.toLowerCase(), options)
}

/** Opens a session, and resolves with it when it is live. Rejects with a `SyncAppError`. */
export const connect = (base: string, sessionId: string, options: Options = {}): Promise<Session> =>
  open(base, sessionId, options).ready
