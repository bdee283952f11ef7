import { SyncAppError } from './errors.js';
import type { Transport } from './types.js';
export type Message = Record<string, any>;
/** Who uses a wire. Nothing is called after `close`. */
export interface WireEvents {
    open(): void;
    message(message: Message): void;
    /** The wire is of no more use. `code` is a close code, `error` what is known besides. */
    closed(how: {
        code: number;
        reason: string;
        error?: SyncAppError;
    }): void;
}
export interface Wire {
    readonly transport: Transport;
    send(message: Message): void;
    close(): void;
}
/** A WebSocket that watches no session by itself: sessions are subscribed to. */
export declare function socketWire(base: string, on: WireEvents): Wire;
/** Sends the command of a COMMAND message over REST. */
export declare function restCommand(base: string, token: string | null, id: string, message: Message, signal: AbortSignal): Promise<Response>;
/**
 * Does what a socket does by requests: an event stream (`sse`) or long polls (`polling`) for each session, and
 * `GET /v1/time` for the server's clock. Answers come as the messages of a socket. It takes no commands.
 */
export declare function restWire(base: string, transport: 'sse' | 'polling', on: WireEvents): Wire;
