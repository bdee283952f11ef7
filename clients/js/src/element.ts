import { open, timeText } from './index.js'
import type { Events, TokenSource } from './types.js'

type Session = ReturnType<typeof open>

/** A session that elements with the same base, id and token share. */
interface Shared {
  base: string
  id: string
  token: TokenSource | null
  session: Session
  uses: number
}

// Servers that render pages import the module too, and have no elements.
const Base = globalThis.HTMLElement ?? (class {} as typeof HTMLElement)
const STYLE = ':host{font-variant-numeric:tabular-nums}'
  + ':host([data-status=stale]),:host([data-status=closed]){opacity:.5}'

const shared = new Set<Shared>()
const visible = new Set<SyncClock>()
let sheet: CSSStyleSheet | undefined
let observer: IntersectionObserver | undefined
let frame = 0

function take(base: string, id: string, token: TokenSource | null): Shared {
  let found = [...shared].find((one) => one.base === base && one.id === id && one.token === token)
  if (!found) shared.add(found = { base, id, token, session: open(base, id, { token }), uses: 0 })
  found.uses++
  return found
}

function release(one: Shared | null): void {
  if (!one || --one.uses) return
  shared.delete(one)
  one.session.close()
}

/** Draws all visible elements in the next frame, and in each further one while a clock runs. */
function wake(): void {
  frame ||= requestAnimationFrame(() => {
    frame = 0
    for (const clock of visible) if (clock.draw()) wake()
  })
}

/**
 * `<sync-clock>`: the time of one clock of a session, as text. README.md lists its attributes.
 *
 * It dispatches the session's events, `change`, `status` and `clock`; their `detail` is what `on` listeners get.
 */
export class SyncClock extends Base {
  static readonly observedAttributes = ['base', 'session-id', 'participant', 'token', 'tenths', 'label']

  #given: Session | null = null
  #token: TokenSource | null = null
  #shared: Shared | null = null
  #session: Session | null = null
  #stops: (() => void)[] = []
  #time = document.createElement('span')
  #shown = ''

  constructor() {
    super()
    const root = this.attachShadow({ mode: 'open' })
    sheet ??= new CSSStyleSheet()
    sheet.replaceSync(STYLE)
    root.adoptedStyleSheets = [sheet]
    root.append(this.#time)
    this.#time.setAttribute('part', 'time')
    this.#time.textContent = timeText(null)
    // Properties that were set before the element was defined hide the accessors.
    for (const [name, value] of Object.entries(this)) {
      delete (this as any)[name]
      ;(this as any)[name] = value
    }
  }

  /** The session that is shown. Set an open one to share it: the element then never closes it. */
  get session(): Session | null {
    return this.#session
  }

  set session(session: Session | null) {
    this.#given = session
    this.#plan()
  }

  /** A token, or a function that gets one. It takes the place of the attribute. */
  get token(): TokenSource | null {
    return this.#token ?? this.getAttribute('token')
  }

  set token(token: TokenSource | null) {
    this.#token = token
    this.#plan()
  }

  connectedCallback(): void {
    this.role ||= 'timer' // which is not announced when it changes, unless the author adds aria-live
    observer ??= new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) visible[isIntersecting ? 'add' : 'delete'](target as SyncClock)
      wake()
    })
    observer.observe(this)
    this.#plan()
  }

  disconnectedCallback(): void {
    observer!.unobserve(this)
    visible.delete(this)
    this.#plan()
  }

  attributeChangedCallback(): void {
    this.#plan()
  }

  /** Attaches soon: several attributes change together, and an element that moves is removed and added again. */
  #plan(): void {
    queueMicrotask(() => this.#attach())
  }

  #attach(): void {
    this.ariaLabel = this.getAttribute('label') || this.ariaLabel || 'Clock'
    const id = this.getAttribute('session-id')
    const base = this.getAttribute('base') || new URL(import.meta.url).origin
    const next = this.isConnected && !this.#given && id ? take(base, id, this.token) : null
    release(this.#shared) // after the new one is taken, which may be the same
    this.#shared = next
    const session = this.isConnected ? next?.session ?? this.#given : null
    if (session !== this.#session) {
      for (const stop of this.#stops) stop()
      this.#session = session
      const pass = <Name extends keyof Events>(name: Name) => session!.on(name, (detail) => {
        wake()
        this.dispatchEvent(new CustomEvent(name, { detail }))
      })
      this.#stops = session ? [pass('change'), pass('status'), pass('clock')] : []
    }
    wake()
  }

  /** @internal Shows the present time; returns whether it moves. */
  draw(): boolean {
    const session = this.#session
    const state = session?.state
    const owner = this.getAttribute('participant') || undefined
    const reading = session?.reading(owner)
    const left = session?.remaining(owner) ?? null
    const up = !!reading && (left === null || (!owner && state!.clock.direction === 'up'))
    const time = !up ? left : owner ? reading.usedMs : session!.elapsed()
    const text = timeText(time, { up, ...(this.getAttribute('tenths') === 'never' && { tenths: false }) })
    const moves = state?.status === 'running'
    const runs = moves && !!(reading?.running || reading?.delayMs)
    // Periods and blocks warn with the scope `period` only.
    const warns = left !== null && (!/period|block/.test(reading!.phase) || state!['warn_scope'] === 'period')
    const warning = Math.min(...(warns && state!['warn_at_ms'] as number[] || []).filter((each) => left! <= each))
    const status = session?.status ?? 'connecting'
    const shown = [text, status, runs, warning].join()
    if (shown !== this.#shown) {
      this.#shown = shown
      this.#time.textContent = text
      this.dataset['status'] = status
      this.toggleAttribute('data-running', runs)
      if (warning < Infinity) this.dataset['warning'] = `${warning}`
      else delete this.dataset['warning']
    }
    return moves
  }
}

globalThis.customElements?.define('sync-clock', SyncClock)

declare global {
  interface HTMLElementTagNameMap {
    'sync-clock': SyncClock
  }
}
