// A slider over a session's life: what every clock showed at any past instant, as the audit log computes it.

import {timeText} from '/sdk/syncapp.js'
import {call} from './console-access.js'
import {exactInstantText, lengthText} from './console-words.js'
import {byId, make, setText} from './page.js'
import {consoleTexts as texts} from './texts.js'

const STILL_MS = 150                                          // how long the slider rests before the log is asked
const LOG_MS = 1_500                                          // later instants may not be in the log yet
const LIVE = new Set(['pending', 'running', 'paused'])

/** Shows the slider. timeline: its events are the ticks. Returns {close()}. */
export function showPast(game, timeline) {
  const slider = byId('instant')
  const clocks = new Map()
  let chosen = null                                           // the instant in ms; null: the latest
  let timer, stopAsking = new AbortController()
  byId('past-clocks').replaceChildren()
  slider.disabled = true

  const isLive = () => game.status !== 'closed' && LIVE.has(game.state?.status)
  const start = () => timeline.first()?.at_ms ?? timeline.events()[0]?.at_ms ?? null

  /** The end of the slider: now, or the last event of a session that has ended; a deleted one is not there any more. */
  function end() {
    const last = timeline.events().at(-1)
    const ended = last ? last.at_ms - (last.type === 'session_deleted' ? 1 : 0) : null
    const now = game.clock.now()
    return isLive() && now !== null ? Math.floor(now) - LOG_MS : ended
  }

  /** Fits the slider and its ticks to the life of the session. */
  function fit() {
    const from = start(), to = end()
    slider.disabled = from === null || to === null || to <= from
    for (const name of ['previous-event', 'next-event', 'to-now']) byId(name).disabled = slider.disabled
    if (slider.disabled) return
    slider.min = from
    slider.max = to
    slider.value = chosen ?? to
    const shown = timeline.events().filter(({at_ms: at}) => at <= to)  // later ones would be beyond the slider
    const marks = shown.map(({at_ms: at}) => `M${Math.round((1000 * (at - from)) / (to - from))} 0V10`)
    byId('ticks').firstElementChild.setAttribute('d', [...new Set(marks)].join(''))
    if (chosen === null) describe(isLive() ? texts.latest : texts.latestEnded)
  }

  function describe(text) {
    setText(byId('instant-text'), text)
    slider.setAttribute('aria-valuetext', text)
  }

  function choose(ms) {
    const to = end()
    if (slider.disabled || to === null) return
    chosen = ms >= to ? null : Math.max(Number(slider.min), Math.round(ms))
    slider.max = to // it may be up to a second old, and would shorten the value
    slider.value = chosen ?? to
    clearTimeout(timer)
    stopAsking.abort()
    if (chosen === null) {
      byId('past-clocks').replaceChildren()
      clocks.clear()
      fit()
      return
    }
    describe(texts.pastLoading(exactInstantText(chosen)))
    timer = setTimeout(ask, STILL_MS)
  }

  async function ask() {
    const at = chosen, text = exactInstantText(at)
    const {signal} = stopAsking = new AbortController()
    try {
      const past = await call('GET', `/v1/sessions/${game.id}/at?time=${at}`, {signal})
      if (signal.aborted) return
      describe(texts.pastAt(text, past.version, texts.statuses[past.status]))
      showPastClocks(past, clocks)
    } catch (error) {
      if (signal.aborted) return
      byId('past-clocks').replaceChildren()
      clocks.clear()
      describe(error.code === 'SESSION_NOT_FOUND' ? texts.pastMissing(text)
        : error.code === 'AUDIT_INCOMPLETE' ? texts.pastNotYet(text) : texts.logAway)
    }
  }

  const here = () => chosen ?? end() ?? 0
  const nextEvent = () => choose(timeline.events().find(({at_ms: at}) => at > here())?.at_ms ?? Infinity)
  const previousEvent = () =>
    choose(timeline.events().findLast(({at_ms: at}) => at < here())?.at_ms ?? Number(slider.min))
  const onInput = () => choose(Number(slider.value))
  const onKey = (event) => {
    const step = event.shiftKey ? 60_000 : 1_000
    const action = {
      ArrowLeft: () => choose(here() - step), ArrowDown: () => choose(here() - step),
      ArrowRight: () => choose(here() + step), ArrowUp: () => choose(here() + step),
      PageUp: previousEvent, PageDown: nextEvent, Home: () => choose(Number(slider.min)), End: () => choose(Infinity),
    }[event.key]
    if (!action) return
    event.preventDefault()
    action()
  }
  const toNow = () => choose(Infinity)
  const listeners = [[slider, 'input', onInput], [slider, 'keydown', onKey], [byId('to-now'), 'click', toNow],
    [byId('previous-event'), 'click', previousEvent], [byId('next-event'), 'click', nextEvent]]
  for (const [element, name, listener] of listeners) element.addEventListener(name, listener)
  timeline.onChange(fit)
  timeline.onChoose(({at_ms: at}) => choose(at))
  const fitting = setInterval(() => { if (!document.hidden && isLive()) fit() }, 1_000)
  game.on('status', fit)
  fit()

  return {
    close() {
      clearInterval(fitting)
      clearTimeout(timer)
      stopAsking.abort()
      for (const [element, name, listener] of listeners) element.removeEventListener(name, listener)
      byId('past-clocks').replaceChildren()
      byId('ticks').firstElementChild.removeAttribute('d')
      describe('')
    },
  }
}

function showPastClocks(past, clocks) {
  const list = byId('past-clocks')
  const shown = clocksOf(past)
  if (shown.length !== clocks.size || shown.some(({name}) => !clocks.has(name))) {
    clocks.clear()
    list.replaceChildren(...shown.map(({name}) => {
      const time = make('span', {className: 'time digits'}), note = make('span', {className: 'quiet small'})
      const item = make('li', {}, make('span', {className: 'name', textContent: name}), time, note)
      clocks.set(name, {item, time, note})
      return item
    }))
  }
  for (const {name, text, note, isRunning} of shown) {
    const clock = clocks.get(name)
    setText(clock.time, text)
    setText(clock.note, note)
    clock.item.classList.toggle('active', isRunning)
  }
}

/** The clocks of a past state: {name, text, note, isRunning}. */
function clocksOf({clock, clocks}) {
  const owners = clocks.groups ?? clocks.participants
  const ofOwners = owners.map((each) => ({
    name: each.group_id ?? each.participant_id,
    text: each.remaining_ms === null ? '' : timeText(each.period_remaining_ms ?? each.remaining_ms),
    note: texts.used(lengthText(each.used_ms)),
    isRunning: each.running,
  }))
  if (clock.scope === 'participant' || clock.scope === 'group') return ofOwners
  const isUp = clock.direction === 'up'
  const text = timeText(isUp ? clock.elapsed_ms : clock.remaining_ms, {up: isUp})
  return [{name: isUp ? texts.elapsed : texts.timeLeft, text, note: '', isRunning: clock.running}, ...ofOwners]
}
