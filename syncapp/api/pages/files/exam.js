// The page of an exam: the display of the hall, the invigilator's controls, or one candidate's own time.

import {timeText} from '/sdk/syncapp.js'
import {keepAwake} from './display.js'
import {invigilatorControls} from './exam-invigilator.js'
import {durationText, groupClocks, isOver, isSeat, timeOfDay, warningAt} from './exam-model.js'
import {announce, byId, connectionBanner, everyFrame, fillTexts, make, openPage, setText} from './page.js'
import {exam as texts} from './texts.js'

const NOTICE_MS = 60_000

fillTexts()
const {game, access} = openPage()
if (game) run()

function run() {
  let invigilator = null, cards = [], warned = new Map()

  connectionBanner(game)
  keepAwake()
  game.on('change', ({state, event}) => {
    if (access.mayControl && !isSeat(state)) invigilator ??= invigilatorControls(game, access)
    render(state)
    if (event) tell(event)
  })
  game.on('status', () => game.state && render(game.state))
  everyFrame(frame)

  /** The clocks that this page shows: the groups of a hall, or the candidate's own. */
  function clocks() {
    const {state} = game, left = game.remaining(), now = game.clock.now()
    if (!isSeat(state)) return groupClocks(state, left, now)
    const leftMs = isOver(state) ? 0 : left === null ? null : Math.max(0, left)
    return [{name: '', timeMs: state.total_time_ms, leftMs, endsAtMs: leftMs && now !== null ? now + leftMs : null}]
  }

  function render(state) {
    const title = state.metadata.title || (isSeat(state) && state.metadata.exam) || texts.pageTitle
    document.title = title
    byId('page').hidden = false
    byId('page').dataset.role = isSeat(state) ? 'candidate' : invigilator ? 'invigilator' : 'hall'
    byId('page').dataset.status = state.status
    setText(byId('title'), title)
    setText(byId('who'), isSeat(state) ? state.metadata.candidate : '')
    byId('who').hidden = !byId('who').textContent
    setText(byId('status'), isOver(state) ? endText(state) : texts.status[state.status])
    byId('status').className = `badge ${{running: 'good', paused: 'warn'}[state.status] ?? ''}`
    byId('paused').hidden = state.status !== 'paused'
    const names = clocks().map(({name}) => name)
    if (cards.length !== names.length || cards.some((card, index) => card.name !== names[index])) {
      cards = names.map(newCard)
      byId('groups').replaceChildren(...cards.map(({element}) => element))
    }
    invigilator?.render()
    frame()
  }

  function newCard(name) {
    const card = {
      name, notice: make('p', {className: 'notice', hidden: true}), duration: make('p', {className: 'quiet'}),
      ends: make('p', {className: 'ends digits'}), condition: make('p', {className: 'condition'}),
      left: make('p', {className: 'left digits', role: 'timer', 'aria-live': 'off'}),
      label: make('p', {className: 'label', textContent: texts.left, 'aria-hidden': 'true'}),
    }
    card.left.setAttribute('aria-label', name ? texts.leftOf(name) : texts.left)
    const heading = name ? [make('h2', {textContent: name})] : []
    const {duration, ends, condition, label, left, notice} = card
    const parts = [...heading, duration, ends, condition, label, left, notice]
    card.element = make('li', {className: 'card group-card'}, ...parts)
    return card
  }

  /** What stands in place of a time after the end. */
  function endText(state) {
    if (state.status === 'cancelled') return texts.status.cancelled
    if (state.status !== 'completed') return texts.timeUp
    return isSeat(state) ? texts.status.handedIn : texts.status.completed
  }

  function frame() {
    const {state} = game
    if (!state) return
    setText(byId('now'), timeOfDay(game.clock.now(), {seconds: true}))
    clocks().forEach((clock, index) => showClock(cards[index], clock, state))
    const news = clocks().map((clock) => newsOf(clock, state)).filter(Boolean)
    if (news.length) announce(news.join('. '), {assertive: true})
    invigilator?.frame()
  }

  function showClock(card, {name, timeMs, leftMs, endsAtMs}, state) {
    if (!card) return
    const isUp = leftMs === 0, threshold = state.status === 'pending' ? null : warningAt(state, leftMs)
    setText(card.duration, timeMs ? durationText(timeMs) : '')
    setText(card.left, isUp ? endText(state) : timeText(leftMs, {tenths: false}))
    card.ends.hidden = card.label.hidden = isUp
    setText(card.ends, endsAtMs === null ? '' : texts.ends(timeOfDay(endsAtMs)))
    card.condition.hidden = isUp || state.status === 'running'
    setText(card.condition, state.status === 'paused' ? texts.ifResumed : texts.ifStarted)
    // Shown for a minute after the warning, and said once.
    const isNews = threshold !== null && leftMs > threshold - NOTICE_MS
    card.notice.hidden = !isNews
    setText(card.notice, threshold === null ? '' : texts.warning(durationText(threshold)))
    card.element.classList.toggle('warned', threshold !== null)
    card.element.classList.toggle('up', isUp)
  }

  /** What is said of a clock that has just reached a warning or its end; '' if there is nothing new. */
  function newsOf({name, leftMs}, state) {
    if (leftMs === null || state.status === 'pending') return ''
    const threshold = warningAt(state, leftMs), reached = leftMs === 0 ? 0 : threshold ?? Infinity
    const before = warned.get(name)
    warned.set(name, reached)
    // Nothing when the page has just been opened, or when time was added.
    if (before === undefined || before <= reached) return ''
    return texts.say(name, reached === 0 ? endText(state) : texts.warning(durationText(threshold)))
  }

  function tell(event) {
    const {started, allPaused, resumed} = texts, {type, adjusted_ms: added} = event
    const said = {session_started: started, session_paused: allPaused, session_resumed: resumed}[type]
    if (said) announce(said, {assertive: true})
    if (type === 'time_adjusted' && added > 0) announce(texts.moreTime(durationText(added)))
  }
}
