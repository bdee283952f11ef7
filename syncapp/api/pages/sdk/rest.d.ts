import type { State } from './types.js';
/** What a request may have besides its method and path. */
export interface RequestOptions {
    token?: string | null;
    body?: unknown;
    /** Makes a request that changes something safe to repeat. */
    idempotencyKey?: string;
    headers?: Record<string, string>;
    signal?: AbortSignal | undefined;
    /** How long the request, with its retries, may take, in ms; by default 15,000. */
    timeoutMs?: number;
}
export declare const delay: (ms: number, signal?: AbortSignal) => Promise<void>;
/** A random time up to a limit that doubles with each attempt, from 0, so that clients do not come back all at once. */
export declare const jitter: (attempt: number, firstMs?: number, mostMs?: number) => number;
/** Returns a random UUID, also on pages without a secure context, where `crypto.randomUUID` is missing. */
export declare const newId: () => string;
/** Sends one request, and returns the response; only a response without a status is an error (`OFFLINE`). */
export declare function send(base: string, method: string, path: string, { token, body, idempotencyKey, headers, signal }: RequestOptions): Promise<Response>;
/** Returns the document of a response: its `data`, if it has one; null if it has none. Throws the error that it holds. */
export declare function documentOf(response: Response): Promise<unknown>;
/**
 * Sends a request to the REST API, and returns the `data` of the answer.
 *
 * A request that reads, or that has an idempotency key, is repeated while the server cannot answer it for the moment.
 * Throws a `SyncAppError`; its `outcomeUnknown` says whether the request may have taken effect.
 */
export declare function request<T = any>(base: string, method: string, path: string, options?: RequestOptions): Promise<T>;
/** Creates a session; the body is that of `POST /v1/sessions`. Safe to repeat: it carries its own key. */
export declare const createSession: (base: string, body: object, options?: RequestOptions) => Promise<State>;
/** Returns the claims of a token, or of a link, without checking them. Only the server checks signatures. */
export declare function claimsOf(token: string): Record<string, any>;
