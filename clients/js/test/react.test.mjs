// The hooks of dist/react.js, rendered by react-dom, with sessions of test/fake-core.mjs.

import assert from 'node:assert/strict'
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, beforeEach, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { Window } from 'happy-dom'

const window = new Window()
let frames = new Map()
Object.defineProperty(globalThis, 'navigator', { value: window.navigator, configurable: true })
Object.assign(globalThis, {
  window,
  document: window.document,
  IS_REACT_ACT_ENVIRONMENT: true,
  requestAnimationFrame: (callback) => { frames.set(callback, callback); return callback },
  cancelAnimationFrame: (callback) => frames.delete(callback),
})

const { StrictMode, act, createElement } = await import('react')
const { createRoot } = await import('react-dom/client')
const { renderToString } = await import('react-dom/server')
const { FakeSession, opened, timeText } = await import('./fake-core.mjs')

// The built module, with the fake next to it in the place of the core.
const folder = mkdtempSync(join(import.meta.dirname, '../node_modules/.react-test-'))
copyFileSync(join(import.meta.dirname, '../dist/react.js'), join(folder, 'react.js'))
writeFileSync(join(folder, 'syncapp.js'), `export * from ${JSON.stringify(import.meta.resolve('./fake-core.mjs'))}`)
writeFileSync(join(folder, 'package.json'), '{"type": "module"}')
const { useRemaining, useSession, useSessionView } = await import(pathToFileURL(join(folder, 'react.js')))
after(async () => {
  rmSync(folder, { recursive: true })
  await window.happyDOM.close()
})

const RUNNING = { status: 'running', clock: { direction: 'down' } }
let root, renders

beforeEach(() => {
  opened.length = 0
  renders = []
  frames = new Map()
  root = createRoot(document.createElement('div'))
})

afterEach(() => act(async () => root.unmount()))

/** Renders a component that calls a hook; each render is recorded in `renders`. */
let currentHook
function Component() {
  renders.push(currentHook())
  return null
}
function show(hook, { strict = false } = {}) {
  currentHook = hook
  const element = createElement(Component)
  return act(async () => root.render(strict ? createElement(StrictMode, null, element) : element))
}

/** Lets the browser draw some frames; `each` is called before each of them. */
async function draw(count, each = () => {}) {
  for (let done = 0; done < count; done++) {
    await act(async () => {
      each()
      const due = [...frames.values()]
      frames.clear()
      for (const callback of due) callback()
    })
  }
}

const last = () => renders.at(-1)

test('a component opens its session when it is mounted, and closes it when it is removed', async () => {
  await show(() => useSession('https://clock.example', 'game', { token: 'abc' }))
  assert.deepEqual(renders[0], { session: null, state: null, status: 'connecting', reason: null })
  assert.equal(opened.length, 1)
  const [session] = opened
  assert.deepEqual([session.base, session.id, session.options.token], ['https://clock.example', 'game', 'abc'])
  assert.equal(last().session, session)
  await act(async () => root.unmount())
  assert.equal(session.isClosed, true)
  assert.equal(session.listeners, 0)
})

test('it renders again for a new state and for a new status, and not for anything else', async () => {
  await show(() => useSession('', 'game'))
  const [session] = opened
  const state = { status: 'pending' }
  await act(async () => session.change(state))
  assert.equal(last().state, state)
  await act(async () => session.become('live'))
  assert.equal(last().status, 'live')
  const reason = { code: 'OFFLINE', message: 'The server cannot be reached', final: false }
  await act(async () => session.become('stale', reason))
  assert.deepEqual(last(), { session, state, status: 'stale', reason })
  const count = renders.length
  await act(async () => { session.emit('clock'); session.emit('change') })
  assert.equal(renders.length, count)
})

test('in strict mode exactly one session stays open', async () => {
  await show(() => useSession('', 'game'), { strict: true })
  assert.equal(opened.length, 2)
  assert.deepEqual(opened.map(({ isClosed }) => isClosed), [true, false])
  assert.equal(last().session, opened[1])
  await act(async () => opened[1].become('live'))
  assert.equal(last().status, 'live')
})

test('another id or another token opens another session, and the first is closed', async () => {
  await show(() => useSession('', 'one', { token: 'a' }))
  await show(() => useSession('', 'one', { token: 'a' }))
  assert.equal(opened.length, 1)
  await show(() => useSession('', 'two', { token: 'a' }))
  await show(() => useSession('', 'two', { token: 'b' }))
  assert.deepEqual(opened.map(({ id, options, isClosed }) => [id, options.token, isClosed]), [
    ['one', 'a', true], ['two', 'a', true], ['two', 'b', false],
  ])
  assert.equal(last().session, opened[2])
})

test('a token function that is new in each render keeps the session, and the latest one is asked', async () => {
  await show(() => useSession('', 'game', { token: () => 'first' }))
  await show(() => useSession('', 'game', { token: ({ refused }) => `second ${refused}` }))
  assert.equal(opened.length, 1)
  assert.equal(opened[0].options.token({ refused: true }), 'second true')
})

test('without an id nothing is opened', async () => {
  await show(() => useSession('', null))
  assert.equal(opened.length, 0)
  assert.equal(last().session, null)
})

test('a session that the caller has opened is followed, and stays open', async () => {
  const session = new FakeSession()
  await show(() => useSessionView(session))
  await act(async () => session.become('live'))
  assert.equal(last().status, 'live')
  await act(async () => root.unmount())
  assert.equal(session.isClosed, false)
  assert.equal(session.listeners, 0)
})

test('a clock renders again when its text changes, not in each frame', async () => {
  const session = Object.assign(new FakeSession(), { state: RUNNING, times: { '': 65_000 } })
  await show(() => useRemaining(session))
  const count = renders.length
  await draw(120, () => { session.times[''] -= 16 })
  assert.equal(last(), timeText(65_000 - 120 * 16))
  assert.equal(last(), '1:04')
  assert.equal(renders.length, count + 1)
})

test('with text: false it gives the time in ms, as often', async () => {
  const session = Object.assign(new FakeSession(), { state: RUNNING, times: { white: 65_000 } })
  await show(() => useRemaining(session, 'white', { text: false }))
  assert.equal(last(), 65_000)
  const count = renders.length
  await draw(120, () => { session.times.white -= 16 })
  assert.equal(renders.length, count + 1)
  assert.ok(last() <= 64_000 && last() > 63_900, `${last()}`)
})

test('a clock that stands asks for no frames, and goes on after a start', async () => {
  const session = Object.assign(new FakeSession(), { state: { ...RUNNING, status: 'paused' }, times: { '': 30_000 } })
  await show(() => useRemaining(session))
  assert.equal(frames.size, 0)
  session.times[''] = 20_000
  await act(async () => session.change(RUNNING))
  assert.equal(last(), '0:20')
  assert.equal(frames.size, 1)
  await draw(3, () => { session.times[''] -= 1_000 })
  assert.equal(last(), '0:17')
  await act(async () => root.unmount())
  assert.equal(frames.size, 0)
})

test('another owner or session is shown at once', async () => {
  const session = Object.assign(new FakeSession(), { times: { white: 30_000, black: 20_000 } })
  await show(() => useRemaining(session, 'white'))
  assert.equal(last(), '0:30')
  await show(() => useRemaining(session, 'black'))
  assert.equal(last(), '0:20')
  await show(() => useRemaining(session, 'black', { tenths: true }))
  assert.equal(last(), '0:20.0')
  await show(() => useRemaining(null))
  assert.equal(last(), timeText(null))
})

test('with up: true it shows the time used', async () => {
  const session = Object.assign(new FakeSession(), { times: { '': 15_000, white: 50_000 } })
  await show(() => useRemaining(session, null, { up: true }))
  assert.equal(last(), '0:45')
  await show(() => useRemaining(session, 'white', { up: true }))
  assert.equal(last(), '0:10')
})

test('a clock without a budget, and a stopwatch, count up', async () => {
  const session = Object.assign(new FakeSession(), { state: { status: 'paused', clock: { direction: 'down' } } })
  await show(() => useRemaining(session, 'white'))
  assert.equal(last(), '0:40')
  session.times = { '': 50_000 }
  await show(() => useRemaining(session))
  assert.equal(last(), '0:50')
  await act(async () => session.change({ status: 'paused', clock: { direction: 'up' } }))
  assert.equal(last(), '0:10')
})

test('until the server\'s clock is known there is no time', async () => {
  const session = Object.assign(new FakeSession(), { isTimeKnown: false, times: { '': 50_000 } })
  await show(() => useRemaining(session))
  assert.equal(last(), timeText(null))
  session.isTimeKnown = true
  await act(async () => session.emit('clock'))
  assert.equal(last(), '0:50')
})

test('a server renders a clock without a time, and opens nothing', () => {
  const Page = () => useRemaining(useSession('', 'game').session)
  assert.equal(renderToString(createElement(Page)), timeText(null))
  assert.equal(opened.length, 0)
})
