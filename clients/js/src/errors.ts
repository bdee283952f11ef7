import type { State } from './types.js'

/** What the service or the client reports as an error. `code` is one of docs/protocol.md, or one of the client's own. */
export class SyncAppError extends Error {
  override readonly name = 'SyncAppError'
  /** The HTTP status, where there is one. */
  readonly status: number | undefined
  readonly details: unknown
  /** When the server asks to try again, in ms. */
  readonly retryAfterMs: number | undefined
  /** Whether the command may have taken effect all the same. */
  readonly outcomeUnknown: boolean

  /** The client's own codes: `OFFLINE`, `BAD_GATEWAY` (not a service's answer), `TIMEOUT`, `CLOSED`, `ABORTED`. */
  constructor(
    readonly code: string,
    message: string,
    more: { status?: number | undefined; details?: unknown; retryAfterMs?: number | undefined; outcomeUnknown?: boolean } = {},
  ) {
    super(message)
    this.status = more.status
    this.details = more.details
    this.retryAfterMs = more.retryAfterMs
    this.outcomeUnknown = more.outcomeUnknown ?? false
  }

  /** The session's state, where the server sent it with the error, as in a `CONFLICT`. */
  get current(): State | undefined {
    return (this.details as { current?: State } | undefined)?.current
  }

  /** Whether the request that got this may have taken effect. */
  get isUnclear(): boolean {
    return /^(OFFLINE|BAD_GATEWAY|STORE_U|NOT_REP|INTERNAL_)/.test(this.code)
  }

  /** This error, after an earlier try that may have taken effect. Some answers to the same key say that it has not. */
  afterUnknown(code = this.code): SyncAppError {
    return /CONFLICT|STATE_|NOT_[^R]|EXISTS/.test(code) ? this : Object.assign(this, { code, outcomeUnknown: true })
  }

  /** Whether the same request may succeed later. */
  get isTemporary(): boolean {
    return TEMPORARY.test(this.code)
  }
}

/** How codes begin, because each byte counts. */
const TEMPORARY = /^(OFFLINE|RATE_|STORE_|NOT_REP|AUDIT_|SERVER_|TOO_MANY_C|REQUEST_T|BAD_GATEWAY)/

/** Makes an error of the `error` member of an answer, or of an ERROR message. */
export function errorFrom(
  { code, message, details }: { code: string; message: string; details?: unknown }, status?: number, retryAfterMs?: number,
): SyncAppError {
  const seconds = (details as { retry_after_s?: number } | undefined)?.retry_after_s
  return new SyncAppError(code, message, { status, details, retryAfterMs: retryAfterMs ?? (seconds && seconds * 1000) })
}
