// The operator's page: the timer, its keys, and the dialogs that belong to it.

import {act, byId, connectionBanner, everyFrame, make, setText, shareDialog, toast} from './page.js'
import {showAgenda} from './stage-agenda.js'
import {addTime, change, load, toggle} from './stage-commands.js'
import {changeTimeDialog, helpDialog} from './stage-dialogs.js'
import {runDisplay, runMessages} from './stage-forms.js'
import {listenToKeys} from './stage-keys.js'
import {dayText, durationText, hasOtherTime, moment, readStage} from './stage-model.js'
import {makeScreen} from './stage-screen.js'
import {stage as texts} from './texts.js'

const MINUTE_MS = 60_000
const FLASH_PAUSE_MS = 3_000

export function runOperator(game, access) {
  connectionBanner(game)
  const screen = makeScreen(byId('preview'), game, {isPreview: true, speaks: true})
  const messages = runMessages(game), display = runDisplay(game)
  const actions = makeActions(game, messages)
  const update = () => {
    const stage = readStage(game.state)
    screen.update()
    showButtons(game, stage)
    showOtherTime(game, stage)
    messages.update(stage)
    display.update(stage)
    showAgenda(game, stage, actions.loadItem)
    if (game.state.status === 'running') byId('undo-box').replaceChildren()
  }
  game.on('change', update)
  game.on('clock', () => game.state && showOtherTime(game, readStage(game.state)))
  const updateAny = () => (game.state ? update() : showButtons(game, readStage(null)))
  game.on('status', updateAny)
  updateAny()
  everyFrame(() => {
    screen.tick()
    showEnds(game)
  })
  for (const [id, action] of Object.entries(actions.buttons)) byId(id).addEventListener('click', action)
  // After a click of the mouse, the space bar starts and pauses again, and does not repeat the click.
  byId('operator').addEventListener('click', (event) => {
    const button = event.target.closest('.button')
    if (event.detail > 0 && document.activeElement === button) button.blur()
  })
  byId('share').hidden = !access.mayShare
  byId('share').addEventListener('click', () => shareDialog(game, access, [
    {label: texts.shareViewer, page: 'stage', scope: 'session:watch'},
    {label: texts.shareOperator, page: 'stage', scope: 'session:control'},
    {label: texts.shareOverlay, page: 'stage', scope: 'session:watch', query: {overlay: '1'}},
  ]))
  const keys = listenToKeys(actions.keys)
  byId('help').addEventListener('click', () => helpDialog(keys))
}

/** Everything that the operator can do by a button or a key. */
function makeActions(game, messages) {
  const press = (id) => () => byId(id).click()                 // a disabled button does nothing
  const add = (ms) => () => { if (!byId('plus').disabled) act(addTime(game, ms)) }
  const loadItem = (item) => putOnStage(game, item, texts.loaded)
  return {
    loadItem,
    buttons: {
      toggle: () => act(toggle(game)),
      minus: add(-MINUTE_MS),
      plus: add(MINUTE_MS),
      change: () => changeTimeDialog(game),
      reset: () => putOnStage(game, readStage(game.state).item, texts.wasReset),
      'other-reset': press('reset'),
      next: () => loadItem(readStage(game.state).next),
      previous: () => loadItem(readStage(game.state).previous),
      flash: () => flash(game),
      blackout: () => {
        const blackout = !readStage(game.state).blackout       // as the operator saw it: two who press want the same
        act(change(game, () => ({blackout})))
      },
    },
    keys: {
      ' ': press('toggle'), ArrowUp: add(MINUTE_MS), ArrowDown: add(-MINUTE_MS), ArrowRight: add(10_000),
      ArrowLeft: add(-10_000), n: press('next'), p: press('previous'), m: messages.toggle, f: press('flash'),
      b: press('blackout'), '?': press('help'),
    },
  }
}

/** Loads an item, or resets the one on stage, and offers to take it back. Without an agenda, `item` is null. */
async function putOnStage(game, item, said) {
  if (!game.state) return
  const before = readStage(game.state), was = {...moment(game, before), at: game.clock.now()}
  const ms = item?.ms ?? game.state.total_time_ms ?? 0
  const from = before.item?.id ?? null
  const done = await act(load(game, {id: item?.id ?? null, ms, from}))
  if (done === null) return
  offerUndo(said(item?.title), () => {
    const sinceMs = was.status === 'running' ? game.clock.now() - was.at : 0
    return load(game, {
      id: from, ms: was.leftMs - sinceMs, elapsedMs: was.elapsedMs + sinceMs, from: item?.id ?? null,
      run: was.status === 'running',
    })
  })
}

/** Until the timer is started. */
function offerUndo(said, takeBack) {
  const box = byId('undo-box')
  const button = make('button', {type: 'button', className: 'button', textContent: texts.undo})
  const end = () => box.replaceChildren()
  button.addEventListener('click', async () => {
    end()
    const done = await act(takeBack().then((result) => result ?? 'late'))
    if (done) toast(done === 'late' ? texts.cannotUndo : texts.undone)
  })
  box.replaceChildren(make('span', {textContent: said}), button)
}

let isFlashing = false

/** The instant is the server's, so screens know an old flash when they connect again. */
async function flash(game) {
  byId('flash').disabled = isFlashing = true
  setTimeout(() => {
    isFlashing = false
    byId('flash').disabled = game.status !== 'live'
  }, FLASH_PAUSE_MS)
  const at = Math.round(game.clock.now() ?? game.state.server_time_ms)
  await act(change(game, (stage) => ({flash_at: Math.max(at, stage.flashAt + 1)})))
}

function showButtons(game, stage) {
  const {state} = game
  const isLive = game.status === 'live' && state !== null, status = state?.status
  const isOver = isLive && !['pending', 'running', 'paused'].includes(status)
  const hasBudget = state?.clock.direction === 'down'
  setText(byId('toggle'), status === 'running' ? texts.pause : isOver ? texts.reopen : texts.start)
  byId('toggle').disabled = !isLive
  for (const id of ['minus', 'plus', 'change']) byId(id).disabled = !isLive || isOver || !hasBudget
  byId('reset').disabled = !isLive || !hasBudget
  byId('next').disabled = !isLive || !hasBudget || !stage.next
  byId('previous').disabled = !isLive || !hasBudget || !stage.previous
  byId('flash').disabled = !isLive || isFlashing
  for (const id of ['blackout', 'share', 'message-show', 'add']) byId(id).disabled = !isLive
  byId('blackout').setAttribute('aria-pressed', String(stage.blackout))
  setText(byId('name'), stage.title || texts.heading)
  document.title = stage.title ? `${stage.title} – ${texts.heading}` : texts.heading
}

/** Says that the first item's time is not on the clock: a new session has its own. */
function showOtherTime(game, stage) {
  byId('other-time').hidden = !hasOtherTime(game, stage)
  byId('other-reset').disabled = byId('reset').disabled
  if (stage.item) setText(byId('other-text'), texts.otherTime(durationText(stage.item.ms)))
}

/** When the item on stage ends, and the whole agenda, if nothing is changed any more. */
function showEnds(game) {
  if (!game.state) return
  const stage = readStage(game.state), {leftMs, status, clockMs} = moment(game, stage)
  const isKnown = leftMs !== null && clockMs !== null && status !== 'over'
  const end = isKnown && leftMs > 0 ? dayText(clockMs + leftMs) : null
  setText(byId('ends'), end ? (status === 'running' ? texts.endsAt(end) : texts.wouldEndAt(end)) : '')
  const sum = (items) => items.reduce((total, item) => total + item.ms, 0)
  const allEnd = isKnown ? clockMs + Math.max(0, leftMs) + sum(stage.items.slice(stage.index + 1)) : null
  const text = stage.items.length && allEnd
    ? texts.allEndAt(stage.items.length, durationText(sum(stage.items)), dayText(allEnd, 'short')) : ''
  setText(byId('agenda-sum'), text)
}
