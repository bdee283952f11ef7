import { ServerClock } from './server-clock.js';
import type { Message } from './wire.js';
import type { Done, Options, Reason, TokenSource, Transport } from './types.js';
/** A session, as its connection sees it. */
export interface Watcher {
    readonly id: string;
    /** The version that it has. */
    readonly known: {
        epoch: number;
        version: number;
    } | null;
    receive(message: Message): void;
    /** The connection has opened, or is lost for `reason`. */
    connection(isOpen: boolean, reason: Reason | null): void;
    clockChanged(): void;
}
/** One connection, as its sessions see it. */
export interface Connection {
    readonly clock: ServerClock;
    readonly transport: Transport;
    readonly token: string | null;
    /** Whether it watches as many sessions as a server allows. */
    readonly isFull: boolean;
    watch(watcher: Watcher): void;
    /** Ends watching a session; the connection ends with its last one. */
    unwatch(watcher: Watcher): void;
    /** Asks for what is newer than the watcher's version. */
    resync(watcher: Watcher): void;
    /**
     * Sends a command until it is answered, always with the same key, by the wire or over REST.
     *
     * Throws a `SyncAppError`; `TIMEOUT` if there was no answer in time.
     */
    command(id: string, command: Message, timeoutMs: number): Promise<Done>;
}
export declare const because: (code: string, message: string, final?: boolean) => Reason;
export declare function makeConnection(base: string, source: TokenSource | null, options: Options, onEnd: () => void): Connection;
