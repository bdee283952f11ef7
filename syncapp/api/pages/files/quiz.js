// The page of a quiz: for the host, for players, and for the big screen.

import {timeText} from '/sdk/syncapp.js'
import {keepAwake} from './display.js'
import {announce, byId, connectionBanner, everyFrame, fillTexts, make, openPage, setText} from './page.js'
import {answersOf, keepAnswer} from './quiz-answers.js'
import {hostControls} from './quiz-host.js'
import {letterOf, phaseOf, questionOf, scoreOf} from './quiz-model.js'
import {quiz as texts} from './texts.js'

const isScreen = new URLSearchParams(location.search).get('screen') === '1'

fillTexts()
const {game, access} = openPage()
if (game) run()

function run() {
  const isHost = access.mayControl && !isScreen, isPlayer = !isHost && !isScreen
  const host = isHost ? hostControls(game, access, render) : null
  let shown = '', phase = '', closedIndex = null

  connectionBanner(game)
  keepAwake()
  byId('page').dataset.role = isHost ? 'host' : isScreen ? 'screen' : 'player'
  game.on('change', ({state, event}) => {
    render()
    if (event) tell(state, event)
  })
  game.on('status', render)
  everyFrame(frame)
  if (isPlayer) document.addEventListener('keydown', answerByKey)

  function choose(index) {
    const {state} = game
    if (phaseOf(state, game.remaining()) !== 'open') return
    keepAnswer(state, state.cycle_count, index)
    render()
  }

  function answerByKey({key, target, ctrlKey, metaKey, altKey}) {
    if (!game.state || ctrlKey || metaKey || altKey || target.closest('input, textarea')) return
    const index = Math.max('12345678'.indexOf(key), 'abcdefgh'.indexOf(key.toLowerCase()))
    if (key.length === 1 && index >= 0 && index < (questionOf(game.state)?.options.length ?? 0)) choose(index)
  }

  function frame() {
    const {state} = game
    if (!state) return
    const left = game.remaining(), ms = left === null ? null : Math.max(0, left)
    setText(byId('time'), timeText(ms))
    const share = ms === null || !state.time_per_cycle_ms ? 0 : Math.min(1, ms / state.time_per_cycle_ms)
    byId('bar').style.transform = `scaleX(${share.toFixed(4)})`
    byId('page').classList.toggle('last', phase === 'open' && ms !== null && ms <= lastMs(state))
    if (phaseOf(state, left) !== phase) render()
  }

  function lastMs(state) {
    return Math.max(5_000, Math.min(...(state.warn_at_ms ?? [5_000])))
  }

  function render() {
    const {state} = game
    if (!state) return
    const question = questionOf(state)
    phase = phaseOf(state, game.remaining())
    byId('page').hidden = false
    byId('page').dataset.phase = phase
    document.title = state.metadata.title || texts.pageTitle
    setText(byId('title'), state.metadata.title || texts.pageTitle)
    byId('number').hidden = !question || phase === 'over' || state.status === 'pending'
    if (question) setText(byId('number'), texts.number(question.index + 1, question.total))
    byId('status').className = `badge ${{open: 'good', paused: 'warn'}[phase] ?? ''}`
    setText(byId('status'), texts.status[phase])
    const isAsked = question !== null && !['waiting', 'over'].includes(phase)
    byId('clock').hidden = phase === 'over'
    byId('asked').hidden = !isAsked
    byId('lead').hidden = isAsked
    setText(byId('lead'), leadText(state))
    if (isAsked) showQuestion(question)
    showResult(state, question)
    host?.render()
  }

  /** What stands in place of a question. */
  function leadText(state) {
    if (state.status === 'pending') return host ? host.leadText() : texts.ready
    if (phase !== 'over') return texts.wait
    const {right, of} = scoreOf(state, answersOf(state))
    return isPlayer && of ? texts.overScore(right, of) : texts.over
  }

  function showQuestion({index, text, options}) {
    const key = JSON.stringify([game.state.epoch, index, text, options])
    if (shown !== key) {
      shown = key
      setText(byId('question'), text || texts.number(index + 1))
      byId('options').replaceChildren(...options.map(option))
    }
    const {solution} = questionOf(game.state), answers = answersOf(game.state)
    byId('options').querySelectorAll('.option').forEach((element, each) => {
      const isMine = answers[index] === each, isRight = solution === each
      if (isPlayer) {
        element.setAttribute('aria-pressed', String(isMine))
        element.disabled = phase !== 'open'
      }
      element.classList.toggle('mine', isPlayer && isMine)
      element.classList.toggle('right', isRight)
      element.classList.toggle('wrong', isPlayer && isMine && solution !== null && !isRight)
      const mineText = solution === null ? texts.markMine : texts.markWrong
      setText(element.querySelector('.mark'), isRight ? texts.markRight : isPlayer && isMine ? mineText : '')
    })
  }

  function option(text, index) {
    const parts = [
      make('span', {className: 'letter', textContent: letterOf(index)}),
      make('span', {className: 'words', textContent: text}), make('span', {className: 'mark'}),
    ]
    if (!isPlayer) return make('li', {}, make('div', {className: 'option'}, ...parts))
    const button = make('button', {type: 'button', className: 'option'}, ...parts)
    button.addEventListener('click', () => choose(index))
    return make('li', {}, button)
  }

  function showResult(state, question) {
    const answers = answersOf(state), {right, of} = scoreOf(state, answers)
    setText(byId('said'), isPlayer && question?.options.length ? saidText(question, answers[question.index]) : '')
    byId('score').hidden = !isPlayer || of === 0
    byId('score').classList.toggle('good', right > 0)
    setText(byId('score'), texts.score(right, of))
  }

  /** What a player is told about the own answer; mine is undefined without one. */
  function saidText({solution}, mine) {
    switch (phase) {
      case 'open': return mine === undefined ? texts.choose : texts.youMayChange
      case 'paused': return mine === undefined ? texts.pausedClosed : texts.pausedSaid(letterOf(mine))
      case 'locked': return mine === undefined ? texts.missed : texts.youSaid(letterOf(mine))
      case 'revealed': return mine === undefined ? texts.missed : mine === solution ? texts.right : texts.wrong
      default: return ''
    }
  }

  function tell(state, event) {
    const question = questionOf(state)
    switch (event.type) {
      case 'time_warning': return event.remaining_ms > 0 ? announce(texts.warning(event.remaining_ms)) : null
      case 'time_adjusted': return tellAdjusted(state, event)
      case 'cycle_timed_out':
        return closedIndex === state.cycle_count ? null : announce(texts.timeIsUp, {assertive: true})
      case 'session_completed': return announce(texts.over)
      case 'session_paused': return isPlayer ? null : announce(texts.status.paused)
      case 'session_resumed': return isPlayer ? null : announce(texts.resumed)
      case 'session_started': case 'cycle_switched':
        if (question && state.status === 'running') announce(question.text)
        break
      case 'metadata_updated': {
        const {solution, options} = question ?? {}
        if (phase === 'revealed') announce(texts.solutionIs(letterOf(solution), options[solution]))
      }
    }
  }

  /** At zero the host has closed the answers: the time did not run out, although the events of that follow. */
  function tellAdjusted(state, {remaining_ms: left}) {
    closedIndex = left === 0 ? state.cycle_count : null
    if (left === 0) announce(texts.closed, {assertive: true})
  }
}
