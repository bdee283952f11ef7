// One connection for all tabs of an origin: the tab that holds a Web Lock has it, and passes messages on to the others.

import type { Message, Wire, WireEvents } from './wire.js'
import type { Reason, Transport } from './types.js'

/** What tabs say to each other. `from`: the tab that says it; `to`: the tab that it is for, if not all. */
type Note = { from: string; to?: string } & (
  | { kind: 'hello' } | { kind: 'bye' } | { kind: 'up'; message: Message }          // to the leader
  | { kind: 'open'; transport: Transport } | { kind: 'down'; message: Message } | { kind: 'lost'; reason: Reason | null }   // from the leader
)

const ANSWER_MS = 3_000

export const canShareTabs = () => typeof document !== 'undefined' && typeof BroadcastChannel !== 'undefined' && !!navigator.locks

export class Tabs {
  /** Whether this tab has the connection; null until it is known. */
  isLeader: boolean | null = null
  readonly #id = Math.random().toString(36).slice(2)
  readonly #channel: BroadcastChannel
  #isOver = false
  #waiting = new AbortController()
  #release: () => void = () => {}
  #hear: (note: Note) => void = () => {}
  readonly #others = new Set<string>()
  #reason: Reason | null = null

  /** `onRole` is called when this tab gets the connection, or when another one has it. */
  constructor(readonly name: string, readonly onRole: () => void, onFailure: () => void) {
    this.#channel = new BroadcastChannel(name)
    this.#channel.onmessage = ({ data }) => { if (data?.from && (data.to ?? this.#id) === this.#id) this.#hear(data) }
    navigator.locks.request(name, { ifAvailable: true }, (lock) => {
      if (this.#isOver) return
      if (lock) return this.#lead()
      this.#follow()
    }).catch((error) => (error.name === 'AbortError' ? this.#follow() : onFailure()))
  }

  /** Takes the connection from a tab that does not answer. */
  steal(): void {
    this.#waiting.abort()
    navigator.locks.request(this.name, { steal: true }, () => this.#lead()).catch(() => this.#follow())
  }

  /** Leaves. The tab that waits longest gets the connection. */
  close(): void {
    this.#say({ kind: 'bye' })
    this.#isOver = true
    this.#waiting.abort()
    this.#release()
    this.#hear = () => {}
    this.#channel.close()
  }

  #lead() {
    if (this.#isOver) return
    this.isLeader = true
    this.#hear = (note) => this.#greet(note)
    this.lost(null)
    this.onRole()
    return new Promise<void>((release) => { this.#release = release })
  }

  // Also when another tab has taken the lock away.
  #follow() {
    if (this.#isOver) return
    this.isLeader = false
    this.#waiting = new AbortController()
    navigator.locks.request(this.name, { signal: this.#waiting.signal }, () => this.#lead())
      .catch((error) => { if (this.isLeader && error.name === 'AbortError') this.#follow() })
    this.onRole()
  }

  #say(note: Omit<Note, 'from'> & Record<string, unknown>) {
    if (!this.#isOver) this.#channel.postMessage({ ...note, from: this.#id })
  }

  // A leader answers at once, also while it has no connection: silence means that it is frozen or gone.
  #greet({ from, kind }: Note, transport?: Transport) {
    if (kind === 'bye') this.#others.delete(from)
    else this.#others.add(from)
    if (kind !== 'hello') return
    this.#say({ ...(transport ? { kind: 'open', transport } : { kind: 'lost', reason: this.#reason }), to: from })
  }

  /** Tells the other tabs why there is no connection. */
  lost(reason: Reason | null): void {
    this.#reason = reason
    if (this.isLeader) this.#say({ kind: 'lost', reason })
  }

  /** The leader's wire, which serves the other tabs, too. */
  lead(make: (on: WireEvents) => Wire, on: WireEvents): Wire {
    const watchers = new Map<string, Set<string>>()
    let isOpen = false
    const up = (message: Message, from: string) => {
      const { type, session_id: id } = message, set = watchers.get(id) ?? new Set()
      if (type === 'SUBSCRIBE') {
        watchers.set(id, set.add(from))
        // Tabs may have different versions, and the server remembers one for a connection: it sends the state to all.
        if (set.size > 1) message = { type, session_id: id, id: message['id'] }
      }
      if (type === 'UNSUBSCRIBE') {
        set.delete(from)
        if (set.size) return
        watchers.delete(id)
      }
      wire.send(message)
    }
    this.#hear = (note) => {
      const { from, kind } = note
      this.#greet(note, isOpen ? transport : undefined)
      if (kind === 'up') {
        if (isOpen) up(note.message, from)
      } else if (kind === 'bye') {
        for (const id of [...watchers.keys()]) if (watchers.get(id)!.has(from)) up({ type: 'UNSUBSCRIBE', session_id: id }, from)
      }
    }
    const wire = make({
      open: () => { isOpen = true; on.open(); this.#say({ kind: 'open', transport }) },
      message: (message) => { if (this.#others.size) this.#say({ kind: 'down', message }); on.message(message) },
      closed: (end) => { isOpen = false; on.closed(end) },
    })
    const { transport } = wire
    return {
      transport,
      send: (message) => up(message, this.#id),
      close: () => { isOpen = false; wire.close() },
    }
  }

  /** A wire over the leader's. `onReason` hears why the leader has no connection. */
  follow(on: WireEvents, onReason: (reason: Reason | null) => void): Wire {
    let isOpen = false, active = true, leader = ''
    // A leader that does not answer is frozen, or gone without a trace.
    const timer = setTimeout(() => this.steal(), ANSWER_MS)
    this.#hear = (note) => {
      const { kind, from } = note
      if (!active) return
      if (kind === 'down' && isOpen && from === leader) return on.message(note.message)
      if (kind !== 'open' && kind !== 'lost') return
      clearTimeout(timer)
      leader = from
      isOpen = kind === 'open'
      if (kind === 'lost') return onReason(note.reason)
      wire.transport = note.transport
      on.open()
    }
    this.#say({ kind: 'hello' })
    const wire = {
      transport: 'none' as Transport,
      send: (message: Message) => this.#say({ kind: 'up', message }),
      close: () => { active = false; clearTimeout(timer) },
    }
    return wire
  }
}
