// What happened to a session, newest first: from the audit log, and live before it is there.

import {call} from './console-access.js'
import {actorText, budgetText, eventText, exactInstantText} from './console-words.js'
import {byId, make, setText} from './page.js'
import {consoleTexts as texts} from './texts.js'

const PAGE = 100
const SOON_MS = 800                                           // the log has an event half a second after its commit
const LATEST_MS = 30_000
const COLUMNS = Object.keys(texts.timelineColumns)

for (const name of COLUMNS) {
  byId('timeline-head').append(make('th', {role: 'columnheader', scope: 'col', className: name,
    textContent: texts.timelineColumns[name]}))
}

/**
 * Shows the events of a session.
 *
 * Returns {events(): those that are shown, oldest first; first(): the first of all, or null; onChange(listener);
 * onChoose(listener): an event was chosen; nameLinks(names); close()}.
 */
export function showTimeline(game) {
  const entries = new Map()                                   // by key: {logged, row, cells}
  const changed = new Set(), chosen = new Set()
  let cursor = null, first = null, names = new Map(), isOpen = true, timer, wait = SOON_MS
  byId('events').replaceChildren()
  byId('older').hidden = true
  say(texts.loading)

  const path = (query) => `/v1/sessions/${game.id}/events?${query}`
  const tell = () => { for (const listener of changed) listener() }
  const older = () => load(`order=newest_first&limit=${PAGE}&cursor=${cursor}`, true)
  byId('older').addEventListener('click', older)

  async function load(query, isPage) {
    try {
      const page = await call('GET', path(query))
      if (!isOpen) return
      if (isPage) {
        cursor = page.next_cursor
        byId('older').hidden = !cursor
        if (!cursor) first = page.events.at(-1) ?? null
      }
      for (const event of page.events) put(event)
      say(entries.size ? '' : texts.noEvents)
      tell()
    } catch (error) {
      if (isOpen) say(error.code === 'SESSION_NOT_FOUND' ? texts.noEvents : texts.logAway)
    }
  }

  /** Adds an event, or completes the one that is shown already. */
  function put(logged) {
    const key = `${logged.epoch}-${logged.version}`
    let entry = entries.get(key)
    if (!entry) {
      entry = newRow((event) => { for (const listener of chosen) listener(event) })
      entries.set(key, entry)
      byId('events').insertBefore(entry.row, rowAfter(logged))
    }
    entry.logged = logged
    fill(entry, names)
  }

  /** The row that a new event comes before: the newest of those that are older. */
  function rowAfter(logged) {
    let after = null, newest = null
    for (const {logged: other, row} of entries.values()) {
      if (other && isBefore(other, logged) && (!newest || isBefore(newest, other))) [newest, after] = [other, row]
    }
    return after
  }

  /** Reads the newest events again until the log has those that are shown. */
  function refreshSoon() {
    clearTimeout(timer)
    timer = setTimeout(async () => {
      await load(`order=newest_first&limit=${PAGE}`, false)
      const waits = [...entries.values()].some(({logged}) => logged.isUnlogged)
      wait = waits ? Math.min(LATEST_MS, wait * 2) : SOON_MS
      if (waits && isOpen) refreshSoon()
    }, wait)
  }

  const stop = game.on('change', ({state, event, skipped}) => {
    if (!event && !skipped) return
    if (event) {
      put({epoch: state.epoch, version: state.version, type: event.type, at_ms: event.at_ms, event,
        remaining_ms: event.remaining_ms, isUnlogged: true})
      say('')
      tell()
    }
    wait = SOON_MS
    refreshSoon()
  })
  const ready = load(`order=newest_first&limit=${PAGE}`, true).then(findFirst)

  /** The first event begins the life of the slider; of a long session it is on a later page. */
  async function findFirst() {
    if (first || !cursor || !isOpen) return
    const page = await call('GET', path('limit=1')).catch(() => null)
    first ??= page?.events[0] ?? null
    if (isOpen) tell()
  }

  return {
    events: () => [...entries.values()].map(({logged}) => logged).sort((a, b) => (isBefore(a, b) ? -1 : 1)),
    first: () => first,
    ready,
    onChange: (listener) => changed.add(listener),
    onChoose: (listener) => chosen.add(listener),
    nameLinks(given) {
      names = given
      for (const entry of entries.values()) fill(entry, names)
    },
    close() {
      isOpen = false
      stop()
      clearTimeout(timer)
      byId('older').removeEventListener('click', older)
      byId('events').replaceChildren()
    },
  }
}

function isBefore(one, other) {
  return one.epoch === other.epoch ? one.version < other.version : one.epoch < other.epoch
}

function newRow(choose) {
  const row = make('tr', {role: 'row'}), cells = {}
  for (const name of COLUMNS) row.append(cells[name] = make('td', {role: 'cell', className: name}))
  const entry = {row, cells, time: cells.time.appendChild(make('button', {type: 'button', className: 'plain digits'}))}
  entry.time.addEventListener('click', () => choose(entry.logged))
  return entry
}

function fill({logged, row, cells, time}, names) {
  const at = exactInstantText(logged.at_ms)
  row.classList.toggle('unlogged', Boolean(logged.isUnlogged))
  setText(time, at)
  time.setAttribute('aria-label', texts.showAt(at))
  setText(cells.what, eventText(logged))
  setText(cells.change, budgetText(logged))
  setText(cells.who, logged.isUnlogged ? texts.notLogged : actorText(logged, names))
  setText(cells.request, logged.request_id ?? '')
  cells.request.title = logged.request_id ?? ''
}

function say(text) {
  byId('timeline-state').hidden = !text
  setText(byId('timeline-state'), text)
}
