// Builds the files that the service serves, and the package's dist/: `node build.mjs`.
// With --check it writes dist/ only, and fails if a served file differs from what it would write.

import { build } from 'esbuild'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { minify } from 'terser'

const HERE = import.meta.dirname
const PAGES = join(HERE, '../../syncapp/api/pages')
const SERVED = join(PAGES, 'sdk')
/** What decides about the outputs besides the sources. */
const COMMON = ['build.mjs', 'package-lock.json', 'package.json', 'tsconfig.json']
/** The package's entry points: the name of the output, and the source. The core is in the first one only. */
const ENTRIES = { syncapp: 'index', react: 'react', element: 'element' }
const NAME_OF = Object.fromEntries(Object.entries(ENTRIES).map(([name, source]) => [source, name]))
const { version } = JSON.parse(readFileSync(join(HERE, 'package.json'), 'utf8'))

/** Hashes sources and what decides about their output, by name and content; tests/api/test_sdk.py does the same. */
function hashOf(folder) {
  const hash = createHash('sha256')
  const sources = readdirSync(join(HERE, folder)).filter((name) => name.endsWith('.ts')).sort()
  for (const path of [...COMMON, ...sources.map((name) => `${folder}/${name}`)]) {
    hash.update(`${path}\0`).update(readFileSync(join(HERE, path))).update('\0')
  }
  return hash.digest('hex').slice(0, 20)
}

const bannerOf = (what, folder, notice = '') =>
  `/*! ${what} ${version} | MIT | sources sha256:${hashOf(folder)}${notice} */`

/** Bundles by esbuild; terser then saves another 3 %. */
async function bundle(source, { banner, ...options }) {
  const { outputFiles } = await build({
    entryPoints: [join(HERE, source)], bundle: true, minify: true, write: false, format: 'esm', target: 'es2022',
    legalComments: 'none', logLevel: 'warning', ...options,
  })
  const { code } = await minify(outputFiles[0].text, { module: true, ecma: 2022, compress: { passes: 3 }, mangle: true })
  return `${banner.js}\n${code}\n`
}

/** Leaves the core where it is, so that a page that uses several entry points has one copy, with its connections. */
const sharedCore = {
  name: 'shared-core',
  setup: ({ onResolve }) => onResolve({ filter: /^\.\/index\.js$/ }, () => ({ path: './syncapp.js', external: true })),
}

/** Returns the declarations of the entry points, and of what they import, by the name of the file. */
function declarations() {
  const folder = mkdtempSync(join(tmpdir(), 'syncapp-types-'))
  try {
    const options = ['--noEmit', 'false', '--declaration', '--emitDeclarationOnly', '--outDir', folder]
    const tsc = [join(HERE, 'node_modules/typescript/bin/tsc'), ...options]
    const { status } = spawnSync(process.execPath, tsc, { cwd: HERE, stdio: ['ignore', 'inherit', 'inherit'] })
    if (status) process.exitCode = 1 // faults in types are shown, and the files are built nevertheless
    const files = {}
    const waiting = Object.values(ENTRIES)
    for (const source of waiting) {
      const text = readFileSync(join(folder, 'src', `${source}.d.ts`), 'utf8')
      files[`${NAME_OF[source] ?? source}.d.ts`] = text.replace(/(['"])\.\/([\w-]+)\.js\1/g, (_, quote, imported) => {
        if (!waiting.includes(imported)) waiting.push(imported)
        return `${quote}./${NAME_OF[imported] ?? imported}.js${quote}`
      })
    }
    return files
  } finally {
    rmSync(folder, { recursive: true })
  }
}

async function sdk() {
  const files = declarations()
  for (const [name, source] of Object.entries(ENTRIES)) {
    files[`${name}.js`] = await bundle(`src/${source}.ts`, {
      banner: { js: bannerOf('SyncApp client', 'src') },
      external: ['react'],
      plugins: name === 'syncapp' ? [] : [sharedCore],
    })
  }
  return files
}

async function qr() {
  const licence = readFileSync(join(HERE, 'node_modules/uqr/LICENSE'), 'utf8').trim()
  const notice = `\n\nContains uqr (https://github.com/unjs/uqr):\n\n${licence}\n`
  const banner = bannerOf('SyncApp QR codes', 'pages', notice)
  return bundle('pages/qr.ts', { banner: { js: banner } })
}

/** Makes the folder hold these files and no others; it is never empty, because a server may be reading it. */
function write(folder, files) {
  mkdirSync(folder, { recursive: true })
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  for (const name of readdirSync(folder)) if (!(name in files)) rmSync(join(folder, name))
}

/** Returns the names of served files that are missing, too many or different. */
function stale(files, qrText) {
  const read = (path) => { try { return readFileSync(path, 'utf8') } catch { return null } }
  const extra = (() => { try { return readdirSync(SERVED) } catch { return [] } })().filter((name) => !(name in files))
  const changed = Object.keys(files).filter((name) => read(join(SERVED, name)) !== files[name])
  return [...extra, ...changed, ...(read(join(PAGES, 'files/qr.js')) === qrText ? [] : ['qr.js'])]
}

const [files, qrText] = [await sdk(), await qr()]
write(join(HERE, 'dist'), { ...files, LICENSE: readFileSync(join(HERE, '../../LICENSE'), 'utf8') })
if (process.argv.includes('--check')) {
  const names = stale(files, qrText)
  if (names.length) {
    console.error(`Not built from the current sources: ${names.sort().join(', ')}. Run: make build-clients`)
    process.exitCode = 1
  }
} else {
  write(SERVED, files)
  writeFileSync(join(PAGES, 'files/qr.js'), qrText)
}
