import type { Reading, State } from './types.js';
/** What the clock of an owner shows; null if that is not known. Without an owner, the clock that runs or would run. */
export declare function reading(state: State, nowMs: number | null, owner?: string): Reading | null;
/** What an owner's clock shows, in ms; null if it has no budget, or if that is not known. */
export declare function remaining(state: State, nowMs: number | null, owner?: string): number | null;
/** How long the cycle or the stopwatch has run, in ms; null if that is not known. */
export declare function elapsed(state: State, nowMs: number | null): number | null;
