// A game over REST with a generated client: `node game.js URL`. That it compiles is half of the test.
import createClient from 'openapi-fetch';
import type { components, paths } from './generated/api.js';

declare const process: { argv: string[] };
type State = components['schemas']['State'];

const client = createClient<paths>({ baseUrl: process.argv[2]! });

function state(answer: { data?: components['schemas']['CommandAnswer']; error?: components['schemas']['ErrorAnswer'] }): State {
  if (!answer.data) throw new Error(answer.error?.error.message ?? 'no answer');
  if (!('participants' in answer.data.data)) throw new Error('a state was expected');
  return answer.data.data;
}

function equal<Value>(found: Value, expected: Value): void {
  if (found !== expected) throw new Error(`${String(found)} instead of ${String(expected)}`);
}

const created = state(
  await client.POST('/v1/sessions', {
    body: {
      sync_mode: 'per_participant',
      participants: [
        { participant_id: 'white', total_time_ms: 300_000 },
        { participant_id: 'black', total_time_ms: 300_000 },
      ],
      increment_ms: 3000,
    },
    params: { header: { 'Idempotency-Key': crypto.randomUUID() } },
  }),
);
equal(created.status, 'pending');
const path = { session_id: created.session_id };

const started = state(await client.POST('/v1/sessions/{session_id}/start', { params: { path }, body: {} }));
equal(started.active_participant_id, 'white');
const switched = state(
  await client.POST('/v1/sessions/{session_id}/switch', {
    params: { path, header: { 'If-Match': `"${started.epoch}-${started.version}"` } },
    body: { participant_id: 'white' },
  }),
);
equal(switched.active_participant_id, 'black');

const refused = await client.POST('/v1/sessions/{session_id}/switch', { params: { path }, body: { expected_version: 1 } });
equal(refused.response.status, 409);
equal(refused.error?.error.code, 'CONFLICT');

const completed = state(await client.POST('/v1/sessions/{session_id}/complete', { params: { path } }));
equal(completed.status, 'completed');
const read = await client.GET('/v1/sessions/{session_id}', { params: { path } });
equal(read.data?.data.version, completed.version);
equal(read.response.headers.get('ETag'), `"${completed.epoch}-${completed.version}"`);
console.log('typescript: a game was played');
