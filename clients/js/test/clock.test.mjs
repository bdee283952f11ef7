// The client's clocks, compared with the server's own: vectors.py plays random games with the real scripts. Set VECTORS
// to a file that it made, or SEED for other games.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { buildSync } from 'esbuild'

const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '../../..')
const { reading, remaining, elapsed, applyPatch, timeText } = await compiled()
const vectors = readVectors()

async function compiled() {
  const contents = ['clock', 'patch', 'text'].map((name) => `export * from './${name}.ts'`).join('\n')
  const stdin = { contents, resolveDir: join(here, '../src') }
  const { outputFiles } = buildSync({ stdin, bundle: true, format: 'esm', write: false })
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString('base64')}`)
}

function readVectors() {
  if (process.env.VECTORS) return JSON.parse(readFileSync(process.env.VECTORS, 'utf8'))
  const directory = mkdtempSync(join(tmpdir(), 'syncapp-vectors-'))
  try {
    const out = join(directory, 'vectors.json')
    const env = { ...process.env, AUTH: 'off', PYTHONPATH: root }
    const args = [join(here, 'vectors.py'), out, process.env.SEED ?? '1']
    const { status, error } = spawnSync(process.env.PYTHON ?? join(root, '.venv/bin/python'), args,
      { cwd: root, env, stdio: 'inherit' })
    assert.equal(status, 0, error?.message ?? 'vectors.py failed')
    return JSON.parse(readFileSync(out, 'utf8'))
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const pick = (found, expected) =>
  found && expected && Object.fromEntries(Object.keys(expected).map((name) => [name, found[name]]))

test('every clock shows what the server says, to the millisecond', (t) => {
  let count = 0
  for (const { label, state, cases } of vectors.moments) {
    const before = JSON.stringify(state)
    for (const { at_ms, readings, elapsed_ms } of cases) {
      const where = () => `case ${count} (${label}, seed ${vectors.seed}) at ${at_ms}, that is`
        + ` ${at_ms - state.server_time_ms} ms after the state ${before}`
      for (const [owner, expected] of Object.entries(readings)) {
        const found = reading(state, at_ms, owner || undefined)
        assert.deepEqual(pick(found, expected), expected, `${owner || 'the running clock'}: ${where()}`)
        assert.equal(remaining(state, at_ms, owner || undefined), expected?.ms ?? null)
      }
      assert.equal(elapsed(state, at_ms), elapsed_ms, `elapsed: ${where()}`)
      count++
    }
    assert.equal(JSON.stringify(state), before, 'a state has changed')
  }
  assert.ok(count >= 5000, `only ${count} cases`)
  for (const name of ['boundary', 'end', 'wait']) {
    assert.ok(vectors.past[name] >= 20, `only ${vectors.past[name]} cases after a ${name}`)
  }
  t.diagnostic(`${count} cases: ${JSON.stringify(vectors.counts)}, ${JSON.stringify(vectors.past)}`)
})

test('a part of a millisecond does not count', () => {
  for (const { state, cases } of vectors.moments) {
    const { at_ms } = cases.at(-1)
    if (at_ms !== null) assert.deepEqual(reading(state, at_ms + 0.75), reading(state, at_ms))
  }
})

test('a patch makes the state that the server has, and changes no state', () => {
  let count = 0
  for (const chain of vectors.chains) {
    let state = chain.state
    for (const { message, state: expected } of chain.steps) {
      const before = JSON.stringify(state)
      const next = applyPatch(state, message)
      assert.deepEqual(next, expected, `patch ${count} (seed ${vectors.seed}): ${JSON.stringify(message)}`)
      assert.equal(JSON.stringify(state), before, 'the old state has changed')
      for (const [place, person] of next.participants.entries()) {
        const old = state.participants[place]
        if (JSON.stringify(old) === JSON.stringify(person) && !message.patch.participants?.[person.participant_id]) {
          assert.equal(person, old, 'a participant that stays the same is not the same object')
        }
      }
      state = next
      count++
    }
  }
  assert.ok(count >= 500, `only ${count} patches`)
})

test('a participant may have the name of a property of every object', () => {
  const participants = ['toString', '__proto__'].map((participant_id) => ({ participant_id, is_active: false }))
  const patch = JSON.parse('{"participants": {"__proto__": {"cycle_count": 1}}}')
  const next = applyPatch({ participants }, { patch, clock: {}, timestamp: 5, epoch: 1, version: 2 })
  assert.equal(next.participants[0], participants[0])
  assert.deepEqual(next.participants[1], { ...participants[1], cycle_count: 1 })
})

test('after the main time the first period runs, and after each period the next, until the last', () => {
  const stage = { time_ms: 60_000, periods: 3, period_ms: 10_000 }
  const control = { stages: [stage], charge_unit_ms: 1, min_charge_ms: 0, margin_ms: 0 }
  const white = { participant_id: 'white', is_active: true, time_used_ms: 0, time_remaining_ms: 60_000, stage: 1,
    periods_left: 3, period_remaining_ms: null, block_moves_left: null, turn_ms: 0, has_expired: false }
  const clock = { scope: 'participant', direction: 'down', running: true, phase: 'main', deadline_ms: 90_000 }
  const state = { participants: [white], clock, time_control: control, cycle_started_at: '1970-01-01T00:00:00.000Z',
    server_time_ms: 0, action_on_timeout: { type: 'end_session' } }
  const shown = (at) => {
    const { ms, periodsLeft, phase, running } = reading(state, at)
    return [ms, periodsLeft, phase, running]
  }
  assert.deepEqual(shown(59_999), [1, 3, 'main', true])
  assert.deepEqual(shown(60_000), [10_000, 3, 'period', true])
  assert.deepEqual(shown(70_001), [9999, 2, 'period', true])
  assert.deepEqual(shown(89_999), [1, 1, 'period', true])
  assert.deepEqual(shown(90_000), [0, 1, 'period', false])
  assert.deepEqual(shown(1e9), [0, 1, 'period', false])
})

test('a time is text, rounded so that 0 is shown only at 0', () => {
  const texts = [
    [null, '–:––'], [0, '0:00'], [1, '0:00.1'], [100, '0:00.1'], [9301, '0:09.4'], [9300, '0:09.3'],
    [9999, '0:10.0'],
    [10_000, '0:10'], [10_001, '0:11'], [299_000, '4:59'], [298_001, '4:59'], [3_723_000, '1:02:03'],
    [3_599_001, '1:00:00'], [-1, '0:00'], [-5000, '−0:05'], [-3_600_000, '−1:00:00'],
  ]
  for (const [ms, text] of texts) assert.equal(timeText(ms), text)
  assert.equal(timeText(59_999, { up: true }), '0:59')
  assert.equal(timeText(999, { up: true, tenths: true }), '0:00.9')
  assert.equal(timeText(61_050, { tenths: true }), '1:01.1')
  assert.equal(timeText(9300, { tenths: false }), '0:10')
})
