// What a session is: its facts and its metadata, as lists of terms.

import {fullInstantText, instantText, lengthText} from './console-words.js'
import {make, setText} from './page.js'
import {consoleTexts as texts} from './texts.js'

/** Fills a list with pairs of a term and a text; a pair that stays is changed in place. */
export function fillPairs(list, pairs) {
  const shown = new Map([...list.children].map((each) => [each.dataset.term, each]))
  for (const [term, text] of pairs) {
    let entry = shown.get(term)
    if (!entry) {
      entry = make('div', {}, make('dt', {textContent: term}), make('dd'))
      entry.dataset.term = term
      list.append(entry)
    }
    shown.delete(term)
    setText(entry.lastElementChild, text)
  }
  for (const entry of shown.values()) entry.remove()
}

/** Shows what a state says besides the clocks; instants are in local time. */
export function showFacts(list, state) {
  const names = texts.facts, {clock} = state
  const pairs = [
    [names.mode, texts.modes[state.sync_mode]],
    [names.version, texts.versionOf(state.version, state.epoch)],
    [names.cycles, state.max_cycles ? `${state.cycle_count} / ${state.max_cycles}` : String(state.cycle_count)],
    [names.created, instantText(state.created_at)],
  ]
  const add = (name, text) => { if (text) pairs.push([name, text]) }
  add(names.started, state.session_started_at && instantText(state.session_started_at))
  add(names.ended, state.session_completed_at && instantText(state.session_completed_at))
  add(names.deadline, clock.running && clock.deadline_ms && instantText(clock.deadline_ms))
  const changesBefore = clock.running && clock.next_at_ms && clock.next_at_ms !== clock.deadline_ms
  add(names.next, changesBefore && instantText(clock.next_at_ms))
  add(names.idle, state.idle_at && fullInstantText(state.idle_at))
  add(names.control, controlText(state))
  add(names.increment, state.increment_ms && lengthText(state.increment_ms))
  const {type} = state.action_on_timeout
  add(names.timeout, clock.remaining_ms !== null && (texts.timeouts[type] ?? type))
  add(names.warnings, state.warn_at_ms?.map((ms) => lengthText(ms).replace(/\.0$/, '')).join(', '))
  add(names.completion, state.completion && [state.completion.reason,
    state.completion.result === undefined ? '' : JSON.stringify(state.completion.result)].filter(Boolean).join(' · '))
  fillPairs(list, pairs)
}

function controlText({time_control_notation: notation, time_control: control}) {
  if (!control) return ''
  return notation ?? JSON.stringify(control)
}

/** Shows the metadata, a member in each line. */
export function showMetadata(list, metadata) {
  const pairs = Object.entries(metadata).map(([key, value]) =>
    [key, typeof value === 'string' ? value : JSON.stringify(value)])
  fillPairs(list, pairs.length ? pairs : [[texts.noMetadata, '']])
}
