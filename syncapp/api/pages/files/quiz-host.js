// The host's side of a quiz: the questions with their solutions, which only this tab has, and the buttons.

import {isHosted, letterOf, parseQuestions, phaseOf, DEMO_QUESTIONS} from './quiz-model.js'
import {onKeys} from './display.js'
import {act, byId, confirmDialog, make, setText, shareDialog, toast} from './page.js'
import {quiz as texts} from './texts.js'

const MORE_MS = 10_000

/**
 * Lets the host lead the quiz. Returns {render, leadText}.
 *
 * Call `render` after each change of the session. `changed` is called when the questions have changed.
 */
export function hostControls(game, access, changed) {
  const KEY = `syncapp.quiz.${game.id}`
  let source = storedSource(), questions = null, isBusy = false, step = null, isDemoTaken = false

  byId('controls').hidden = byId('keys').hidden = false
  byId('share').hidden = !access.mayShare
  byId('share').addEventListener('click', share)
  byId('next').addEventListener('click', () => step && once(STEPS[step]))
  byId('pause').addEventListener('click', pauseOrResume)
  byId('more').addEventListener('click', () => once(() => game.adjust({op: 'add', ms: MORE_MS, reason: texts.byHost})))
  byId('finish').addEventListener('click', finish)
  byId('setup').addEventListener('submit', takeQuestions)
  byId('edit').addEventListener('click', () => { questions = null; changed() })
  byId('use-demo').addEventListener('click', () => { byId('source').value = DEMO_QUESTIONS })
  const press = (id) => byId(id).click()
  onKeys({
    ' ': () => press(game.state?.status === 'paused' ? 'pause' : 'next'),
    p: () => press('pause'),
    '+': () => press('more'),
  })
  if (source) ({questions} = parseQuestions(source))

  // Each step is one click. A step that was made half, because the connection was lost, is made again whole.
  const STEPS = {
    start: async () => { await publish(0); await game.start() },
    close: () => game.adjust({op: 'set', ms: 0, reason: texts.closedByHost, ...expected()}),
    reveal: () => {
      const {metadata, cycle_count: index} = game.state
      const solutions = Array.from({length: index + 1}, (_, each) => metadata.solutions?.[each] ?? null)
      solutions[index] = questions[index].solution
      return game.update({metadata: {...metadata, solutions}, ...expected()})
    },
    next: async () => {
      const {version, epoch} = await publish(game.state.cycle_count + 1)
      await game.switch({expectedVersion: version, expectedEpoch: epoch})
    },
    ask: () => publish(game.state.cycle_count),
    skip: () => game.switch(expected()),
    plainStart: () => game.start(),
    finish: () => game.complete({reason: texts.finished}),
  }

  function storedSource() {
    try {
      return sessionStorage.getItem(KEY)
    } catch {
      return null                                              // the browser allows no storage
    }
  }

  /** The questions of a demo, unless the host has changed them. */
  function takeDemo({metadata}) {
    if (isDemoTaken || questions || metadata.demo !== true) return
    isDemoTaken = true;
    ({questions} = parseQuestions(source = DEMO_QUESTIONS))
  }

  function expected() {
    return {expectedVersion: game.state.version, expectedEpoch: game.state.epoch}
  }

  /** Publishes a question without its solution. */
  function publish(index) {
    const {text, options} = questions[index]
    const metadata = {...game.state.metadata, total: total(), current: {index, text, options}}
    return game.update({metadata, ...expected()})
  }

  function total() {
    return Math.min(questions?.length ?? Infinity, game.state.max_cycles ?? Infinity)
  }

  async function once(command) {
    if (isBusy) return
    isBusy = true
    render()
    await act(command())
    isBusy = false
    render()
  }

  function pauseOrResume() {
    const {status} = game.state
    if (status === 'running') once(() => game.pause())
    else if (status === 'paused') once(() => game.resume())
  }

  async function finish() {
    const {finishTitle: title, finishText: text, finish: confirm} = texts
    const answer = await confirmDialog({title, text, confirm, danger: true})
    if (answer) once(STEPS.finish)
  }

  function takeQuestions(event) {
    event.preventDefault()
    const {questions: found, fault} = parseQuestions(byId('source').value)
    if (fault !== null || !found.length) {
      setText(byId('setup-fault'), fault === null ? texts.noQuestions : texts.badQuestion(fault))
      byId('source').focus()
      return
    }
    setText(byId('setup-fault'), '')
    questions = found
    source = byId('source').value
    try {
      sessionStorage.setItem(KEY, source)
    } catch {
      // The browser allows no storage: the questions last until the page is reloaded.
    }
    toast(texts.questionsTaken(found.length))
    changed()
  }

  function share() {
    const players = {label: texts.forPlayers, page: 'quiz', scope: 'session:watch', view: true}
    const screen = {label: texts.forScreen, page: 'quiz', scope: 'session:watch', view: true, query: {screen: '1'}}
    return shareDialog(game, access, [players, screen, {label: texts.forHost, page: 'quiz', scope: 'session:control'}])
  }

  /** The one step that comes next, or null. */
  function nextStep(state, phase) {
    if (phase === 'over') return null
    if (!isHosted(state)) return state.status === 'pending' ? 'plainStart' : state.status === 'running' ? 'skip' : null
    if (phase === 'open') return 'close'
    if (!questions) return null
    switch (phase) {
      case 'locked': return questions[state.cycle_count] ? 'reveal' : null
      case 'revealed': return state.status !== 'running' ? null : state.cycle_count + 1 < total() ? 'next' : 'finish'
      case 'waiting': return waitingStep(state)
      default: return null
    }
  }

  /** After the start, a host is asked for a question only if the connection was lost in the middle of a step. */
  function waitingStep({status, metadata, cycle_count: index}) {
    if (status !== 'running') return status === 'pending' ? 'start' : null
    if (metadata.current?.index === index + 1) return 'next'
    return questions[index] ? 'ask' : null
  }

  function render() {
    const {state} = game
    if (!state) return
    takeDemo(state)
    const left = game.remaining(), phase = phaseOf(state, left), isOff = game.status !== 'live' || isBusy
    const needsQuestions = isHosted(state) && !questions && phase !== 'over', isPending = state.status === 'pending'
    step = nextStep(state, phase)
    byId('setup').hidden = !needsQuestions
    if (needsQuestions && source && !byId('source').value) byId('source').value = source
    setText(byId('setup-text'), isPending ? texts.setupText : texts.setupLate)
    byId('example').hidden = byId('use-demo').hidden = !isPending
    byId('controls').hidden = byId('keys').hidden = phase === 'over' || (needsQuestions && isPending)
    setButton('next', step, step && texts.steps[step], isOff)
    const isPaused = state.status === 'paused', isLive = isPaused || state.status === 'running'
    setButton('pause', isPaused || phase === 'open', isPaused ? texts.resume : texts.pause, isOff)
    setButton('more', isLive && ['open', 'paused', 'locked'].includes(phase), texts.more, isOff)
    setButton('finish', isLive && step !== 'finish', texts.finish, isOff)
    byId('edit').hidden = !isHosted(state) || !isPending
    notes(state, phase)
  }

  function setButton(id, isShown, text, isOff) {
    byId(id).hidden = !isShown
    byId(id).disabled = isOff
    if (text) setText(byId(id), text)
  }

  /** What only the host sees: the solution of this question, and the next one. */
  function notes(state, phase) {
    const index = state.status === 'pending' ? -1 : state.cycle_count
    const now = questions?.[index], next = index + 1 < total() ? questions?.[index + 1] : null
    byId('notes').hidden = phase === 'over' || !isHosted(state) || (!now && !next)
    const parts = []
    if (now) parts.push(texts.noteSolution(letterOf(now.solution), now.options[now.solution]))
    if (next) parts.push(texts.noteNext(next.text))
    const text = parts.join('\n')
    if (byId('note-lines').dataset.text === text) return
    byId('note-lines').dataset.text = text
    byId('note-lines').replaceChildren(...parts.map((line) => make('p', {textContent: line})))
  }

  /** What stands in place of a question before the start. */
  function leadText() {
    takeDemo(game.state)
    return isHosted(game.state) && !questions ? texts.hostFirst : texts.hostReady
  }

  return {render, leadText}
}
