// The operator's dialogs: another time, an item of the agenda, help.

import {act, make, toast} from './page.js'
import {openDialog} from './page-dialogs.js'
import {addTime, change, setTime} from './stage-commands.js'
import {durationText, moment, readDuration, readStage} from './stage-model.js'
import {common, stage as texts} from './texts.js'

const DAY_MS = 86_400_000

function button(text, kind = '', type = 'button') {
  return make('button', {type, className: `button ${kind}`.trim(), textContent: text})
}

function field(label, input, hint) {
  const parts = [make('span', {textContent: label}), input]
  if (hint) parts.push(make('small', {textContent: hint}))
  return make('label', {className: 'field'}, ...parts)
}

/** Says what is wrong with a duration, in the field itself. Returns ms, or null. */
export function durationOf(input, leastMs = 1000) {
  const ms = readDuration(input.value)
  const isGood = ms !== null && ms >= leastMs && ms <= DAY_MS
  input.setCustomValidity(isGood ? '' : texts.badDuration)
  if (!isGood) input.reportValidity()
  return isGood ? ms : null
}

export function changeTimeDialog(game) {
  const input = make('input', {autocomplete: 'off', required: true, className: 'digits'})
  input.addEventListener('input', () => input.setCustomValidity(''))
  const set = button(texts.setTime, 'primary', 'submit'), add = button(texts.addTime), off = button(texts.takeOff)
  const cancel = button(common.cancel)
  const form = make('form', {}, make('h2', {textContent: texts.changeTimeTitle, id: 'time-title'}),
    field(texts.amount, input, texts.durationHint), make('div', {className: 'actions'}, cancel, off, add, set))
  const dialog = make('dialog', {'aria-labelledby': 'time-title'}, form)
  const by = (send) => async (event) => {
    event.preventDefault()
    const ms = durationOf(input)
    if (ms === null) return
    dialog.close()
    await act(send(ms))
  }
  form.addEventListener('submit', by((ms) => setTime(game, ms)))
  add.addEventListener('click', by((ms) => addTime(game, ms)))
  off.addEventListener('click', by((ms) => addTime(game, -ms)))
  cancel.addEventListener('click', () => dialog.close())
  return openDialog(dialog)
}

/** Edits an item, or makes a new one (`item` null). Only the fields that were changed here are sent. */
export function itemDialog(game, item) {
  const title = make('input', {value: item?.title ?? '', maxLength: 120, autocomplete: 'off'})
  const speaker = make('input', {value: item?.speaker ?? '', maxLength: 80, autocomplete: 'off'})
  const duration = make('input', {
    value: item ? durationText(item.ms) : '5:00', autocomplete: 'off', className: 'digits', required: true,
  })
  duration.addEventListener('input', () => duration.setCustomValidity(''))
  const notes = make('textarea', {value: item?.notes ?? '', maxLength: 500, rows: 3})
  const save = button(texts.save, 'primary', 'submit'), cancel = button(common.cancel)
  const actions = make('div', {className: 'actions'}, cancel, save)
  const form = make('form', {}, make('h2', {textContent: item ? texts.editItem : texts.newItem, id: 'item-title'}),
    field(texts.title, title), field(texts.speaker, speaker), field(texts.duration, duration, texts.durationHint),
    field(texts.notes, notes, texts.notesHint))
  const dialog = make('dialog', {'aria-labelledby': 'item-title'}, form)
  if (item) form.append(itemTools(game, item, dialog))
  form.append(actions)
  cancel.addEventListener('click', () => dialog.close())
  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    const ms = durationOf(duration)
    if (ms === null) return
    const values = {title: title.value.trim(), speaker: speaker.value.trim(), notes: notes.value.trim(), ms}
    if (await saveItem(game, item, values)) dialog.close()
  })
  return openDialog(dialog)
}

/** Sends what differs from the item that the dialog showed. Returns whether the dialog is done. */
async function saveItem(game, item, values) {
  const id = item?.id ?? newId()
  const changed = Object.fromEntries(Object.entries(values).filter(([name, value]) => value !== item?.[name]))
  if (!Object.keys(changed).length) return true
  const before = readStage(game.state)
  const isUntouched = game.state.status !== 'running' && moment(game, before).elapsedMs === 0
  const done = await send(change(game, (stage) => {
    const found = stage.items.find((each) => each.id === id)
    if (item && !found) return null
    return {items: {[id]: found ? changed : {...changed, place: (stage.items.at(-1)?.place ?? 0) + 1}}}
  }))
  if (done === 'gone') toast(texts.itemIsGone)
  // An item that is on stage, but has not been started, gets its new time at once.
  const isOnStage = before.item ? before.item.id === id : before.items.length === 0
  if (done && done !== 'gone' && isOnStage && isUntouched && changed.ms) await act(setTime(game, changed.ms))
  return done !== null
}

/** Awaits a change: what was done, 'gone' if there was nothing to change any more, or null after an error. */
async function send(promise) {
  const isFull = ({code, details}) =>
    code === 'PAYLOAD_TOO_LARGE' || JSON.stringify(details ?? '').includes('too_large')
  return act(promise.then((done) => done ?? 'gone', (error) => {
    if (!isFull(error)) throw error
    toast(texts.agendaIsFull)
    return null
  }))
}

function itemTools(game, item, dialog) {
  const up = button(texts.moveUp), down = button(texts.moveDown), remove = button(texts.remove, 'danger')
  const move = (step) => async () => {
    if (await send(change(game, (stage) => movePatch(stage.items, item.id, step))) === 'gone') dialog.close()
  }
  up.addEventListener('click', move(-1))
  down.addEventListener('click', move(1))
  remove.addEventListener('click', async () => {
    if (readStage(game.state).item?.id === item.id) return toast(texts.isOnStage)
    const done = await send(change(game, (stage) => (stage.item?.id === item.id ? null : {items: {[item.id]: null}})))
    if (done) dialog.close()
  })
  return make('div', {className: 'row item-tools'}, up, down, remove)
}

/** The place half-way between the two items that the item moves between; null if it is at the end already, or gone. */
function movePatch(items, id, step) {
  const from = items.findIndex((each) => each.id === id), over = items[from + step]
  if (from < 0 || !over) return null
  const beyond = items[from + 2 * step]
  return {items: {[id]: {place: beyond ? (over.place + beyond.place) / 2 : over.place + step}}}
}

function newId() {
  return [...crypto.getRandomValues(new Uint8Array(5))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

export function helpDialog(keys) {
  const list = make('dl', {className: 'keys'})
  for (const [key, what] of texts.keys) {
    list.append(make('dt', {}, ...key.split(' ').map((each) => make('kbd', {textContent: each}))),
      make('dd', {textContent: what}))
  }
  const box = make('input', {type: 'checkbox', checked: keys.isOn})
  box.addEventListener('change', () => { keys.isOn = box.checked })
  const close = button(common.close, 'primary')
  const dialog = make('dialog', {'aria-labelledby': 'help-title'},
    make('h2', {textContent: texts.helpTitle, id: 'help-title'}), list,
    make('label', {className: 'check'}, box, make('span', {textContent: texts.useKeys})),
    make('p', {className: 'quiet small', textContent: texts.helpViewer}), make('div', {className: 'actions'}, close))
  close.addEventListener('click', () => dialog.close())
  return openDialog(dialog)
}
