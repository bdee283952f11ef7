import type { State } from './types.js';
/** What the service or the client reports as an error. `code` is one of docs/protocol.md, or one of the client's own. */
export declare class SyncAppError extends Error {
    readonly code: string;
    readonly name = "SyncAppError";
    /** The HTTP status, where there is one. */
    readonly status: number | undefined;
    readonly details: unknown;
    /** When the server asks to try again, in ms. */
    readonly retryAfterMs: number | undefined;
    /** Whether the command may have taken effect all the same. */
    readonly outcomeUnknown: boolean;
    /** The client's own codes: `OFFLINE`, `BAD_GATEWAY` (not a service's answer), `TIMEOUT`, `CLOSED`, `ABORTED`. */
    constructor(code: string, message: string, more?: {
        status?: number | undefined;
        details?: unknown;
        retryAfterMs?: number | undefined;
        outcomeUnknown?: boolean;
    });
    /** The session's state, where the server sent it with the error, as in a `CONFLICT`. */
    get current(): State | undefined;
    /** Whether the request that got this may have taken effect. */
    get isUnclear(): boolean;
    /** This error, after an earlier try that may have taken effect. Some answers to the same key say that it has not. */
    afterUnknown(code?: string): SyncAppError;
    /** Whether the same request may succeed later. */
    get isTemporary(): boolean;
}
/** Makes an error of the `error` member of an answer, or of an ERROR message. */
export declare function errorFrom({ code, message, details }: {
    code: string;
    message: string;
    details?: unknown;
}, status?: number, retryAfterMs?: number): SyncAppError;
