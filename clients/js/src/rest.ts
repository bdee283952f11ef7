import { SyncAppError, errorFrom } from './errors.js'
import type { State } from './types.js'

/** What a request may have besides its method and path. */
export interface RequestOptions {
  token?: string | null
  body?: unknown
  /** Makes a request that changes something safe to repeat. */
  idempotencyKey?: string
  headers?: Record<string, string>
  signal?: AbortSignal | undefined
  /** How long the request, with its retries, may take, in ms; by default 15,000. */
  timeoutMs?: number
}

export const delay = (ms: number, signal?: AbortSignal) => new Promise<void>((done) => {
  const timer = setTimeout(done, ms)
  signal?.addEventListener('abort', () => { clearTimeout(timer); done() }, { once: true })
})

/** A random time up to a limit that doubles with each attempt, from 0, so that clients do not come back all at once. */
export const jitter = (attempt: number, firstMs = 500, mostMs = 30_000) =>
  Math.random() * Math.min(mostMs, firstMs * 2 ** attempt)

/** Returns a random UUID, also on pages without a secure context, where `crypto.randomUUID` is missing. */
export const newId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('')
    .replace(/(.{8})(.{4}).(.{3}).(.{3})(.*)/, '$1-$2-4$3-a$4-$5')

/** Sends one request, and returns the response; only a response without a status is an error (`OFFLINE`). */
export async function send(
  base: string, method: string, path: string, { token, body, idempotencyKey, headers, signal }: RequestOptions,
): Promise<Response> {
  try {
    return await fetch(base.replace(/\/+$/, '') + path, {
      method,
      cache: 'no-store',
      headers: {
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
        ...(token && { Authorization: `Bearer ${token}` }),
        ...(idempotencyKey && { 'Idempotency-Key': idempotencyKey }),
        ...headers,
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      ...(signal && { signal }),
    })
  } catch (error) {
    throw new SyncAppError('OFFLINE', `No answer: ${error}`)
  }
}

/** Returns the document of a response: its `data`, if it has one; null if it has none. Throws the error that it holds. */
export async function documentOf(response: Response): Promise<unknown> {
  const { ok, status, headers } = response, document = await response.json().catch(() => null)
  // An answer without a document was cut off, or is not the service's.
  if (ok && (document || status === 204)) return document?.data ?? document
  const error = document?.error?.code ? document.error : { code: 'BAD_GATEWAY', message: `HTTP status ${status}` }
  throw errorFrom(error, status, Number(headers.get('Retry-After')) * 1000 || undefined)
}

/**
 * Sends a request to the REST API, and returns the `data` of the answer.
 *
 * A request that reads, or that has an idempotency key, is repeated while the server cannot answer it for the moment.
 * Throws a `SyncAppError`; its `outcomeUnknown` says whether the request may have taken effect.
 */
export async function request<T = any>(base: string, method: string, path: string, options: RequestOptions = {}): Promise<T> {
  const until = performance.now() + (options.timeoutMs ?? 15_000)
  const mayRepeat = method === 'GET' || options.idempotencyKey !== undefined
  for (let attempt = 0, unknown = false; ; attempt++) {
    const { signal } = options, limit = AbortSignal.timeout(Math.max(1, until - performance.now()))
    let failure: SyncAppError
    try {
      const response = await send(base, method, path, { ...options, signal: signal ? AbortSignal.any([signal, limit]) : limit })
      return await documentOf(response) as T
    } catch (error) {
      failure = error as SyncAppError
    }
    if (method !== 'GET') unknown ||= failure.isUnclear
    if (signal?.aborted) throw new SyncAppError('ABORTED', 'The request was aborted', { outcomeUnknown: unknown })
    const wait = Math.max(failure.retryAfterMs ?? 0, jitter(attempt, 200, 2_000))
    if (!mayRepeat || !failure.isTemporary || performance.now() + wait > until) {
      throw unknown ? failure.afterUnknown() : failure
    }
    await delay(wait, signal)
  }
}

/** Creates a session; the body is that of `POST /v1/sessions`. Safe to repeat: it carries its own key. */
export const createSession = (base: string, body: object, options: RequestOptions = {}): Promise<State> =>
  request(base, 'POST', '/v1/sessions', { idempotencyKey: newId(), ...options, body })

/** Returns the claims of a token, or of a link, without checking them. Only the server checks signatures. */
export function claimsOf(token: string): Record<string, any> {
  try {
    const base64 = token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/')
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(base64), (char) => char.charCodeAt(0))))
    return typeof claims === 'object' && claims ? claims : {}
  } catch {
    return {}
  }
}
