import type { Watcher } from './connection.js';
import type { ClockStats, CommandOptions, Done, Events, Options, Reading, Reason, State, Status, Transport } from './types.js';
import type { Message } from './wire.js';
type Listener<T> = (value: T) => void;
/** One session, live: its state, its clocks, and its commands. */
export declare class Session implements Watcher {
    #private;
    readonly base: string;
    readonly id: string;
    readonly options: Options;
    /** The newest state, settled as of its `server_time_ms`; null until the first has come. */
    state: State | null;
    status: Status;
    /** Why the session is not live. */
    reason: Reason | null;
    /** Resolves with the session when its state and the server's time are here; rejects if they will not come. */
    readonly ready: Promise<this>;
    /** The server's clock. */
    readonly clock: {
        now(): number | null;
        stats(): ClockStats;
    };
    constructor(base: string, id: string, options: Options);
    /** How the messages come. */
    get transport(): Transport;
    /** The token in use. */
    get token(): string | null;
    get known(): {
        epoch: number;
        version: number;
    } | null;
    /** Calls `listener` for each event of a kind; returns a function that ends this. */
    on<K extends keyof Events>(name: K, listener: Listener<Events[K]>): () => void;
    off<K extends keyof Events>(name: K, listener: Listener<Events[K]>): void;
    /** What a clock shows now, in whole ms; null without a budget, and while the server's time is not known. */
    remaining(owner?: string): number | null;
    /** All that a clock shows now. */
    reading(owner?: string): Reading | null;
    /** How long the present cycle, or the stopwatch, has run, in ms. */
    elapsed(): number | null;
    start(options?: CommandOptions & {
        participantId?: string;
    }): Promise<Done>;
    /** Ends the turn. Without `participantId` it is that of the active participant, so that a double press does no harm. */
    switch(options?: CommandOptions & {
        participantId?: string;
        nextParticipantId?: string;
        spentMs?: number;
    }): Promise<Done>;
    pause(options?: CommandOptions): Promise<Done>;
    resume(options?: CommandOptions): Promise<Done>;
    adjust(options: CommandOptions & {
        op?: 'add' | 'set' | 'at_least';
        ms?: number;
        participantId?: string;
        groupId?: string;
        targets?: string[] | 'all';
        notAfterMs?: number;
        reason?: string;
    }): Promise<Done>;
    takeback(options?: CommandOptions & {
        cycles?: number;
        reason?: string;
    }): Promise<Done>;
    reopen(options?: CommandOptions & {
        reason?: string;
    }): Promise<Done>;
    complete(options?: CommandOptions & {
        reason?: string;
        result?: unknown;
    }): Promise<Done>;
    cancel(options?: CommandOptions & {
        reason?: string;
    }): Promise<Done>;
    update(options: CommandOptions & {
        metadata: Record<string, unknown>;
    }): Promise<Done>;
    delete(options?: CommandOptions): Promise<Done>;
    /**
     * Sends a command by name; its fields are those of `/api-docs`, also in camelCase.
     *
     * It is tried until it is answered or `commandTimeoutMs` is over, always with the same key, so it takes effect once.
     * Rejects with a `SyncAppError`.
     */
    command(name: string, options?: CommandOptions): Promise<Done>;
    /** Ends watching. The session itself goes on. */
    close(): void;
    connection(isOpen: boolean, reason: Reason | null): void;
    clockChanged(): void;
    receive(message: Message): void;
}
/** Opens a session at once. Its `ready` resolves when it is live for the first time. */
export declare function open(base: string, sessionId: string, options?: Options): Session;
/** Opens a session, and resolves with it when it is live. Rejects with a `SyncAppError`. */
export declare const connect: (base: string, sessionId: string, options?: Options) => Promise<Session>;
export {};
