// How a `STATE_PATCH` changes a state: "Applying patches" in docs/protocol.md.

import type { ClockState, Participant, State } from './types.js'

/** A `STATE_PATCH`, as far as it concerns the state. */
export interface PatchMessage {
  /** Members of the state; `participants` and `groups` are objects by id. */
  patch: Record<string, unknown>
  clock: ClockState
  timestamp: number
  epoch: number
  version: number
}

/** The state after a patch. The old state does not change; entries that stay the same are shared with it. */
export function applyPatch(state: State, { patch, clock, timestamp, epoch, version }: PatchMessage): State {
  const next: State = { ...state, ...patch, epoch, version, clock, server_time_ms: timestamp,
    participants: merged(state.participants, patch.participants, 'participant_id') }
  if (state.groups) next.groups = merged(state.groups, patch.groups, 'group_id')
  if ('active_participant_id' in patch) {
    next.participants = next.participants.map((each): Participant => {
      const isActive = each.participant_id === patch.active_participant_id
      return each.is_active === isActive ? each : { ...each, is_active: isActive }
    })
  }
  if ((patch.status ?? 'completed') !== 'completed') delete next.completion
  return next
}

function merged<Entry extends object>(entries: Entry[], changes: unknown, key: keyof Entry): Entry[] {
  const byId = new Map(Object.entries((changes ?? {}) as Record<string, Partial<Entry>>))
  return byId.size ? entries.map((each) => {
    const change = byId.get(each[key] as string)
    return change ? { ...each, ...change } : each
  }) : entries
}
