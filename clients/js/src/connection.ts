// Keeps one connection for all sessions of a page that use the same server and token, and comes back after every fault.

import { SyncAppError, errorFrom } from './errors.js'
import { claimsOf, delay, documentOf, jitter, newId, send } from './rest.js'
import { ServerClock } from './server-clock.js'
import { Tabs, canShareTabs } from './tabs.js'
import { restCommand, restWire, socketWire } from './wire.js'
import type { Message, Wire, WireEvents } from './wire.js'
import type { Done, Options, Reason, TokenSource, Transport } from './types.js'

/** A session, as its connection sees it. */
export interface Watcher {
  readonly id: string
  /** The version that it has. */
  readonly known: { epoch: number; version: number } | null
  receive(message: Message): void
  /** The connection has opened, or is lost for `reason`. */
  connection(isOpen: boolean, reason: Reason | null): void
  clockChanged(): void
}

/** One connection, as its sessions see it. */
export interface Connection {
  readonly clock: ServerClock
  readonly transport: Transport
  readonly token: string | null
  /** Whether it watches as many sessions as a server allows. */
  readonly isFull: boolean
  watch(watcher: Watcher): void
  /** Ends watching a session; the connection ends with its last one. */
  unwatch(watcher: Watcher): void
  /** Asks for what is newer than the watcher's version. */
  resync(watcher: Watcher): void
  /**
   * Sends a command until it is answered, always with the same key, by the wire or over REST.
   *
   * Throws a `SyncAppError`; `TIMEOUT` if there was no answer in time.
   */
  command(id: string, command: Message, timeoutMs: number): Promise<Done>
}

const STEADY_MS = 10_000, PING_EVERY_MS = 15_000, PONG_WITHIN_MS = 5_000, OPEN_WITHIN_MS = 15_000
const MOST_SESSIONS = 100, FALLBACK_MS = 300_000, JUMP_MS = 100, LATE_MS = 2_000, RENEW_BEFORE_MS = 60_000
/** What a timer can wait. */
const LONGEST_MS = 2 ** 31 - 1
/** Closes after which the same client would be closed again. After 1009, the long command goes over REST. */
const CLIENT_FAULTS = /100[237]/

const LOST = { code: 1006, reason: '' }, LOST_TEXT = 'The connection is lost'

export const because = (code: string, message: string, final = false): Reason => ({ code, message, final })
const offline = (message = LOST_TEXT) => because('OFFLINE', message)
const doneOf = (from: Message | null, replayed: boolean): Done =>
  ({ epoch: from?.['epoch'] ?? null, version: from?.['version'] ?? null, replayed })
const temporary = (error: SyncAppError | null) => (error ? because(error.code, error.message) : offline())

export function makeConnection(base: string, source: TokenSource | null, options: Options, onEnd: () => void): Connection {
  const clock = new ServerClock()
  const watchers = new Set<Watcher>()
  const watchersOf = (id: string) => [...watchers].filter((each) => each.id === id)
  const answers = new Map<string, { done(answer: Done): void; failed(error: SyncAppError): void }>()
  const number = Math.floor(Math.random() * 2 ** 32) // tells this tab's PONGs from those of other tabs
  let most = MOST_SESSIONS
  let tabs: Tabs | null = null
  let line: Wire | null = null
  let attempt = 0
  let rank = 0
  let kind: Transport = 'websocket'
  let heard = false
  let failures = 0
  let refusals = 0
  let fallbackUntil = 0
  let openedAt = 0
  let heardAt = 0
  let pingedAt = 0
  let unanswered: number | null = null
  let tickedAt = performance.now()
  let skew = Date.now() - performance.now()
  let retry: ReturnType<typeof setTimeout> | undefined
  let renewal: ReturnType<typeof setTimeout> | undefined
  let serial = 0
  let ended = false
  let isOpen = false
  let reason: Reason | null = null
  let token: string | null = null

  /** Whether this tab connects by itself. */
  const leads = () => !tabs || tabs.isLeader
  const names = options.transports ?? (['websocket', 'sse', 'polling'] as const)

  const transport = (): Transport => (isOpen ? line!.transport : 'none')

  function watch(watcher: Watcher): void {
    watchers.add(watcher)
    resync(watcher)
    if (isOpen || reason) watcher.connection(isOpen, reason)
  }

  function unwatch(watcher: Watcher): void {
    if (!watchers.delete(watcher)) return
    if (isOpen && !watchersOf(watcher.id).length) tell({ type: 'UNSUBSCRIBE', session_id: watcher.id })
    if (!watchers.size) end(null)
  }

  function clockChanged() { for (const watcher of watchers) watcher.clockChanged() }

  function resync(watcher: Watcher): void { if (isOpen) subscribe(watcher) }

  async function command(id: string, command: Message, timeoutMs: number): Promise<Done> {
    const until = performance.now() + timeoutMs
    for (let attempt = 0, unknown = false, refused = 0; ; attempt++) {
      let failure: SyncAppError
      try {
        const limitMs = Math.max(1, Math.min(until - performance.now(), PONG_WITHIN_MS))
        return await (transport() === 'websocket' ? byWire : byRest)(id, command, limitMs)
      } catch (error) {
        failure = error as SyncAppError
      }
      unknown ||= failure.isUnclear
      const isRefused = failure.code === 'UNAUTHORIZED' && typeof source === 'function' && !refused++
      const wait = Math.max(failure.retryAfterMs ?? 0, jitter(attempt, 200, 2_000))
      if (ended || !(isRefused || failure.isTemporary) || performance.now() + wait > until) {
        throw unknown ? failure.afterUnknown(failure.code === 'OFFLINE' ? 'TIMEOUT' : failure.code) : failure
      }
      // The page may take its time to get a token, or never have one.
      await (isRefused ? Promise.race([newToken(true).catch(() => {}), delay(PONG_WITHIN_MS)]) : delay(wait))
    }
  }

  // Opening and closing.

  async function start() {
    const generation = ++serial
    refusals = 0
    const failure = await newToken(false).then(() => null, (error: SyncAppError) => error)
    if (generation !== serial) return
    if (failure) return lost(temporary(failure))
    if (source !== null && !token) return end(because('UNAUTHORIZED', 'There is no token', true))
    if (tabs || options.shareTabs === false || !canShareTabs()) return connect()
    const { exp, iat, nbf, jti, ...claims } = claimsOf(token ?? '')
    if (token && !claims['sub']) return connect() // a token that is not ours to compare
    const who = JSON.stringify(claims, Object.keys(claims).sort())
    tabs = new Tabs(`syncapp ${base} ${who}`, () => connect(), () => { tabs = null; connect() })
  }

  function connect() {
    if (ended) return
    const generation = ++serial
    clearTimeout(retry)
    drop()
    const follows = tabs?.isLeader === false
    if (rank && performance.now() > fallbackUntil) rank = failures = 0
    const name = kind = names[Math.min(rank, names.length - 1)]!
    heard = false
    const mine = () => generation === serial
    const on: WireEvents = {
      open: () => { if (mine()) opened(follows) },
      message: (message) => {
        if (!mine()) return
        heard ||= message['type'] !== 'AUTHENTICATED' // without sockets, this one is not from the server
        heardAt = performance.now()
        receive(message)
      },
      closed: (how) => { if (mine()) void closed(how) },
    }
    const make = (events: WireEvents) => (name === 'websocket' ? socketWire(base, events) : restWire(base, name, events))
    heardAt = performance.now()
    try {
      const onReason = (reason: Reason | null) => { if (mine()) away(reason ?? offline('Another tab is connecting')) }
      line = follows ? tabs!.follow(on, onReason) : tabs ? tabs.lead(make, on) : make(on)
    } catch { // the page's policy, or the platform, has no WebSocket
      void closed(LOST)
    }
  }

  function drop() {
    if (openedAt && performance.now() - openedAt > STEADY_MS) attempt = refusals = failures = 0
    openedAt = 0
    line?.close()
    line = null
    isOpen = false
    clearTimeout(renewal)
    failAnswers()
  }

  function failAnswers() {
    for (const { failed } of answers.values()) failed(new SyncAppError('OFFLINE', LOST_TEXT))
  }

  function opened(follows: boolean) {
    isOpen = true
    reason = null
    openedAt = heardAt = performance.now()
    clock.restart(true)
    if (!follows && token) authenticate()
    for (const watcher of watchers) subscribe(watcher)
    measure()
    for (const watcher of [...watchers]) watcher.connection(true, null)
  }

  function authenticate() { tell({ type: 'AUTH', id: 'auth', token: token }) }

  // The server remembers one version for a session: several that watch it may have different ones, so it sends the state.
  function subscribe({ id, known }: Watcher) {
    tell({ type: 'SUBSCRIBE', session_id: id, id: `s:${id}`, ...(watchersOf(id).length < 2 && known) })
  }

  function tell(message: Message) { line?.send(message) }

  async function closed(how: { code: number; reason: string; error?: SyncAppError }) {
    const generation = serial, { code } = how
    drop()
    if (CLIENT_FAULTS.test(`${code}`)) return end(because(`CLOSE_${code}`, how.reason || LOST_TEXT, true))
    if (code === 4401) return unauthorized(how.reason)
    if (code === 1008) return lost(because('RATE_LIMITED', 'Too many messages'), 60_000)
    let why = how.error ?? null
    away(temporary(why))
    const isBlocked = why?.code === 'STREAM_BLOCKED'
    if (isBlocked || (!heard && why?.isUnclear !== false)) {
      why = isBlocked ? null : await askWhy()
      if (generation !== serial) return
      if (why?.code === 'UNAUTHORIZED') return unauthorized(why.message)
      if (why?.code === 'FORBIDDEN') return end(because(why.code, why.message, true))
      if (!why && ++failures >= (kind === 'websocket' ? 2 : 1) && rank < names.length - 1) {
        rank++
        failures = attempt = 0
        fallbackUntil = performance.now() + FALLBACK_MS
      }
    }
    lost(temporary(why), why?.retryAfterMs)
  }

  /** Returns why a handshake may have been refused, which browsers hide; null if the server is well. */
  async function askWhy(): Promise<SyncAppError | null> {
    const [watcher] = watchers, signal = AbortSignal.timeout(5_000)
    try {
      await documentOf(await send(base, 'GET', watcher ? `/v1/sessions/${watcher.id}` : '/ready', { token: token, signal }))
      return null
    } catch (error) {
      const failure = error as SyncAppError
      // What concerns one session only, it hears itself.
      if (failure.code === 'SESSION_NOT_FOUND' || (failure.code === 'FORBIDDEN' && watchers.size > 1)) return null
      if (failure.code !== 'OFFLINE') return failure
      const isThere = await fetch(`${base}/health`, { mode: 'no-cors', cache: 'no-store', signal }).then(() => true, () => false)
      return isThere && new URL(base).origin !== globalThis.location?.origin
        ? new SyncAppError('ORIGIN_NOT_ALLOWED', 'The server may not allow pages of this origin')
        : failure
    }
  }

  async function unauthorized(message: string) {
    const generation = serial
    drop()
    if (typeof source !== 'function' || ++refusals > 3) return end(because('UNAUTHORIZED', message, true))
    const why = because('UNAUTHORIZED', message)
    away(why)
    const next = await newToken(true).catch(() => undefined)
    if (generation !== serial) return
    if (next === null) return end(because('UNAUTHORIZED', message, true))
    if (!next) token = null // there may be one later
    lost(why, 0, !next || refusals > 1)
  }

  /** Tells the sessions, and the other tabs, that there is no connection. */
  function away(why: Reason) {
    isOpen = false
    reason = why
    failAnswers()
    tabs?.lost(why)
    for (const watcher of [...watchers]) watcher.connection(false, why)
  }

  /** Connects again after a random time, and after `leastMs` at the earliest. */
  function lost(reason: Reason, leastMs = 0, waits = true) {
    drop()
    const retryInMs = waits ? Math.min(leastMs + jitter(attempt++), LONGEST_MS) : 0
    away({ ...reason, retryInMs })
    clearTimeout(retry)
    if (!ended) retry = setTimeout(() => void (token === null && source ? start() : connect()), retryInMs)
  }

  function end(reason: Reason | null) {
    if (ended) return
    ended = true
    serial++
    clearTimeout(retry)
    clearInterval(ticker)
    listen(false)
    drop()
    tabs?.close()
    onEnd()
    if (reason) away(reason)
  }

  // Tokens.

  async function newToken(refused: boolean): Promise<string | null> {
    try {
      return token = (typeof source === 'function' ? await source({ refused }) : source) || null
    } catch (error) {
      throw new SyncAppError('OFFLINE', `No token: ${error}`)
    }
  }

  function planRenewal({ timestamp, expires_at_ms }: Message) {
    clearTimeout(renewal)
    const endsAtMs = expires_at_ms ?? claimsOf(token ?? '')['exp'] * 1000, generation = serial
    if (typeof source !== 'function' || !endsAtMs) return
    const left = endsAtMs - (timestamp ?? clock.now() ?? Date.now())
    const renew = async () => {
      await newToken(false).catch(() => {})
      // With the same token, this tries again at half of the time that is left.
      if (generation === serial && token) authenticate()
    }
    renewal = setTimeout(renew, Math.min(Math.max(left - RENEW_BEFORE_MS, left / 2, 1_000), LONGEST_MS))
  }

  // Messages.

  function receive(message: Message) {
    const { type, id, sessionId, code } = message
    if (type === 'PONG') {
      if (message['client_timestamp'] !== number) return
      unanswered = null
      clock.add(message['t0'], message['timestamp'])
      return clockChanged()
    }
    const answer = answers.get(id)
    if (answer) {
      if (type === 'ACK') answer.done(doneOf(message, !!message['replayed']))
      else answer.failed(errorFrom(message as any))
      return
    }
    if (!leads() && (type === 'AUTHENTICATED' || code === 'UNAUTHORIZED' || id === 'auth')) return // the leader's
    if (type === 'AUTHENTICATED') return planRenewal(message)
    if (code === 'UNAUTHORIZED') return void unauthorized(message['message'])
    if (id === 'auth' && code === 'FORBIDDEN') return lost(offline('The new token is for somebody else'))
    // An answer that comes late, is for another tab, or refuses a token with AUTH=off, says nothing about a session.
    if (id && !/^s:/.test(id)) return
    if (code === 'TOO_MANY_SUBSCRIPTIONS') most = watchers.size - 1
    const name = id?.slice(2) ?? sessionId
    for (const watcher of watchersOf(name)) watcher.receive(message)
  }

  function byWire(session_id: string, command: Message, limitMs: number): Promise<Done> {
    const id = newId()
    return new Promise<Done>((done, failed) => {
      answers.set(id, { done, failed })
      setTimeout(() => failed(new SyncAppError('OFFLINE', 'No answer in time')), limitMs)
      tell({ type: 'COMMAND', id, session_id, ...command })
    }).finally(() => answers.delete(id))
  }

  async function byRest(id: string, command: Message, limitMs: number): Promise<Done> {
    const given = token ?? await Promise.race([newToken(false), delay(limitMs)]) as string | null
    const response = await restCommand(base, given, id, command, AbortSignal.timeout(limitMs))
    const state = await documentOf(response) as Message | null
    const isKnown = () => watchersOf(id).every(({ known }) => state && known && known.version >= state['version'])
    // As over a socket, what the command did comes before its answer, with its event if there is a stream.
    for (let i = 0; i < 20 && isOpen && !isKnown(); i++) await delay(100)
    for (const watcher of watchersOf(id)) {
      watcher.receive(state ? { type: 'STATE_SYNC', state, direct: true } : { type: 'SESSION_DELETED' })
    }
    return doneOf(state, response.headers.get('Idempotency-Replayed') === 'true')
  }

  // Heartbeat, sleep and networks.

  function ping() {
    const t0 = performance.now()
    pingedAt = t0
    unanswered ??= t0
    tell({ type: 'PING', t0, timestamp: number })
  }

  function measure() {
    unanswered = null
    const generation = serial
    for (let i = 0; i < 5; i++) setTimeout(() => { if (isOpen && generation === serial) ping() }, i * 200)
  }

  /** Whether the two clocks of the browser have drifted apart since the last call: it slept, or its clock was set. */
  function slept(): boolean {
    const before = skew
    skew = Date.now() - performance.now()
    return Math.abs(skew - before) > JUMP_MS
  }

  function tick() {
    const now = performance.now(), hasSlept = slept()
    const wasFrozen = now - tickedAt > 1_000 + LATE_MS && globalThis.document?.visibilityState !== 'hidden'
    tickedAt = now
    if (hasSlept || wasFrozen) return doubt()
    if (!isOpen) {
      if (!line || now - heardAt < OPEN_WITHIN_MS) return
      return leads() ? giveUp() : connect() // which finds out whether the leader is still there
    }
    if (unanswered !== null && now - unanswered > PONG_WITHIN_MS) return giveUp()
    if (now - pingedAt > PING_EVERY_MS) ping()
  }

  /** The connection looks open, but nothing comes: a sleep or a lost network leaves such connections. */
  function giveUp() {
    unanswered = null
    if (!leads()) return tabs!.steal()
    line?.close()
    void closed(LOST)
  }

  /**
   * The connection may be dead, and the state old: asks for both. `keepClock`: the clock is measured anew, but has not
   * stood still.
   */
  function doubt(keepClock = false, reconnect = false) {
    if (ended) return
    clock.restart(keepClock)
    clockChanged()
    attempt = 0
    if (isOpen) {
      measure()
      for (const watcher of watchers) subscribe(watcher)
    } else if (leads() && token !== null === (source !== null) && (reconnect || !line)) {
      connect()
    }
  }

  const onResume = () => doubt()
  const onVisible = () => { if (document.visibilityState === 'visible') doubt(!slept()) }
  const onNetwork = () => { rank = failures = 0; doubt(!slept(), true) }
  // A page in the back/forward cache may have neither a connection nor a lock.
  const onHide = ({ persisted }: PageTransitionEvent) => {
    tabs?.close()
    if (!persisted) return
    serial++
    clearTimeout(retry)
    drop()
    tabs = null
    away(offline('The page was put away'))
  }

  const onShow = ({ persisted }: PageTransitionEvent) => {
    if (!persisted) return
    clock.restart(false)
    void start()
  }

  function listen(on: boolean) {
    if (typeof document === 'undefined') return
    const set = (target: EventTarget | undefined, name: string, listener: (event: any) => void) =>
      target?.[on ? 'addEventListener' : 'removeEventListener'](name, listener)
    set(document, 'visibilitychange', onVisible)
    set(document, 'resume', onResume)
    for (const name of ['online', 'offline']) set(window, name, onNetwork)
    set((navigator as { connection?: EventTarget }).connection, 'change', onNetwork)
    set(window, 'pagehide', onHide)
    set(window, 'pageshow', onShow)
  }

  const ticker = setInterval(tick, 1_000)
  listen(true)
  void start()
  return {
    clock,
    get transport() { return transport() },
    get token() { return token },
    get isFull() { return watchers.size >= most },
    watch, unwatch, resync, command,
  }
}
