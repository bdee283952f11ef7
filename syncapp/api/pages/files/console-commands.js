// Commands to a session: each asks first, and takes a reason where the API keeps one.

import {timeText} from '/sdk/syncapp.js'
import {changeText, lengthText, readLength} from './console-words.js'
import {confirmDialog, openDialog} from './page-dialogs.js'
import {act, byId, make, setText, toast} from './page.js'
import {consoleTexts as texts} from './texts.js'

const LIVE = ['pending', 'running', 'paused'], ENDED = ['completed', 'expired', 'cancelled']
/** When a command makes sense; `reason`: whether the API keeps one. */
const COMMANDS = {
  start: {in: ['pending']},
  pause: {in: ['running']},
  resume: {in: ['paused']},
  switch: {in: ['running'], if: (state) => state.active_participant_id !== null},
  takeback: {in: LIVE, if: (state) => state.takeback_cycles > 0 && state.cycle_count > 0, reason: true},
  reopen: {in: ENDED, reason: true},
  complete: {in: LIVE, reason: true},
  cancel: {in: LIVE, reason: true, danger: true},
}
const SHOWN_OF_ID = 8
const EVERYONE = '\n'                                         // no id has a line break

/** Shows the commands of a session. Returns {update(), close()}. */
export function setUpCommands(game) {
  const buttons = new Map()
  const next = make('select', {'aria-label': texts.switchTo})
  const turns = make('input', {type: 'number', min: 1, value: 1})
  const turnsField = make('label', {className: 'turns'}, texts.cycles, turns)
  let owners = ''
  const box = byId('commands')
  box.replaceChildren()
  for (const [name, {danger}] of Object.entries(COMMANDS)) add(name, danger, () => run(name))
  add('delete', true, askDelete)
  buttons.get('switch').after(next)
  buttons.get('takeback').after(turnsField)

  function add(name, danger, action) {
    const className = danger ? 'button danger-text' : 'button'
    const button = make('button', {type: 'button', className, textContent: texts[name]})
    button.addEventListener('click', action)
    buttons.set(name, button)
    box.append(button)
  }

  async function run(name) {
    const {state} = game
    const [title, text] = name === 'switch' ? askOfSwitch(state) : texts.asks[name]
    const {reason = false, danger = false} = COMMANDS[name]
    const answer = await confirmDialog({title, text, confirm: texts[name], danger, reason})
    if (answer) await done(name, game.command(name, fieldsOf(name, state, answer.reason)))
  }

  function askOfSwitch(state) {
    const [title, text] = texts.askSwitch(state.active_participant_id)
    return [title, next.value ? `${texts.nextIs(next.value)} ${text}` : text]
  }

  /** The fields of a command; `state` is what the operator saw, so that a switch ends no other turn. */
  function fieldsOf(name, state, reason) {
    const given = reason ? {reason} : {}
    if (name === 'takeback') return {...given, cycles: Math.max(1, Number(turns.value) || 1)}
    if (name !== 'switch') return given
    return {participantId: state.active_participant_id, ...(next.value ? {nextParticipantId: next.value} : {})}
  }

  async function done(name, promise) {
    if (await act(promise)) toast(texts.done[name])
  }

  async function askDelete() {
    if (await deleteDialog(game.id)) await done('delete', game.delete())
  }

  // Adjusting.

  const [whose, how, amount, preview] = ['whose', 'how', 'amount', 'preview'].map((name) => byId(`adjust-${name}`))
  how.replaceChildren(...['add', 'set'].map((value) => make('option', {value, textContent: texts[value]})))
  amount.value = ''
  setText(preview, '')

  /** What the form asks for: {fields, text}, or {problem}. */
  function asked() {
    const read = readLength(amount.value)
    if (!read) return {problem: texts.badAmount}
    const {ms} = read, op = read.isSigned ? 'add' : how.value
    if (op === 'set' && ms < 0) return {problem: texts.noNegative}
    const owner = whose.value
    if (owner === EVERYONE) {
      const text = op === 'add' ? texts.addsAll(changeText(ms)) : texts.setsAll(lengthText(ms))
      return {fields: {op, ms, targets: 'all'}, text}
    }
    const before = game.remaining(owner || undefined), after = op === 'add' ? (before ?? 0) + ms : ms
    const key = game.state.clock.scope === 'group' ? 'groupId' : 'participantId'
    const change = changeText(op === 'add' ? ms : ms - (before ?? 0))
    const text = texts.adds(owner || texts.theClock, change, timeText(before), timeText(after))
    return {fields: {op, ms, ...(owner ? {[key]: owner} : {})}, text}
  }

  function showPreview() {
    const {text, problem} = amount.value.trim() ? asked() : {text: ''}
    setText(preview, problem ?? text)
    preview.classList.toggle('wrong', Boolean(problem))
    amount.setAttribute('aria-invalid', String(Boolean(problem)))
  }

  async function adjust(event) {
    event.preventDefault()
    const {fields, text, problem} = asked()
    showPreview()
    if (problem) {
      setText(preview, problem)
      amount.focus()
      return
    }
    const title = texts.askAdjust(nameOf(whose.value))
    const answer = await confirmDialog({title, text, confirm: texts.adjust, reason: true})
    if (!answer) return
    const result = await act(game.command('adjust', {...fields, ...(answer.reason ? {reason: answer.reason} : {})}))
    if (!result) return
    toast(texts.done.adjust)
    amount.value = ''
    showPreview()
  }

  const nameOf = (owner) => (owner === EVERYONE ? texts.everyone : owner || texts.theClock)
  const form = byId('adjust')
  form.addEventListener('submit', adjust)
  form.addEventListener('input', showPreview)

  /** Fills the lists of owners, if they changed. */
  function fillOwners(state) {
    const {scope} = state.clock
    const people = state.participants.map(({participant_id: id}) => id)
    const budgets = scope === 'participant' ? people : scope === 'group' ? state.groups.map(({group_id: id}) => id) : []
    const known = JSON.stringify([scope, people, budgets])
    if (known === owners) return
    owners = known
    const options = budgets.map((id) => make('option', {value: id, textContent: id}))
    if (budgets.length > 1) options.push(make('option', {value: EVERYONE, textContent: texts.everyone}))
    if (!budgets.length) options.push(make('option', {value: '', textContent: texts.theClock}))
    whose.replaceChildren(...options)
    next.replaceChildren(make('option', {value: '', textContent: texts.nextInTurn}),
      ...people.map((id) => make('option', {value: id, textContent: id})))
  }

  function update() {
    const {state} = game, isHere = state !== null && game.status !== 'closed'
    byId('commands-card').hidden = !isHere
    if (!isHere) return
    for (const [name, {in: statuses, if: fits}] of Object.entries(COMMANDS)) {
      buttons.get(name).hidden = !statuses.includes(state.status) || !(fits?.(state) ?? true)
    }
    next.hidden = buttons.get('switch').hidden || state.participants.length < 3
    turnsField.hidden = buttons.get('takeback').hidden
    turns.max = Math.min(state.takeback_cycles ?? 1, state.cycle_count)
    form.hidden = !LIVE.includes(state.status) || state.clock.remaining_ms === null
    fillOwners(state)
    if (document.activeElement !== whose) showPreview()
  }

  update()
  return {
    update,
    close() {
      form.removeEventListener('submit', adjust)
      form.removeEventListener('input', showPreview)
      box.replaceChildren()
    },
  }
}

/** Asks for the beginning of the id, so that nobody deletes another session than they mean. */
async function deleteDialog(id) {
  const start = id.slice(0, SHOWN_OF_ID)
  const input = make('input', {autocomplete: 'off', spellcheck: false, id: 'delete-proof'})
  const cancel = make('button', {type: 'button', className: 'button', textContent: texts.keep})
  const go = make('button', {type: 'submit', className: 'button danger', textContent: texts.delete, disabled: true})
  const form = make('form', {}, make('h2', {textContent: texts.askDelete, id: 'delete-title'}),
    make('p', {textContent: texts.deleteText}),
    make('label', {className: 'field', htmlFor: 'delete-proof'}, texts.deleteProof(start), input),
    make('div', {className: 'actions'}, cancel, go))
  const dialog = make('dialog', {'aria-labelledby': 'delete-title'}, form)
  const fits = () => input.value.trim().toLowerCase().startsWith(start)
  input.addEventListener('input', () => { go.disabled = !fits() })
  cancel.addEventListener('click', () => dialog.close(''))
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    if (fits()) dialog.close('yes')
  })
  return await openDialog(dialog) === 'yes'
}
