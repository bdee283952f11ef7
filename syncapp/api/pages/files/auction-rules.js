// The rules of a lot: what its metadata means, what the next bid is, and how a bid is made. No page is needed here.

/** Why a bid was not made: `outbid`, `paused`, `pending` or `ended`. */
export class BidRefused extends Error {
  constructor(why) {
    super(`the bid was refused: ${why}`)
    this.why = why
  }
}

const KEPT_BIDS = 50
const LATE_MS = 1_000

/** What the metadata of a lot says, with defaults for what it leaves out. Prices are whole numbers of the currency. */
export function lotOf(state) {
  const {metadata} = state
  const number = (value, otherwise) => (Number.isFinite(value) ? value : otherwise)
  const bids = Array.isArray(metadata.bids) ? metadata.bids : []
  return {
    number: metadata.lot ?? null,
    title: typeof metadata.title === 'string' ? metadata.title : '',
    note: typeof metadata.note === 'string' ? metadata.note : '',
    currency: typeof metadata.currency === 'string' ? metadata.currency : '',
    price: number(metadata.price, 0),
    bidder: metadata.bidder ?? null,
    step: Math.max(1, number(metadata.step, 1)),
    extendToMs: Math.max(0, number(metadata.extend_to_ms, 20_000)),
    hardLimitMs: number(metadata.hard_limit_ms, null),
    bids,
    count: number(metadata.bid_count, bids.length),
  }
}

/** The lowest price of the next bid. */
export function lowestBid({price, bidder, step}) {
  return bidder === null ? price : price + step
}

/** How a lot ended: `sold`, `unsold`, `withdrawn`; null while it has not. */
export function outcomeOf(state) {
  switch (state.status) {
    case 'cancelled': return 'withdrawn'
    case 'completed': case 'expired': return lotOf(state).bidder === null ? 'unsold' : 'sold'
    default: return null
  }
}

/** The last instant to which bids extend a running lot, in ms by the server's clock; null without a hard end. */
export function hardEndOf(state) {
  const {hardLimitMs} = lotOf(state)
  if (hardLimitMs === null || !state.cycle_started_at) return null
  // Both are as of the last start or resume, so that a pause does not count.
  return Date.parse(state.cycle_started_at) + hardLimitMs - state.time_used_ms
}

/** The metadata after a bid. The newest bids are kept in it, the newest first; the audit log has all. */
export function withBid(state, {bidder, price}) {
  const {bids, count} = lotOf(state)
  const kept = [{bidder, price}, ...bids].slice(0, KEPT_BIDS)
  return {...state.metadata, bidder, price, bids: kept, bid_count: count + 1}
}

/**
 * Makes a bid. Resolves when the service has recorded it; throws `BidRefused`, or a `SyncAppError`.
 *
 * The lot is extended first, and then the bid is recorded: so no bid is recorded in a lot that is about to close. The
 * record names the version that it is based on, that of a running lot at a lower price. Whatever comes first (a bid, a
 * pause, the end) makes another version, and the record is refused. Then the bid is decided again.
 */
export async function makeBid(game, {bidder, price}) {
  const reason = `Bid of ${price} by ${bidder}`
  let state = game.state
  for (;;) {
    check(state, price)
    await extend(game, state, reason)
    state = newest(game.state, state)
    check(state, price)
    try {
      const {version: expectedVersion, epoch: expectedEpoch} = state
      await game.update({metadata: withBid(state, {bidder, price}), expectedVersion, expectedEpoch})
      break
    } catch (error) {
      if (error.code !== 'CONFLICT') throw error
      state = newest(game.state, error.current ?? state)
    }
  }
  // The record may have waited for a connection while the time ran on.
  const left = game.remaining()
  if (left !== null && left < lotOf(state).extendToMs - LATE_MS) await extend(game, game.state, reason).catch(() => {})
}

function check(state, price) {
  const {status} = state
  if (status !== 'running') throw new BidRefused(['paused', 'pending'].includes(status) ? status : 'ended')
  if (price < lowestBid(lotOf(state))) throw new BidRefused('outbid')
}

async function extend(game, state, reason) {
  const notAfterMs = hardEndOf(state) ?? undefined
  try {
    await game.adjust({op: 'at_least', ms: lotOf(state).extendToMs, notAfterMs, reason})
  } catch (error) {
    if (error.code === 'INVALID_STATE_TRANSITION') throw new BidRefused('ended')
    throw error
  }
}

function newest(one, other) {
  const isLater = other.epoch > one.epoch || (other.epoch === one.epoch && other.version > one.version)
  return isLater ? other : one
}
