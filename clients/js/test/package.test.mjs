// The package as others install it: its files, its entry points and its types.

import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'

const PACKAGE = join(import.meta.dirname, '..')
const CONSUMER = mkdtempSync(join(PACKAGE, 'node_modules/.consumer-'))
after(() => rmSync(CONSUMER, { recursive: true }))

const SOURCE = `
import { SyncAppError, connect, createSession, open, request, timeText } from '@syncapp/client'
import type { Change, Options, Session, State } from '@syncapp/client'
import { SyncClock } from '@syncapp/client/element'
import { useRemaining, useSession } from '@syncapp/client/react'

const options: Options = { token: async ({ refused }) => (refused ? null : 'token') }
export async function play(): Promise<number | null> {
  const made: State = await createSession('https://clock.example', { sync_mode: 'global' })
  const game: Session = await connect('https://clock.example', made.session_id, options)
  const off = game.on('change', ({ state, event, skipped }: Change) => console.log(state.version, event?.type, skipped))
  try {
    const { version } = await game.switch({ nextParticipantId: 'black', expectedVersion: 1 })
    console.log(version, timeText(game.remaining('white'), { tenths: false }), game.clock.stats().errorMs)
  } catch (error) {
    if (error instanceof SyncAppError) console.log(error.code, error.current?.version, error.outcomeUnknown)
  }
  off()
  await request('', 'DELETE', '/v1/sessions/x')
  // @ts-expect-error: there is no such event
  game.on('tick', () => {})
  // @ts-expect-error: an id is needed
  open('')
  return game.remaining()
}
export function Clock(): string {
  const { session, status } = useSession('', 'game')
  const ms: number | null = useRemaining(session, 'white', { text: false })
  return status + ms + useRemaining(session)
}
const element: SyncClock | null = document.querySelector('sync-clock')
if (element) element.token = () => 'token'
`

for (const [module, moduleResolution] of [['ESNext', 'bundler'], ['NodeNext', 'NodeNext']]) {
  test(`a strict TypeScript project with module resolution ${moduleResolution} can use every entry point`, () => {
    mkdirSync(join(CONSUMER, 'node_modules/@syncapp'), { recursive: true })
    rmSync(join(CONSUMER, 'node_modules/@syncapp/client'), { force: true })
    symlinkSync(PACKAGE, join(CONSUMER, 'node_modules/@syncapp/client'))
    writeFileSync(join(CONSUMER, 'package.json'), '{"type": "module"}')
    writeFileSync(join(CONSUMER, 'page.ts'), SOURCE)
    const compilerOptions = {
      module, moduleResolution, target: 'ES2022', lib: ['ES2022', 'DOM', 'DOM.Iterable'], types: [], noEmit: true, strict: true,
      noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true, skipLibCheck: false,
    }
    writeFileSync(join(CONSUMER, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['page.ts'] }))
    const tsc = join(PACKAGE, 'node_modules/typescript/bin/tsc')
    const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', CONSUMER], { encoding: 'utf8' })
    assert.equal(stdout, '')
    assert.equal(status, 0)
  })
}

test('the package has what its entry points name, and no sources or tests', () => {
  const output = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: PACKAGE, encoding: 'utf8' })
  const packed = JSON.parse(output)
  const { files } = Array.isArray(packed) ? packed[0] : Object.values(packed)[0]
  const names = files.map(({ path }) => path)
  const { exports } = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8'))
  const named = Object.values(exports).flatMap((entry) => (typeof entry === 'string' ? entry : Object.values(entry)))
  assert.ok(named.length >= 7)
  for (const path of [...named, 'README.md', 'dist/LICENSE']) assert.ok(names.includes(path.replace('./', '')), path)
  for (const name of names) assert.match(name, /^(dist\/[\w-]+\.(js|d\.ts)|dist\/LICENSE|README\.md|package\.json)$/)
})

test('a server can import every entry point that needs no browser', async () => {
  assert.equal(typeof (await import('@syncapp/client')).connect, 'function')
  assert.equal(typeof (await import('@syncapp/client/react')).useSession, 'function')
  assert.equal(typeof (await import('@syncapp/client/element')).SyncClock, 'function')
})
