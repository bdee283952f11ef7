// The page /play/<id>: a clock for two players, on one device or on several, and for whoever watches.

import {
  act, announce, byId, connectionBanner, create, describeError, everyFrame, fillTexts, openPage, setText, toast,
} from './page.js'
import {PlayEvents} from './play-events.js'
import {share, showKeys, showMenu} from './play-menu.js'
import {headlineOf, newGame, nextGame, ownersOf, rulesOf, takeNames} from './play-rules.js'
import {canFill, isFull, keepAwake, toggleFull} from './play-screen.js'
import {Side} from './play-sides.js'
import {playTap, setSound, soundIsOn, unlockSound} from './play-sounds.js'
import {play} from './texts.js'

const board = byId('board')
fillTexts()
const {game, access} = openPage()
/** A phone or tablet that lies upright between the players. */
const lies = matchMedia('(hover: none) and (orientation: portrait)')
let sides = [], layout = '', isSwapped = false, isFlipped = null
const events = game && new PlayEvents(game, access)

if (game) {
  connectionBanner(game)
  game.on('change', ({event}) => {
    for (const side of sides) side.element.classList.remove('pressed')
    if (event) events.heard(event)
    show()
  })
  game.on('status', show)
  connect()
  everyFrame(() => {
    if (!game.state) return
    for (const side of sides) {
      const found = side.tick(game.state)
      if (side.isActive(game.state)) events.counted(side, found)
    }
  })
  show()
}

// What people see.

function show() {
  const {state} = game
  if (!state) return
  takeNames(state)
  build(state)
  const isLive = game.status === 'live', {status} = state
  for (const side of sides) side.update(state, isLive && mayTap(side, state))
  setText(byId('headline'), headlineOf(state, access.participant))
  setText(byId('rules'), rulesOf(state))
  document.title = `${headlineOf(state, access.participant)} – ${play.title}`
  const isOver = !['pending', 'running', 'paused'].includes(status)
  byId('bar').hidden = false
  byId('bar').classList.toggle('over', isOver)
  const buttons = {start: 'pending', pause: 'running', resume: 'paused'}
  for (const [id, of] of Object.entries(buttons)) {
    byId(id).hidden = !access.mayControl || status !== of
    byId(id).disabled = !isLive
  }
  // A link is for this session only.
  byId('again').hidden = !isOver || access.isLink || !(access.mayControl || nextGame(state))
  setText(byId('again'), nextGame(state) ? play.toNextGame : play.again)
  byId('share').hidden = !access.mayShare
  byId('flip').hidden = layout !== 'pair'
  keepAwake(status === 'running')
}

/** Makes the sides anew when others have clocks than before. */
function build(state) {
  const owners = ownersOf(state)
  const isPair = owners.length === 2
  const key = JSON.stringify([owners, isSwapped, state.metadata.names])
  if (board.dataset.owners === key) return
  board.dataset.owners = key
  for (const side of sides) side.element.remove()
  sides = (owners.length ? owners : [null]).map((owner) => new Side(game, owner, tapped))
  layout = isPair ? 'pair' : 'list'
  board.dataset.layout = layout
  board.classList.toggle('own', isPair && access.participant !== null)
  if (isPair) {
    const near = Math.max(0, owners.findIndex(({people}) => people.includes(access.participant)))
    const [first, second] = (near === 0) !== isSwapped ? sides : sides.toReversed()
    first.element.classList.add('near')
    second.element.classList.add('far')
    board.prepend(second.element)
    board.append(first.element)
    showFlip()
  } else {
    board.append(...sides.map((side) => side.element))
  }
}

/** Where both play on one device, the far side is turned round, unless somebody has chosen. */
function showFlip() {
  const isOnOneDevice = access.participant === null && access.mayAct && lies.matches
  const far = board.querySelector('.far'), isTurned = isFlipped ?? isOnOneDevice
  far?.classList.toggle('flipped', isTurned)
  byId('flip').setAttribute('aria-pressed', isTurned)
}

// What people do.

/** Whether a tap on a side ends a turn now. */
function mayTap(side, state) {
  const {participant, mayAct} = access
  if (!mayAct || state.status !== 'running') return false
  if (!side.owner) return participant === null || participant === state.active_participant_id
  return side.isActive(state) && (participant === null || participant === state.active_participant_id)
}

async function tapped(side) {
  const {state} = game
  unlockSound()
  if (!state || game.status !== 'live' || !mayTap(side, state)) return
  if (side.element.classList.contains('pressed')) return       // the first press has not been answered yet
  side.element.classList.add('pressed')
  playTap()
  navigator.vibrate?.(15)
  const mover = state.active_participant_id
  try {
    await game.switch(mover === null ? {expectedVersion: state.version} : {participantId: mover})
  } catch (error) {
    // The time ran out, or the same move came from another device: the page shows it.
    if (!['NOT_ACTIVE_PARTICIPANT', 'INVALID_STATE_TRANSITION'].includes(error.code)) toast(describeError(error))
  } finally {
    side.element.classList.remove('pressed')
  }
}

/** Ends the turn of whoever's turn it is. */
function tapActive() {
  const side = sides.find((each) => game.state && each.isActive(game.state))
  if (side) tapped(side)
}

/** Goes to the game that follows this one; makes it, if nobody has. Other pages of this game learn of it. */
async function startAgain() {
  const {state} = game
  byId('again').disabled = true
  try {
    let id = nextGame(state)
    if (!id) {
      ({session_id: id} = await create(newGame(state), game.token))
      const metadata = {...state.metadata, next_session_id: id}
      await game.update({metadata}).catch(() => {})            // they need the new address then
    }
    location.assign(`/play/${id}${location.search}`)
  } catch (error) {
    toast(describeError(error))
  } finally {
    byId('again').disabled = false
  }
}

function toggleSound() {
  setSound(!soundIsOn())
  showSound()
  announce(soundIsOn() ? play.soundOn : play.soundOff)
}

function showSound() {
  const button = byId('sound')
  button.setAttribute('aria-pressed', soundIsOn())
  button.ariaLabel = button.title = play.sound
}

function flip() {
  isFlipped = byId('flip').getAttribute('aria-pressed') !== 'true'
  showFlip()
}

function swap() {
  isSwapped = !isSwapped
  show()
}

function togglePause() {
  const {state} = game
  if (!access.mayControl || game.status !== 'live') return
  if (state.status === 'running') act(game.pause())
  else if (state.status === 'paused') act(game.resume())
}

function connect() {
  const on = {
    start: () => act(game.start()),
    pause: () => act(game.pause()),
    resume: () => act(game.resume()),
    again: startAgain,
    sound: toggleSound,
    flip,
    share: () => share(game, access),
    full: toggleFull,
    more: () => showMenu(game, access, {swap, newGame: startAgain}),
  }
  for (const [id, action] of Object.entries(on)) {
    byId(id).addEventListener('click', (event) => {
      unlockSound()
      if (event.detail > 0) byId(id).blur()                    // or the space bar would press it again
      action()
    })
  }
  for (const id of ['flip', 'share', 'full', 'more']) byId(id).ariaLabel = byId(id).title = play[id]
  byId('full').hidden = !canFill()
  document.addEventListener('fullscreenchange', () => byId('full').setAttribute('aria-pressed', isFull()))
  showSound()
  lies.addEventListener('change', showFlip)
  document.addEventListener('keydown', pressed)
}

const KEYS = {
  p: togglePause,
  m: toggleSound,
  f: flip,
  '?': showKeys,
  ArrowDown: () => tapSide('.near'),
  ArrowLeft: () => tapSide('.near'),
  ArrowUp: () => tapSide('.far'),
  ArrowRight: () => tapSide('.far'),
}

function tapSide(selector) {
  const side = sides.find((each) => each.element.matches(selector))
  if (side) tapped(side)
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return
  if (document.querySelector('dialog[open]') || event.target.closest('input, textarea, select')) return
  if (event.key === ' ' || event.key === 'Enter') {
    if (event.target.closest('button, a')) return              // that button's own key
    event.preventDefault()
    if (game.state?.status === 'pending' && access.mayControl) act(game.start())
    else tapActive()
    return
  }
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key]
  if (!action) return
  event.preventDefault()
  action()
}
