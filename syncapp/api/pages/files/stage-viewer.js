// A screen on the wall, on the stage or in a video mixer. It only shows; it sends no command.

import {byId, connectionText, everyFrame, setText} from './page.js'
import {readStage} from './stage-model.js'
import {applyOverlay} from './stage-overlay.js'
import {makeScreen} from './stage-screen.js'
import {stage as texts} from './texts.js'

const IDLE_MS = 3_000

/** Shows the session on the whole page; `overlay` is that of `readOverlay`. */
export function runViewer(game, overlay) {
  const root = byId('wall')
  document.documentElement.classList.add('viewing')
  const screen = makeScreen(root, game, {only: overlay?.show, speaks: !overlay})
  if (overlay) applyOverlay(root, overlay)
  else showOnDisplay(game)
  const update = () => {
    const {title} = readStage(game.state)
    document.title = title ? `${title} – ${texts.heading}` : texts.heading
    screen.update()
  }
  game.on('change', update)
  if (game.state) update()
  everyFrame(screen.tick)
}

function showOnDisplay(game) {
  game.on('status', () => showLink(game))
  game.on('change', () => showLink(game))
  showLink(game)
  stayAwake()
  offerFullScreen()
  hidePointer()
}

/** A small sign in a corner; large only while there is nothing else to show. */
function showLink(game) {
  const {text, isFinal} = connectionText(game)
  const sign = byId('link')
  sign.hidden = !text
  sign.classList.toggle('final', isFinal)
  sign.classList.toggle('alone', !game.state)
  setText(sign, text)
}

/** Keeps the display on. Browsers allow it over HTTPS only, and end it when the page is hidden. */
function stayAwake() {
  const ask = () => {
    // Without battery, or not allowed: the display then follows the system's settings.
    if (!document.hidden) navigator.wakeLock?.request('screen').catch(() => {})
  }
  document.addEventListener('visibilitychange', ask)
  ask()
}

function offerFullScreen() {
  if (!document.fullscreenEnabled) return                      // as on iPhones
  const button = byId('full')
  button.hidden = false
  const toggle = () => {
    const change = document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()
    change.catch(() => {})                                     // the browser did not allow it
  }
  byId('viewer').addEventListener('click', toggle)
  document.addEventListener('keydown', (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return
    if (event.key.toLowerCase() === 'f') toggle()
  })
}

function hidePointer() {
  const page = document.documentElement
  let timer = 0
  const moved = () => {
    page.classList.remove('idle')
    clearTimeout(timer)
    timer = setTimeout(() => page.classList.add('idle'), IDLE_MS)
  }
  addEventListener('pointermove', moved)
  moved()
}
