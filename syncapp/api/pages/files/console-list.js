// The list of sessions: search, pages, and rows that are updated in place while the page is visible.

import {timeText} from '/sdk/syncapp.js'
import {call} from './console-access.js'
import {readSearch, searchWords} from './console-search.js'
import {instantText} from './console-words.js'
import {byId, describeError, make, setText} from './page.js'
import {consoleTexts as texts} from './texts.js'

const PAGE = 50
const EVERY_MS = 3_000
const MOST_REQUESTS = 12                                      // for one page; each examines up to 1,000 sessions
const MOST_SHARE = 20                                         // requests take at most one 20th of the time
const LIVE = ['pending', 'running', 'paused']
const COLUMNS = Object.keys(texts.columns)
const BADGES = {running: 'good', paused: 'warn', expired: 'danger'}

const rows = new Map()                                        // by id: {row, cells, item}
const cursors = [null]                                        // of the pages up to this one
let nextCursor = null, shownAt = null, isShown = false, run = 0, timer, ticker, openedId = null

build()

/** Shows the list, and keeps it up to date until the returned function is called. */
export function showList(returned) {
  isShown = true
  if (returned && openedId) rows.get(openedId)?.row.querySelector('a').focus()
  refresh()
  ticker = setInterval(tick, 1_000)
  document.addEventListener('visibilitychange', refresh)
  return () => {
    isShown = false
    openedId = document.activeElement?.closest?.('tr')?.dataset.id ?? openedId
    run++
    clearTimeout(timer)
    clearInterval(ticker)
    document.removeEventListener('visibilitychange', refresh)
  }
}

export function focusSearch() {
  byId('query').focus()
  byId('query').select()
}

/** Moves the focus to the next or the previous session. */
export function moveInList(by) {
  const links = [...byId('rows').querySelectorAll('a')]
  const at = links.indexOf(document.activeElement)
  const to = at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + by))
  links[to]?.focus()
}

function build() {
  for (const name of COLUMNS) {
    const textContent = texts.columns[name]
    byId('list-head').append(make('th', {role: 'columnheader', scope: 'col', className: name, textContent}))
  }
  for (const name of Object.keys(texts.statuses).filter((each) => each !== 'deleted')) {
    const box = make('input', {type: 'checkbox', name: 'status', value: name, checked: LIVE.includes(name)})
    byId('statuses').append(make('label', {className: 'chip'}, box, texts.statuses[name]))
  }
  byId('mode').append(make('option', {value: '', textContent: texts.anyMode}))
  for (const [value, textContent] of Object.entries(texts.modes)) {
    byId('mode').append(make('option', {value, textContent}))
  }
  let typing
  byId('search').addEventListener('submit', (event) => event.preventDefault())
  byId('search').addEventListener('input', () => {
    clearTimeout(typing)
    typing = setTimeout(restart, 250)
  })
  byId('query').addEventListener('keydown', (event) => {
    if (event.key !== 'Enter') return
    clearTimeout(typing)
    restart()
  })
  byId('next').addEventListener('click', () => turn(() => cursors.push(nextCursor)))
  byId('previous').addEventListener('click', () => turn(() => cursors.pop()))
}

function restart() {
  turn(() => cursors.splice(1))
}

function turn(change) {
  change()
  setText(byId('list-state'), texts.loading)
  refresh()
}

/** Reads the page that is shown, and again after a while. */
async function refresh() {
  clearTimeout(timer)
  if (document.hidden || !isShown) return
  const mine = ++run, began = performance.now()
  try {
    const found = await readPage(query(), cursors.at(-1))
    if (mine !== run) return
    show(found)
    problem(found.complete ? '' : texts.incomplete)
  } catch (error) {
    if (mine !== run) return
    problem(describeError(error))
  }
  timer = setTimeout(refresh, Math.max(EVERY_MS, (performance.now() - began) * MOST_SHARE))
}

function problem(text) {
  const unread = searchWords(byId('query').value).find(({kind}) => kind === 'unknown')
  const shown = unread ? texts.badSearch(unread.text) : text
  byId('list-problem').hidden = !shown
  setText(byId('list-problem'), shown)
}

function query() {
  const asked = readSearch(byId('query').value)
  const statuses = [...byId('statuses').querySelectorAll('input:checked')].map(({value}) => value)
  const all = byId('statuses').querySelectorAll('input').length
  // Whoever looks for one id wants it in any status.
  if (statuses.length && statuses.length < all && !asked.has('id_prefix')) asked.set('status', statuses.join(','))
  if (byId('mode').value) asked.set('sync_mode', byId('mode').value)
  return asked
}

/** Reads a page; the service may answer a part of one, so it takes several requests where few sessions match. */
async function readPage(asked, cursor) {
  const sessions = []
  let complete = true, at = null, next = cursor
  for (let count = 0; count < MOST_REQUESTS; count++) {
    asked.set('limit', PAGE - sessions.length)
    if (next) asked.set('cursor', next)
    const mine = run
    const page = await call('GET', `/v1/sessions?${asked}`)
    if (mine !== run) break
    const received = performance.now()
    sessions.push(...page.sessions.map((each) => ({...each, readAt: received, serverMs: page.server_time_ms})))
    complete &&= page.complete
    at = page.server_time_ms
    next = page.next_cursor
    if (!next || sessions.length === PAGE) break
  }
  return {sessions, complete, at, next}
}

/** Puts sessions into the table: a row that stays is changed in place, and only where it differs. */
function show({sessions, at, next}) {
  nextCursor = next
  shownAt = at
  const body = byId('rows'), kept = new Set(sessions.map(({session_id: id}) => id))
  for (const [id, {row}] of rows) {
    if (kept.has(id)) continue
    row.remove()
    rows.delete(id)
  }
  let place = body.firstElementChild
  for (const item of sessions) {
    const entry = rows.get(item.session_id) ?? newRow(item)
    fill(entry, item)
    if (entry.row === place) place = place.nextElementSibling
    else body.insertBefore(entry.row, place)
  }
  byId('previous').disabled = cursors.length === 1
  byId('next').disabled = !next
  setText(byId('page-number'), texts.pageNumber(cursors.length))
  setText(byId('list-state'), texts.updated(instantText(shownAt)))
  byId('none').hidden = sessions.length > 0
  const isFiltered = byId('query').value.trim() || byId('mode').value || cursors.length > 1
  setText(byId('none'), next ? texts.searchedPart : isFiltered ? texts.noSessions : texts.noSessionsYet)
}

function newRow(item) {
  const id = item.session_id, row = make('tr', {role: 'row'}), cells = {}
  row.dataset.id = id
  for (const name of COLUMNS) row.append(cells[name] = make('td', {role: 'cell', className: name}))
  cells.badge = cells.status.appendChild(make('span'))
  const href = `#session=${id}`
  const link = make('a', {href, textContent: id.slice(0, 8), title: id, 'aria-label': texts.session(id)})
  cells.id.append(link)
  row.addEventListener('click', (event) => { if (!event.target.closest('a') && !String(getSelection())) link.click() })
  const entry = {row, cells}
  rows.set(id, entry)
  return entry
}

function fill(entry, item) {
  const {cells} = entry, before = entry.item
  entry.item = item
  setText(cells.clock, clockText(item))
  if (before && before.version === item.version && before.epoch === item.epoch) return
  setText(cells.badge, texts.statuses[item.status])
  cells.badge.className = `badge ${BADGES[item.status] ?? ''}`
  setText(cells.active, item.active_participant_id ?? '')
  setText(cells.mode, texts.modes[item.sync_mode])
  setText(cells.people, String(item.participant_count))
  setText(cells.cycles, String(item.cycle_count))
  setText(cells.created, instantText(item.created_at))
  setText(cells.metadata, metadataText(item.metadata))
}

function metadataText(metadata) {
  const shown = (value) => (typeof value === 'object' ? JSON.stringify(value) : value)
  return Object.entries(metadata).slice(0, 4).map(([key, value]) => `${key}=${shown(value)}`).join('  ').slice(0, 120)
}

/** What a clock of the list shows now: the time that has passed here since it was read. */
function clockText({clock, readAt}) {
  const isUp = clock.direction === 'up', inPart = clock.phase === 'period' || clock.phase === 'block'
  const then = isUp ? clock.elapsed_ms : inPart ? clock.phase_remaining_ms : clock.remaining_ms
  if (then === null) return ''
  const passed = clock.running ? performance.now() - readAt : 0
  const counted = clock.phase === 'delay' ? Math.max(0, passed - clock.phase_remaining_ms) : passed
  const left = then > 0 ? Math.max(0, then - counted) : then - counted  // below 0 only in overtime
  return timeText(isUp ? then + counted : left, {up: isUp, tenths: false})
}

function tick() {
  if (document.hidden) return
  for (const {cells, item} of rows.values()) if (item.clock.running) setText(cells.clock, clockText(item))
}
