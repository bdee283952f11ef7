import { useEffect, useMemo, useRef, useState, useSyncExternalStore } from 'react'
import { open, timeText } from './index.js'
import type { Options, Reason, State, Status } from './types.js'

type Session = ReturnType<typeof open>

/** What `useSession` returns; a new object for each change. */
export interface SessionView {
  /** Null until the component is mounted, and without an id. */
  readonly session: Session | null
  readonly state: State | null
  readonly status: Status
  readonly reason: Reason | null
}

const NONE: SessionView = { session: null, state: null, status: 'connecting', reason: null }
const nothing = () => () => {}

/**
 * Opens a session while the component is mounted, and renders again when its state or its status changes.
 *
 * Another `base`, `id` or token opens another session. If the token is a function, the latest one is called; the other
 * options are read when the session is opened. Without an `id` nothing is opened.
 */
export function useSession(base: string, id: string | null | undefined, options: Options = {}): SessionView {
  const latest = useRef(options)
  const [session, setSession] = useState<Session | null>(null)
  useEffect(() => { latest.current = options })
  const token = typeof options.token === 'function' ? true : options.token
  useEffect(() => {
    if (!id) return
    const { token: source } = latest.current
    const opened = open(base, id, {
      ...latest.current,
      ...(typeof source === 'function' && {
        token: (info) => {
          const now = latest.current.token
          return typeof now === 'function' ? now(info) : now ?? null
        },
      }),
    })
    setSession(opened)
    return () => {
      setSession(null)
      opened.close()
    }
  }, [base, id, token])
  return useSessionView(session)
}

/** Renders again when the state or the status of a session changes that the caller has opened. */
export function useSessionView(session: Session | null): SessionView {
  const store = useMemo(() => session && viewsOf(session), [session])
  return useSyncExternalStore(store?.subscribe ?? nothing, store?.get ?? none, none)
}

const none = () => NONE

function viewsOf(session: Session) {
  let view = NONE
  return {
    get(): SessionView {
      const { state, status, reason } = session
      if (view.session !== session || view.state !== state || view.status !== status || view.reason !== reason) {
        view = { session, state, status, reason }
      }
      return view
    },
    subscribe(changed: () => void): () => void {
      const stops = [session.on('change', changed), session.on('status', changed)]
      return () => stops.forEach((stop) => stop())
    },
  }
}

/** What `useRemaining` shows, and returns. */
export interface RemainingOptions {
  /** Return the text; by default true. With `false` the ms, which change only together with the text. */
  text?: boolean
  /** Show tenths of a second always or never; by default in the last 10 s. */
  tenths?: boolean
  /** Count up: the time that the owner has used, or the elapsed time. By default only clocks without a budget do. */
  up?: boolean
}

/**
 * Returns the time of a clock, and renders again only when its text changes, not in each frame.
 *
 * `owner` is the id of a participant or a group; by default it is the clock that runs, or would run.
 */
export function useRemaining(
  session: Session | null, owner?: string | null, options?: RemainingOptions & { text?: true },
): string
export function useRemaining(
  session: Session | null, owner: string | null | undefined, options: RemainingOptions & { text: false },
): number | null
export function useRemaining(
  session: Session | null, owner?: string | null, { text = true, tenths, up }: RemainingOptions = {},
): string | number | null {
  const store = useMemo(() => timesOf(session, owner ?? undefined, tenths, up), [session, owner, tenths, up])
  const shown = useSyncExternalStore(store.subscribe, store.get, unknown)
  return text ? shown.text : shown.ms
}

const UNKNOWN = { text: timeText(null), ms: null as number | null }
const unknown = () => UNKNOWN

function timesOf(session: Session | null, owner: string | undefined, tenths?: boolean, countsUp?: boolean) {
  const read = () => {
    const reading = session?.reading(owner)
    if (!session || !reading) return UNKNOWN
    const left = session.remaining(owner)
    const up = countsUp ?? (left === null || (!owner && session.state?.clock.direction === 'up'))
    const ms = !up ? left : owner ? reading.usedMs : session.elapsed()
    return { ms, text: timeText(ms, { up, ...(tenths !== undefined && { tenths }) }) }
  }
  let shown = UNKNOWN
  const update = () => {
    const now = read()
    if (now.text !== shown.text) shown = now
  }
  update()
  return {
    get: () => shown,
    subscribe(changed: () => void): () => void {
      if (!session) return () => {}
      let frame = 0
      const draw = () => {
        cancelAnimationFrame(frame)
        const before = shown
        update()
        if (shown !== before) changed()
        if (session.state?.status === 'running') frame = requestAnimationFrame(draw)
      }
      const stops = [session.on('change', draw), session.on('status', draw), session.on('clock', draw)]
      draw()
      return () => {
        cancelAnimationFrame(frame)
        stops.forEach((stop) => stop())
      }
    },
  }
}
