// Ways to exchange the messages of docs/protocol.md with the server: a WebSocket, or requests where sockets do not get through.

import { SyncAppError, errorFrom } from './errors.js'
import { delay, documentOf, jitter, send } from './rest.js'
import type { Transport } from './types.js'

export type Message = Record<string, any>

/** Who uses a wire. Nothing is called after `close`. */
export interface WireEvents {
  open(): void
  message(message: Message): void
  /** The wire is of no more use. `code` is a close code, `error` what is known besides. */
  closed(how: { code: number; reason: string; error?: SyncAppError }): void
}

export interface Wire {
  readonly transport: Transport
  send(message: Message): void
  close(): void
}

/** A WebSocket that watches no session by itself: sessions are subscribed to. */
export function socketWire(base: string, on: WireEvents): Wire {
  let active = true
  const socket = new WebSocket(`${base.replace(/^http/, 'ws')}/ws?format=patch`)
  socket.onopen = () => { active && on.open() }
  socket.onmessage = ({ data }) => { active && on.message(JSON.parse(data)) }
  socket.onclose = ({ code, reason }) => {
    if (active) { active = false; on.closed({ code, reason }) }
  }
  return {
    transport: 'websocket',
    send: (message) => socket.send(JSON.stringify(message)),
    close: () => { active = false; socket.close() },
  }
}

/** Sends the command of a COMMAND message over REST. */
export function restCommand(base: string, token: string | null, id: string, message: Message, signal: AbortSignal) {
  const { command, args, idempotency_key: idempotencyKey, ...expected } = message
  const path = `/v1/sessions/${id}`, options = { token, idempotencyKey, signal }
  if (command === 'delete') return send(base, 'DELETE', `${path}?${new URLSearchParams(expected)}`, options)
  const body = { ...args, ...expected }
  return command === 'update' ? send(base, 'PATCH', path, { ...options, body }) : send(base, 'POST', `${path}/${command}`, { ...options, body })
}

interface Watched { stop: AbortController; epoch: number; version: number }

/**
 * Does what a socket does by requests: an event stream (`sse`) or long polls (`polling`) for each session, and
 * `GET /v1/time` for the server's clock. Answers come as the messages of a socket. It takes no commands.
 */
export function restWire(base: string, transport: 'sse' | 'polling', on: WireEvents): Wire {
  const ending = new AbortController()
  const watched = new Map<string, Watched>()
  let token: string | null = null, active = true
  const emit = (message: Message) => { if (active) on.message(message) }
  const end = (error: unknown) => {
    if (!active) return
    close()
    const failure = error as SyncAppError
    on.closed({ code: failure.code === 'UNAUTHORIZED' ? 4401 : 1006, reason: failure.message, error: failure })
  }
  const close = () => {
    active = false
    ending.abort()
    for (const { stop } of watched.values()) stop.abort()
  }

  async function watch({ session_id: id, epoch = 0, version = 0 }: Message) {
    watched.get(id)?.stop.abort()
    const stop = new AbortController()
    const entry: Watched = { stop, epoch, version }
    watched.set(id, entry)
    const take = (message: Message) => {
      if (watched.get(id) !== entry) return
      const { type, code } = message, { epoch, version } = message.state ?? message
      if (type === 'ERROR' && code === 'UNAUTHORIZED') return end(errorFrom(message as { code: string; message: string }, 401))
      if (type === 'SESSION_DELETED') watched.delete(id)
      emit({ ...message, sessionId: id })
      if (version) Object.assign(entry, { epoch, version })
    }
    try {
      await (transport === 'sse' ? stream : poll)(id, entry, take)
    } catch (error) {
      const { code, message } = error as SyncAppError
      if (stop.signal.aborted || watched.get(id) !== entry) return
      if (code === 'SESSION_NOT_FOUND') {
        emit({ type: 'CONNECTED', sessionId: id, epoch: null, version: null })
        await delay(2_000 + jitter(2), stop.signal)
        if (watched.get(id) === entry) void watch({ session_id: id })
        return
      }
      if (code === 'FORBIDDEN') return emit({ type: 'ERROR', sessionId: id, code, message })
      end(error)
    }
  }

  async function stream(id: string, entry: Watched, take: (m: Message) => void) {
    const known = entry.version ? `&epoch=${entry.epoch}&version=${entry.version}` : ''
    const { signal } = entry.stop
    let timer: ReturnType<typeof setTimeout> | undefined
    const expect = (ms: number, code: string) => {
      clearTimeout(timer)
      timer = setTimeout(() => end(new SyncAppError(code, 'No answer in time')), ms)
    }
    // The first message comes at once, unless something in between holds it back.
    expect(8_000, 'STREAM_BLOCKED')
    try {
      const response = await send(base, 'GET', `/v1/sessions/${id}/stream?format=patch${known}`, { token, signal })
      if (!response.ok) await documentOf(response)
      const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
      for (let rest = ''; ;) {
        const { done, value } = await reader.read()
        if (done) break
        const lines = (rest + value).split('\n')
        rest = lines.pop()!
        expect(40_000, 'OFFLINE')
        for (const line of lines) if (line.startsWith('data:')) take(JSON.parse(line.slice(5)))
      }
    } catch (error) {
      throw error instanceof SyncAppError ? error : new SyncAppError('OFFLINE', (error as Error).message)
    } finally {
      clearTimeout(timer)
    }
    if (watched.get(id)?.stop.signal === signal) end(new SyncAppError('OFFLINE', 'The connection is lost'))
  }

  async function poll(id: string, entry: Watched, take: (m: Message) => void) {
    const { signal } = entry.stop
    for (let first = true; !signal.aborted; first = false) {
      const headers: Record<string, string> = entry.version ? { 'If-None-Match': `"${entry.epoch}-${entry.version}"` } : {}
      const response = await send(base, 'GET', `/v1/sessions/${id}${first ? '' : '?wait_ms=20000'}`, { token, headers, signal })
      const state = response.status === 304 ? null : await documentOf(response) as Message
      const { epoch, version } = state ?? entry
      if (!first && version === entry.version) await delay(jitter(1)) // whoever answers may not wait
      if (first) take({ type: 'CONNECTED', epoch, version })
      if (state) take({ type: 'STATE_SYNC', state, timestamp: state.server_time_ms })
    }
  }

  async function ping({ t0, timestamp }: Message) {
    try {
      const { timestamp_ms } = await documentOf(await send(base, 'GET', '/v1/time', { signal: ending.signal })) as Message
      emit({ type: 'PONG', t0, client_timestamp: timestamp, timestamp: timestamp_ms })
    } catch { /* the one who waits for the answer notices */ }
  }

  queueMicrotask(() => active && on.open())
  return {
    transport,
    close,
    send(message) {
      switch (message.type) {
        case 'AUTH': token = message.token; return emit({ type: 'AUTHENTICATED', id: message.id })
        case 'SUBSCRIBE': case 'RECONNECT': return void watch(message)
        case 'UNSUBSCRIBE': watched.get(message.session_id)?.stop.abort(); return void watched.delete(message.session_id)
        case 'PING': return void ping(message)
      }
    },
  }
}
