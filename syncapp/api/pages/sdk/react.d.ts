import { open } from './syncapp.js';
import type { Options, Reason, State, Status } from './types.js';
type Session = ReturnType<typeof open>;
/** What `useSession` returns; a new object for each change. */
export interface SessionView {
    /** Null until the component is mounted, and without an id. */
    readonly session: Session | null;
    readonly state: State | null;
    readonly status: Status;
    readonly reason: Reason | null;
}
/**
 * Opens a session while the component is mounted, and renders again when its state or its status changes.
 *
 * Another `base`, `id` or token opens another session. If the token is a function, the latest one is called; the other
 * options are read when the session is opened. Without an `id` nothing is opened.
 */
export declare function useSession(base: string, id: string | null | undefined, options?: Options): SessionView;
/** Renders again when the state or the status of a session changes that the caller has opened. */
export declare function useSessionView(session: Session | null): SessionView;
/** What `useRemaining` shows, and returns. */
export interface RemainingOptions {
    /** Return the text; by default true. With `false` the ms, which change only together with the text. */
    text?: boolean;
    /** Show tenths of a second always or never; by default in the last 10 s. */
    tenths?: boolean;
    /** Count up: the time that the owner has used, or the elapsed time. By default only clocks without a budget do. */
    up?: boolean;
}
/**
 * Returns the time of a clock, and renders again only when its text changes, not in each frame.
 *
 * `owner` is the id of a participant or a group; by default it is the clock that runs, or would run.
 */
export declare function useRemaining(session: Session | null, owner?: string | null, options?: RemainingOptions & {
    text?: true;
}): string;
export declare function useRemaining(session: Session | null, owner: string | null | undefined, options: RemainingOptions & {
    text: false;
}): number | null;
export {};
