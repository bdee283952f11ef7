import { open } from './syncapp.js';
import type { TokenSource } from './types.js';
type Session = ReturnType<typeof open>;
declare const Base: {
    new (): HTMLElement;
    prototype: HTMLElement;
};
/**
 * `<sync-clock>`: the time of one clock of a session, as text. README.md lists its attributes.
 *
 * It dispatches the session's events, `change`, `status` and `clock`; their `detail` is what `on` listeners get.
 */
export declare class SyncClock extends Base {
    #private;
    static readonly observedAttributes: string[];
    constructor();
    /** The session that is shown. Set an open one to share it: the element then never closes it. */
    get session(): Session | null;
    set session(session: Session | null);
    /** A token, or a function that gets one. It takes the place of the attribute. */
    get token(): TokenSource | null;
    set token(token: TokenSource | null);
    connectedCallback(): void;
    disconnectedCallback(): void;
    attributeChangedCallback(): void;
}
declare global {
    interface HTMLElementTagNameMap {
        'sync-clock': SyncClock;
    }
}
export {};
