// What a screen shows, on the wall and, smaller, in the operator's preview.

import {announce, make, setText} from './page.js'
import {dayText, mainText, moment, readStage, signText, thresholds} from './stage-model.js'
import {stage as texts} from './texts.js'

const FLASH_MS = 3_000           // three pulses, one a second: WCAG allows three a second
const FLASH_IS_OLD_MS = 30_000
const RULER_PX = 100

/**
 * Makes a screen in `root`. options: {isPreview, only, speaks}.
 *
 * Returns {update, tick}: call `update()` at each version, and `tick()` before each frame. A flash that is older than
 * the first state does not flash again.
 */
export function makeScreen(root, game, {isPreview = false, only = null, speaks = false} = {}) {
  const parts = build(root, isPreview)
  let stage = readStage(game.state), flashAt = null, flashing = 0, level = null, shape = '', said = ''

  const isShown = (part) => stage.show[part] && (!only || only.has(part))
  const shownTime = () => (only && !only.has('time') ? 'none' : stage.time)

  function update() {
    stage = readStage(game.state)
    const {item, next, message} = stage
    setText(parts.title, (isShown('title') && (item?.title || (item ? '' : stage.title))) || '')
    setText(parts.speaker, (isShown('speaker') && item?.speaker) || '')
    setText(parts.next, isShown('next') && next ? texts.next(next.title, next.speaker) : '')
    const shown = isShown('message') && message.shown ? message.text : ''
    setText(parts.message, shown)
    parts.message.dataset.colour = message.colour
    parts.message.hidden = !shown
    parts.bar.hidden = !isShown('bar')
    parts.clock.hidden = !isShown('clock') || stage.time === 'clock'
    parts.sign.hidden = !isShown('sign')
    parts.heading.hidden = !parts.title.textContent && !parts.speaker.textContent
    root.classList.toggle('has-message', Boolean(shown))
    root.classList.toggle('black', stage.blackout)
    if (speaks && shown && shown !== said) announce(texts.messageSaid(shown), {assertive: true})
    said = shown
    flash()
    tick()
    fitMessage()
  }

  /** Flashes once for each new instant. One that comes while it flashes already adds nothing. */
  function flash() {
    const isNew = flashAt !== null && stage.flashAt > flashAt
    flashAt = stage.flashAt
    const now = game.clock.now()
    if (!isNew || flashing || (now !== null && now - flashAt > FLASH_IS_OLD_MS)) return
    root.classList.add('flashing')
    root.dataset.flashes = Number(root.dataset.flashes ?? 0) + 1
    flashing = setTimeout(() => {
      flashing = 0
      root.classList.remove('flashing')
    }, FLASH_MS)
  }

  function tick() {
    if (!game.state) return
    const now = moment(game, stage)
    const time = mainText(shownTime(), now)
    setText(parts.time, time)
    setText(parts.sign, signText(stage.time, now))
    if (!parts.clock.hidden) setText(parts.clock, dayText(now.clockMs, 'short'))
    if (root.dataset.level !== now.level) root.dataset.level = now.level
    if (root.dataset.status !== now.status) root.dataset.status = now.status
    if (speaks && level && level !== now.level && now.level !== 'green') announce(signText('down', now))
    if (now.leftMs !== null) level = now.level
    fitTime(time)
    if (!parts.bar.hidden) drawBar(now)
  }

  /** Measures the text when its shape changes, so that it fills the screen's width with every font. */
  function fitTime(time) {
    const newShape = time.replace(/\d/g, '0')
    if (newShape === shape) return
    shape = newShape
    setText(parts.ruler, shape)
    root.style.setProperty('--em', Math.max(1.6, parts.ruler.offsetWidth / RULER_PX).toFixed(3))
    fitMessage()
  }

  /** Makes the message as large as the place beside the time allows. */
  function fitMessage() {
    if (parts.message.hidden) return
    const {main, time, sign, message} = parts
    const {clientWidth: width, clientHeight: height} = root
    const room = main.clientHeight - time.getBoundingClientRect().height - sign.offsetHeight - height * 0.03
    let size = Math.min(height * 0.17, width * 0.14)
    do {
      root.style.setProperty('--message', `${size.toFixed(1)}px`)
      size *= 0.92
    } while (size > 6 && (message.offsetHeight > room || message.scrollWidth > message.clientWidth))
  }

  function drawBar({grantedMs, elapsedMs, leftMs}) {
    const share = (ms) => `${(100 * Math.min(1, Math.max(0, ms / grantedMs))).toFixed(2)}%`
    const {yellowMs, redMs} = thresholds(stage)
    const isEmpty = grantedMs === null || grantedMs <= 0
    const values = isEmpty || leftMs <= 0 ? {spent: leftMs === null ? '0%' : '100%'} : {
      spent: share(elapsedMs),
      'from-yellow': share(yellowMs),
      'from-red': share(redMs),
    }
    for (const [name, value] of Object.entries(values)) {
      if (parts.bar.style.getPropertyValue(`--${name}`) !== value) parts.bar.style.setProperty(`--${name}`, value)
    }
  }

  new ResizeObserver(fitMessage).observe(root)
  return {update, tick}
}

function build(root, isPreview) {
  const part = (name, properties = {}) => make('p', {className: `screen-${name}`, ...properties})
  const parts = {
    title: part('title'),
    speaker: part('speaker'),
    clock: part('clock', {hidden: true}),
    sign: part('sign'),
    time: make('div', {className: 'screen-time digits', role: 'timer', 'aria-live': 'off', 'aria-label': texts.timer}),
    ruler: make('span', {className: 'screen-ruler screen-time digits', 'aria-hidden': 'true'}),
    message: part('message', {hidden: true}),
    next: part('next'),
    bar: make('div', {className: 'screen-bar', 'aria-hidden': 'true'}, make('div', {className: 'screen-spent'})),
  }
  parts.heading = make('div', {className: 'screen-heading'}, parts.title, parts.speaker)
  parts.main = make('div', {className: 'screen-main'}, parts.sign, parts.time, parts.message)
  root.classList.add('screen')
  root.append(
    make('div', {className: 'screen-top'}, parts.heading, parts.clock),
    parts.main, parts.next, parts.bar, parts.ruler,
    make('div', {className: 'screen-flash', 'aria-hidden': 'true'}),
    make('div', {className: 'screen-black', textContent: isPreview ? texts.blackoutOn : ''}),
  )
  return parts
}
