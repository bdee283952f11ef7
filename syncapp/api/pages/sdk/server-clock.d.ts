import type { ClockStats } from './types.js';
/** Estimates the server's clock from round trips, as docs/protocol.md explains. It uses only the monotonic clock. */
export declare class ServerClock {
    #private;
    /** Counts only round trips that begin after this. `keep`: the old offset is good until there is a new one. */
    restart(keep: boolean): void;
    /** Takes a round trip from `t0` to now (ms of `performance.now()`), answered at the server's `timestamp`. */
    add(t0: number, timestamp: number): void;
    /** The server's time in ms; null while it is not known. */
    now(): number | null;
    stats(): ClockStats;
}
