// The dialogs of the page /play/<id>: the menu with what is seldom needed, and the keys.

import {act, announce, confirmDialog, make, shareDialog} from './page.js'
import {openDialog} from './page-dialogs.js'
import {name, ownersOf} from './play-rules.js'
import {canSpeak, setSpeech, speak, speechIsOn} from './play-sounds.js'
import {play} from './texts.js'

const STEPS = [['−1 min', -60_000], ['−10 s', -10_000], ['+10 s', 10_000], ['+1 min', 60_000]]
const OVER = new Set(['completed', 'expired', 'cancelled'])

const button = (textContent, onClick, more = {}) => {
  const made = make('button', {type: 'button', className: 'button', textContent, ...more})
  made.addEventListener('click', onClick)
  return made
}

/** Shows the menu. actions: {swap, newGame} of the page. */
export async function showMenu(game, access, actions) {
  const {state} = game, parts = []
  const dialog = make('dialog', {'aria-labelledby': 'menu-title'})
  const close = () => dialog.close('')
  const view = [button(play.swap, () => { actions.swap(); close() }), button(play.keys, () => { close(); showKeys() })]
  if (canSpeak()) view.push(speechButton())
  parts.push(make('div', {className: 'row'}, ...view))
  if (state && access.mayControl) parts.push(...controls(game, actions, close))
  dialog.append(make('h2', {textContent: play.menu, id: 'menu-title'}), make('div', {className: 'menu'}, ...parts),
    make('div', {className: 'actions'}, button(play.closeMenu, close, {className: 'button primary'})))
  await openDialog(dialog)
}

function speechButton() {
  const toggle = button(play.speak, () => {
    setSpeech(!speechIsOn())
    toggle.setAttribute('aria-pressed', speechIsOn())
    speak(play.speechTest)
  })
  toggle.setAttribute('aria-pressed', speechIsOn())
  return toggle
}

function controls(game, actions, close) {
  const {state} = game, isOver = OVER.has(state.status), parts = []
  const corrections = []
  if (state.takeback_cycles && state.cycle_count && !isOver) {
    corrections.push(button(play.takeback, async () => {
      close()
      if (await act(game.takeback({cycles: 1}))) announce(play.takenBack)
    }))
  }
  if (isOver) corrections.push(button(play.reopen, async () => { close(); await act(game.reopen()) }))
  corrections.push(button(play.newGame, () => { close(); actions.newGame() }))
  parts.push(make('div', {className: 'row'}, ...corrections))
  if (!isOver && state.clock.direction === 'down') parts.push(...adjustments(game))
  if (!isOver) parts.push(make('div', {className: 'row'}, button(play.finish, () => { close(); finish(game) })))
  return parts
}

/** Buttons that change each clock. The dialog stays open: several presses in a row are usual. */
function adjustments(game) {
  const owners = ownersOf(game.state), isGroup = game.state.clock.scope === 'group'
  const field = isGroup ? 'groupId' : 'participantId'
  const targets = owners.length ? owners.slice(0, 20).map(({id}) => [name(id), {[field]: id}]) : [[play.shared, {}]]
  return targets.map(([title, target]) => make('section', {}, make('h3', {textContent: play.timeOf(title)}),
    make('div', {className: 'row'}, ...STEPS.map(([label, ms]) => button(label, async () => {
      if (await act(game.adjust({op: 'add', ms, ...target}))) announce(play.adjusted(title, label))
    }, {'aria-label': `${title}: ${label}`})))))
}

async function finish(game) {
  const asked = await confirmDialog({
    title: play.finishTitle, text: play.finishText, confirm: play.finish, danger: true, reason: true,
  })
  if (asked) await act(game.complete(asked.reason ? {reason: asked.reason} : {}))
}

/** Shows the keys. */
export async function showKeys() {
  const list = make('dl', {className: 'keys'})
  for (const [keys, meaning] of play.keyList) {
    const caps = keys.flatMap((key, index) => [...(index ? [' '] : []), make('kbd', {textContent: key})])
    list.append(make('dt', {}, ...caps), make('dd', {textContent: meaning}))
  }
  const close = button(play.closeMenu, () => dialog.close(''), {className: 'button primary'})
  const dialog = make('dialog', {'aria-labelledby': 'keys-title'},
    make('h2', {textContent: play.keys, id: 'keys-title'}), list, make('div', {className: 'actions'}, close))
  await openDialog(dialog)
}

/** Shows links for each player, for both on one device, and for spectators. */
export function share(game, access) {
  const {state} = game
  const people = state.participants.slice(0, 20).map(({participant_id: participantId}) => ({
    label: play.phoneOf(name(participantId)), page: 'play', participantId, scope: 'session:act',
  }))
  people.push({label: play.spectators, page: 'play', scope: 'session:watch', view: true})
  if (state.participants.length > 1) people.push({label: play.oneDevice, page: 'play', scope: 'session:act'})
  return shareDialog(game, access, people)
}
