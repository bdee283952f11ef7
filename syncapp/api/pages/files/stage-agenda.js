// The agenda on the operator's page.

import {byId, make} from './page.js'
import {itemDialog} from './stage-dialogs.js'
import {durationText} from './stage-model.js'
import {stage as texts} from './texts.js'

let shown = ''

/** Shows the items. `loadItem(item)` puts one on stage. */
export function showAgenda(game, stage, loadItem) {
  byId('add').onclick = () => itemDialog(game, null)
  const key = JSON.stringify([stage.items, stage.index])
  if (key === shown) return                                    // a button keeps the focus
  shown = key
  const focused = document.activeElement?.dataset?.key
  byId('agenda-empty').hidden = stage.items.length > 0
  byId('items').replaceChildren(...stage.items.map((item, index) => row(game, item, index === stage.index, loadItem)))
  if (focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus()
}

function row(game, item, isCurrent, loadItem) {
  const about = make('span', {className: 'item-about'},
    make('span', {className: 'item-title', textContent: item.title || texts.untitled}))
  if (item.speaker) about.append(make('span', {className: 'item-speaker', textContent: item.speaker}))
  if (item.notes) about.append(make('span', {className: 'item-notes', textContent: texts.notesOf(item.notes)}))
  const edit = make('button', {type: 'button', className: 'item-edit'},
    make('span', {className: 'visually-hidden', textContent: texts.edit}), about,
    make('span', {className: 'item-ms digits', textContent: durationText(item.ms)}))
  edit.dataset.key = `edit-${item.id}`
  edit.addEventListener('click', () => itemDialog(game, item))
  if (isCurrent) {
    return make('li', {className: 'item current', 'aria-current': 'true'}, edit,
      make('span', {className: 'badge good', textContent: texts.onStage}))
  }
  const load = make('button', {
    type: 'button', className: 'button', textContent: texts.load, ariaLabel: texts.loadLabel(item.title),
  })
  load.dataset.key = `load-${item.id}`
  load.addEventListener('click', () => loadItem(item))
  return make('li', {className: 'item'}, edit, load)
}
