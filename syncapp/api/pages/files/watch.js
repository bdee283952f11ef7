// The page /watch: shows one session of any kind live, and lets people act whose token allows it.

import {open, timeText} from '/sdk/syncapp.js'
import {byId, describeError, everyFrame, make, refusalText, setText} from './page.js'
import {readAccess} from './page-access.js'
import {watch} from './texts.js'

const access = readAccess()
const {participant, mayAct, mayControl, until} = access
let game = null, clocks = [], problem = ''

if (access.sessionId) {
  game = open(location.origin, access.sessionId, {token: access.token, wait: true})
  game.on('change', () => {
    problem = ''
    build()
    show()
  })
  game.on('status', show)
  const stop = everyFrame(() => (game.status === 'closed' ? stop() : count()))   // then the last values stay
} else {
  problem = watch.noSession
}
show()

// What people see.

/** Makes the clocks of the state: one for each participant or group, or one that all share. */
function build() {
  const {clock, participants, groups, active_participant_id: mover, status} = game.state
  const group = participants.find((each) => each.participant_id === mover)?.group_id
  const rows = {
    participant: () => participants.map(({participant_id: id}) => ({id, name: id, isActive: id === mover})),
    group: () => groups.map(({group_id: id}) => ({id, name: id, isActive: id === group})),
  }[clock.scope]?.() ?? [{id: undefined, name: clock.direction === 'up' ? watch.time : watch.timeLeft, isActive: true}]
  clocks = rows.map(({id, name, isActive}) => {
    const time = make('span', {className: 'time', role: 'timer', 'aria-label': name})
    const item = make('li', {}, make('span', {className: 'name', textContent: name}))
    const turn = mover === name ? watch.toMove : watch.someoneToMove(mover)
    if (isActive && mover) item.append(make('span', {className: 'turn', textContent: turn}))
    item.append(time)
    item.classList.toggle('active', isActive && status === 'running')
    return {id, time}
  })
  byId('clocks').replaceChildren(...clocks.map(({time}) => time.parentElement))
  count()
}

function count() {
  if (!game.state) return
  const up = game.state.clock.direction === 'up'
  for (const {id, time} of clocks) {
    const ms = up ? game.elapsed() : game.remaining(id)
    setText(time, up || ms !== null || hasBudget(id) ? timeText(ms, {up}) : '')
  }
}

/** Whether an owner's clock runs down to something; one without a budget shows nothing. */
function hasBudget(id) {
  const {participants, groups, clock} = game.state
  const owner = [...participants, ...groups ?? []].find((each) => [each.participant_id, each.group_id].includes(id))
  return (owner ? owner.time_remaining_ms : clock.remaining_ms) !== null
}

function show() {
  const state = game?.state ?? null, reason = game?.reason ?? null
  const isOver = !game || game.status === 'closed', isLive = game?.status === 'live'
  const status = state?.status, mover = state?.active_participant_id
  setText(byId('connection'), connectionText(isOver, isLive, reason))
  setText(byId('problem'), problem || reasonText(isOver, reason))
  setText(byId('status'), state ? statusText(state, isOver) : '')
  byId('controls').hidden = !mayAct || !state || isOver
  byId('control').hidden = !mayControl
  byId('switch').disabled = !isLive || status !== 'running' || (participant !== null && mover !== participant)
  for (const [id, needed] of [['start', 'pending'], ['pause', 'running'], ['resume', 'paused']]) {
    byId(id).disabled = !isLive || status !== needed
  }
  setText(byId('until'), until && !isOver ? watch.until(dateText(until)) : '')
  if (!isOver) return
  for (const {time} of clocks) {
    time.parentElement.classList.remove('active')
    time.parentElement.querySelector('.turn')?.remove()
  }
}

function connectionText(isOver, isLive, reason) {
  if (isOver) return watch.notConnected
  if (isLive || reason?.code === 'SESSION_NOT_FOUND') return watch.connected
  if (reason?.code === 'STORE_UNAVAILABLE') return watch.storeAway
  return reason ? watch.lost : watch.connecting
}

/** Why there is nothing to see, or nothing new. */
function reasonText(isOver, reason) {
  if (!reason) return ''
  if (reason.code === 'SESSION_NOT_FOUND') return isOver ? watch.gone : game.state ? watch.away : watch.waiting
  if (!isOver) return ''
  switch (reason.code) {
    case 'DELETED': return watch.deleted
    case 'FORBIDDEN': return watch.notAllowed
    case 'UNAUTHORIZED': return refusalText(reason.message, access)
  }
  return watch.cannotTalk
}

function statusText({status, active_participant_id: mover}, isOver) {
  const whose = mover === participant ? watch.your : watch.theirs(mover)
  const turn = mover && status === 'running' ? ` ${isOver ? watch.wasTurn(whose) : watch.isTurn(whose)}` : ''
  return (isOver ? watch.lastKnown : '') + (watch[status] ?? status) + turn
}

function dateText(ms) {
  return new Date(ms).toLocaleString('en-GB', {dateStyle: 'long', timeStyle: 'long'})   // with the time zone
}

// What people do.

async function command(name) {
  const {epoch, version} = game.state
  // The expected version makes a second press harmless.
  const claim = {expectedEpoch: epoch, expectedVersion: version}
  problem = ''
  show()
  try {
    await game.command(name, name === 'switch' && participant !== null ? {...claim, participantId: participant} : claim)
  } catch (error) {
    const isLate = ['CONFLICT', 'NOT_ACTIVE_PARTICIPANT'].includes(error.code)
    problem = isLate ? watch.tooLate : describeError(error)
    show()
  }
}

for (const name of ['switch', 'start', 'pause', 'resume']) byId(name).addEventListener('click', () => command(name))
document.addEventListener('keydown', (event) => {
  if (event.code !== 'Space' || event.repeat || event.target.closest('button, a, input')) return
  event.preventDefault()                                       // no scrolling
  if (!byId('controls').hidden && !byId('switch').disabled) command('switch')
})
