export { SyncAppError } from './errors.js';
export { claimsOf, createSession, request } from './rest.js';
export type { RequestOptions } from './rest.js';
export { connect, open } from './session.js';
export type { Session } from './session.js';
export { timeText } from './text.js';
export { elapsed, reading, remaining } from './clock.js';
export type * from './types.js';
