// One session: its state and clocks now, and the parts that other modules show. It stays open until it is closed.

import {open, timeText} from '/sdk/syncapp.js'
import {isOpenToAll, tokenSource} from './console-access.js'
import {setUpCommands} from './console-commands.js'
import {showFacts, showMetadata} from './console-facts.js'
import {showLinks} from './console-links.js'
import {showPast} from './console-past.js'
import {showStatistics} from './console-statistics.js'
import {showTimeline} from './console-timeline.js'
import {lengthText} from './console-words.js'
import {byId, connectionText, everyFrame, make, setText, toast} from './page.js'
import {consoleTexts as texts} from './texts.js'

const BADGES = {running: 'good', paused: 'warn', expired: 'danger'}
let copied = ''

byId('copy-id').addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(copied)
    toast(texts.copiedId)
  } catch {                                                   // not over HTTPS: the id is selected instead
    getSelection().selectAllChildren(byId('session-title'))
  }
})

/** Shows a session; returns a function that closes it. */
export function showSession(id, isId) {
  copied = id
  setText(byId('session-title'), id)
  clear()
  if (!isId) {
    problem(texts.badId)
    return clear
  }
  const game = open(location.origin, id, {token: isOpenToAll() ? null : tokenSource})
  game.ready.catch(() => {})                                  // the status says why
  const timeline = showTimeline(game)
  const past = showPast(game, timeline)
  const statistics = showStatistics(game)
  const links = showLinks(game, timeline)
  const commands = setUpCommands(game)
  const clocks = new Map()
  const draw = () => {
    if (!game.state) return
    showState(game)
    showClocks(game, clocks)
    commands.update()
    links.update()
  }
  const showOpened = () => { if (game.state) showJson(game.state) }
  byId('json').parentElement.addEventListener('toggle', showOpened)
  game.on('change', draw)
  game.on('status', () => {
    showConnection(game)
    commands.update()
  })
  showConnection(game)
  const stopFrames = everyFrame(() => tick(game, clocks))
  return () => {
    stopFrames()
    byId('json').parentElement.removeEventListener('toggle', showOpened)
    for (const part of [timeline, past, statistics, links, commands]) part.close()
    game.close()
    clear()
  }
}

function clear() {
  for (const name of ['clocks', 'facts', 'metadata']) byId(name).replaceChildren()
  for (const name of ['now', 'json', 'session-status', 'connection']) setText(byId(name), '')
  byId('session-status').className = 'badge'
  problem('')
}

function problem(text) {
  byId('session-problem').hidden = !text
  setText(byId('session-problem'), text)
}

function showConnection(game) {
  const {text} = connectionText(game), code = game.reason?.code
  const isLive = game.status === 'live'
  setText(byId('connection'), isLive ? texts.live : game.status === 'connecting' ? texts.loading : texts.notLive)
  byId('connection').className = `small connection ${isLive ? 'live' : ''}`
  const isGone = game.reason?.final && code === 'SESSION_NOT_FOUND'
  problem(isGone ? texts.notInStore : code === 'DELETED' ? texts.deletedNow : game.status === 'connecting' ? '' : text)
}

function showState(game) {
  const {state} = game, mover = state.active_participant_id
  setText(byId('session-status'), texts.statuses[state.status])
  byId('session-status').className = `badge ${BADGES[state.status] ?? ''}`
  setText(byId('now'), mover ? texts.theirTurn(mover) : state.participants.length ? texts.nobody : '')
  showFacts(byId('facts'), state)
  showMetadata(byId('metadata'), state.metadata)
  showJson(state)
}

/** Writes the state as JSON, if that is open: it may be large. */
function showJson(state) {
  if (byId('json').parentElement.open) setText(byId('json'), JSON.stringify(state, null, 2))
}

// The clocks: one for each owner of a budget, and lines for participants that share one.

function showClocks(game, clocks) {
  const {state} = game, list = byId('clocks'), owners = ownersOf(state)
  const isHourglass = Boolean(state.time_control?.stages[0].hourglass)
  const keys = new Set(owners.map(({key}) => key))
  for (const [key, {item}] of clocks) {
    if (keys.has(key)) continue
    item.remove()
    clocks.delete(key)
  }
  for (const owner of owners) {
    let shown = clocks.get(owner.key)
    if (!shown) {
      shown = newClock(owner)
      clocks.set(owner.key, shown)
      list.append(shown.item)
    }
    shown.owner = owner.owner
    shown.hasClock = owner.hasClock
    shown.runs = owner.isActive || owner.owner === undefined || isHourglass
    shown.item.classList.toggle('active', owner.isActive)
    shown.mark.hidden = !owner.isActive
    setText(shown.note, owner.note)
  }
  tick(game, clocks, true)
}

function newClock({name, hasClock}) {
  const mark = make('span', {className: 'badge good', textContent: texts.toMove, hidden: true})
  const time = make('span',
    {className: 'time digits', role: 'timer', 'aria-live': 'off', 'aria-label': name, hidden: !hasClock})
  const note = make('span', {className: 'quiet small'}), phase = make('span', {className: 'small'})
  const item = make('li', {}, make('span', {className: 'name'}, name, ' ', mark), time, phase, note)
  return {item, mark, time, note, phase}
}

/** Who has a clock: {key, owner (for the client; undefined: the session's), name, isActive, hasClock, note}. */
function ownersOf(state) {
  const {scope, direction} = state.clock
  const people = state.participants.map((each) => ({
    key: `p ${each.participant_id}`, owner: each.participant_id, name: each.participant_id,
    isActive: each.participant_id === state.active_participant_id, hasClock: scope === 'participant',
    note: noteOf(each),
  }))
  if (scope === 'participant') return people
  if (scope === 'group') {
    const mover = state.participants.find((each) => each.participant_id === state.active_participant_id)
    return state.groups.map((each) => ({
      key: `g ${each.group_id}`, owner: each.group_id, name: each.group_id, isActive: each.group_id === mover?.group_id,
      hasClock: true, note: `${noteOf(each)} · ${membersOf(state, each)}`,
    }))
  }
  const name = direction === 'up' ? texts.elapsed : texts.timeLeft
  return [{key: 's', owner: undefined, name, isActive: false, hasClock: true, note: ''}, ...people]
}

function membersOf(state, {group_id: group}) {
  const ids = state.participants.filter((each) => each.group_id === group).map(({participant_id: id}) => id)
  return ids.map((id) => (id === state.active_participant_id ? `${id} (${texts.toMove})` : id)).join(', ')
}

function noteOf(owner) {
  const parts = [texts.used(lengthText(owner.time_used_ms))]
  if (owner.cycle_count !== undefined) parts.push(texts.turns(owner.cycle_count))
  if (owner.stage > 1) parts.push(texts.stage(owner.stage))
  if (owner.has_expired) parts.push(texts.hasExpired)
  return parts.join(' · ')
}

/** Writes the clocks that run; all of them after a change. */
function tick(game, clocks, all = false) {
  if (!game.state) return
  const isUp = game.state.clock.direction === 'up'
  for (const {owner, hasClock, runs, time, phase} of clocks.values()) {
    if (!hasClock || !(runs || all)) continue
    if (isUp) {
      setText(time, timeText(game.elapsed(), {up: true}))
      continue
    }
    const reading = game.reading(owner)
    setText(time, timeText(reading?.ms ?? null))
    setText(phase, reading ? phaseText(reading) : '')
  }
}

function phaseText({phase, delayMs, periodsLeft, blockMovesLeft, ms}) {
  if (ms === null) return texts.noBudget
  if (phase === 'delay' && delayMs > 0) return texts.delay(timeText(delayMs))
  if (phase === 'period' && periodsLeft) return texts.period(periodsLeft)
  return phase === 'block' && blockMovesLeft ? texts.block(blockMovesLeft) : ''
}
