import type { ClockStats } from './types.js'

const KEPT = 8

/** Estimates the server's clock from round trips, as docs/protocol.md explains. It uses only the monotonic clock. */
export class ServerClock {
  #samples: { rtt: number; offset: number }[] = []
  #since = 0
  #mayReplace = false

  /** Counts only round trips that begin after this. `keep`: the old offset is good until there is a new one. */
  restart(keep: boolean): void {
    this.#since = performance.now()
    this.#mayReplace = keep && this.#samples.length > 0
    if (!keep) this.#samples = []
  }

  /** Takes a round trip from `t0` to now (ms of `performance.now()`), answered at the server's `timestamp`. */
  add(t0: number, timestamp: number): void {
    const t1 = performance.now()
    if (t0 < this.#since) return // from before a sleep, or another connection
    if (this.#mayReplace) this.#samples = []
    this.#mayReplace = false
    // The server's time is cut to whole ms, so on average it is half a ms later.
    this.#samples = [...this.#samples, { rtt: t1 - t0, offset: timestamp + 0.5 - (t0 + t1) / 2 }].slice(-KEPT)
  }

  /** The server's time in ms; null while it is not known. */
  now(): number | null {
    const { offsetMs } = this.stats()
    return offsetMs === null ? null : performance.now() + offsetMs
  }

  stats(): ClockStats {
    const samples = this.#samples
    if (!samples.length) return { offsetMs: null, errorMs: null, roundTripMs: null, spreadMs: null, samples: 0 }
    const best = samples.reduce((a, b) => (b.rtt <= a.rtt ? b : a))
    const longest = Math.max(...samples.map(({ rtt }) => rtt)), { rtt, offset } = best
    return { offsetMs: offset, errorMs: rtt / 2 + 0.5, roundTripMs: rtt, spreadMs: (longest - rtt) / 2, samples: samples.length }
  }
}
