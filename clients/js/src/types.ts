// What the client reads and gives. Names in snake_case are those of the API's JSON; docs/protocol.md explains them.

/** The status of a session. */
export type SessionStatus = 'pending' | 'running' | 'paused' | 'completed' | 'expired' | 'cancelled'

/** What participants and groups have in common. Times are in ms. */
interface Owner {
  total_time_ms: number | null
  time_used_ms: number
  has_expired: boolean
  stage?: number
  moves_to_next_stage?: number | null
  periods_left?: number | null
  period_remaining_ms?: number | null
  block_moves_left?: number | null
  turn_ms?: number
  lag_left_ms?: number
  [member: string]: unknown
}

/** A participant of a session, as in the API's JSON. */
export interface Participant extends Owner {
  participant_id: string
  group_id?: string | null
  time_remaining_ms: number | null
  cycle_count: number
  is_active: boolean
}

/** A group of participants that share a clock. */
export interface Group extends Owner {
  group_id: string
  time_remaining_ms: number
}

/** The clock that runs, or would run, as of the state's `server_time_ms`. */
export interface ClockState {
  scope: 'participant' | 'group' | 'cycle' | 'session'
  direction: 'down' | 'up'
  running: boolean
  remaining_ms: number | null
  elapsed_ms: number
  deadline_ms: number | null
  phase?: 'delay' | 'main' | 'period' | 'block'
  phase_remaining_ms?: number
  next_at_ms?: number | null
}

/** One stage of a time control, as far as clients need it. */
export interface Stage {
  hourglass?: boolean
  period_ms?: number | null
  periods?: number | null
  [member: string]: unknown
}

/** A session at one version: the document that REST returns in `data`. */
export interface State {
  session_id: string
  status: SessionStatus
  sync_mode: 'per_participant' | 'per_cycle' | 'per_group' | 'global' | 'count_up'
  epoch: number
  version: number
  server_time_ms: number
  cycle_count: number
  cycle_started_at: string | null
  active_participant_id: string | null
  clock: ClockState
  participants: Participant[]
  groups?: Group[]
  action_on_timeout: { type: 'end_session' | 'skip_cycle' | 'notify'; [key: string]: unknown }
  metadata: Record<string, unknown>
  completion?: { reason?: string; result?: unknown }
  time_control?: { stages: Stage[]; margin_ms?: number; [member: string]: unknown } | null
  lag_compensation?: { per_move_ms: number; quota_ms: number } | null
  [member: string]: unknown
}

/** What happened at a version; docs/protocol.md lists the types and their fields. */
export interface SessionEvent {
  type: string
  /** When it took effect, in ms by the server's clock. */
  at_ms: number
  participant_id?: string
  group_id?: string
  [member: string]: unknown
}

/** A version that arrived. */
export interface Change {
  state: State
  /** What happened; null where versions were skipped, and for the first state. */
  event: SessionEvent | null
  /** How many versions between the last change and this one are not seen; normally 0. */
  skipped: number
}

/**
 * - `connecting`: not live yet.
 * - `live`: the state is current, and the server's clock is known.
 * - `stale`: it was live, but the state may be old: the connection is lost, or the server cannot read the session.
 * - `closed`: nothing more comes; `reason.final` says whether trying again could help.
 */
export type Status = 'connecting' | 'live' | 'stale' | 'closed'

/** Why a session is not live. */
export interface Reason {
  /** An error code of docs/protocol.md, or `OFFLINE`, `CLOSED` (by `close()`), `DELETED`. */
  code: string
  message: string
  /** Whether connecting again would not help. */
  final: boolean
  /** In how many ms the client tries again; absent if it does not, or is trying now. */
  retryInMs?: number
}

/** How a session's messages come. */
export type Transport = 'websocket' | 'sse' | 'polling' | 'none'

/** How well the server's clock is known. */
export interface ClockStats {
  /** Add it to `performance.now()` to get the server's time in ms; null until it is measured. */
  offsetMs: number | null
  /** The offset is wrong by at most this: half of the best round trip. */
  errorMs: number | null
  /** The best round trip of those kept, in ms. */
  roundTripMs: number | null
  /** Half of the difference between the longest and the shortest round trip kept, in ms. */
  spreadMs: number | null
  /** How many round trips are kept (at most 8). */
  samples: number
}

/** What one clock shows. Times are whole ms, as the server counts them; below 0 only in overtime and within a margin. */
export interface Reading {
  /** What the owner's clock shows: its main time, or what is left of its period or block. Null: it has no budget. */
  ms: number | null
  /** Whether it changes at the moment. */
  running: boolean
  /** With a time control, which part runs or would run. */
  phase: 'delay' | 'main' | 'period' | 'block'
  /** In a delay: what is left of it. */
  delayMs: number
  /** Byo-yomi periods left, counting the running one; null without periods. */
  periodsLeft: number | null
  /** Moves left in a Canadian block; null without one. */
  blockMovesLeft: number | null
  /** Time used so far, in ms: by the participant or group, or by the session if no owner is asked for. */
  usedMs: number
}

/** A token, or a function that gets one. The function is called again before the token expires, and after a 401. */
export type TokenSource = string | ((info: { refused: boolean }) => string | null | Promise<string | null>)

export interface Options {
  /** A token or link, or a function that returns one. Not needed with `AUTH=off`. */
  token?: TokenSource | null
  /** Aborts connecting, and closes the session. */
  signal?: AbortSignal
  /** Wait for a session that does not exist yet. Otherwise `connect` rejects with `SESSION_NOT_FOUND`. */
  wait?: boolean
  /** Share one connection between all tabs of this origin; by default true where the browser can. */
  shareTabs?: boolean
  /** The transports to try, in this order. */
  transports?: Exclude<Transport, 'none'>[]
  /** How long a command is tried before it fails with `TIMEOUT`, in ms; by default 15,000. */
  commandTimeoutMs?: number
}

/** Fields that every command may have. */
export interface CommandOptions {
  /** By default the client makes one for each call, and repeats it in each retry. */
  idempotencyKey?: string
  /** Refuse the command unless the session is at this version (`CONFLICT`). */
  expectedVersion?: number
  expectedEpoch?: number
  [field: string]: unknown
}

/** What a command has done. */
export interface Done {
  /** The version after the command. Null after a delete. */
  version: number | null
  epoch: number | null
  /** Whether an earlier try of this call had already taken effect. */
  replayed: boolean
}

/** What `on` can listen to. */
export interface Events {
  /** Every version once, in order. */
  change: Change
  /** The connection's status has changed. */
  status: { status: Status; reason: Reason | null }
  /** The server's clock was measured anew, or is not known any more. */
  clock: ClockStats
}
