// What an invigilator can do: with all clocks at once, and with one candidate's.

import {timeText} from '/sdk/syncapp.js'
import {onKeys} from './display.js'
import {candidatesOf, groupsOf, isOver, timeOfDay} from './exam-model.js'
import {Seats} from './exam-seats.js'
import {claimsOf} from './page-access.js'
import {openDialog} from './page-dialogs.js'
import {act, announce, byId, confirmDialog, make, setText, shareDialog, toast} from './page.js'
import {common, exam as texts} from './texts.js'

const LIVE = ['pending', 'running', 'paused']

/** Prepares the controls. Returns {render, frame}, to call after each change and in each frame. */
export function invigilatorControls(game, access) {
  // A token for one session cannot reach the candidates' sessions; it commands the hall's clock alone.
  const mayReachSeats = access.isOpen || !claimsOf(access.token).session_id
  const seats = mayReachSeats ? new Seats(game, access, () => render()) : null
  const rows = new Map()
  let isBusy = false, isFaulty = false

  byId('controls').hidden = byId('keys').hidden = false
  byId('share').hidden = !access.mayShare
  byId('share').addEventListener('click', share)
  byId('start').addEventListener('click', () => everyone('start', ['pending']))
  byId('pause').addEventListener('click', pauseOrResume)
  byId('add').addEventListener('click', addToAll)
  byId('end').addEventListener('click', endAll)
  byId('new').addEventListener('submit', addCandidate)
  onKeys({
    ' ': () => (game.state?.status === 'pending' ? byId('start') : byId('pause')).click(),
    '+': () => byId('add').click(),
  })

  async function everyone(command, statuses, args) {
    if (isBusy) return
    isBusy = true
    render()
    if (seats) {
      const sum = await act(seats.all(command, statuses, args))
      if (sum?.failed) toast(texts.someFailed(sum.failed))
    } else if (statuses.includes(game.state.status)) {
      await act(game.command(command, args))
    }
    isBusy = false
    render()
  }

  function pauseOrResume() {
    const {status} = game.state
    if (status === 'running') everyone('pause', ['running'])
    else if (status === 'paused') everyone('resume', ['paused'])
  }

  async function addToAll() {
    const added = await timeDialog(texts.addTitleAll, texts.addTextAll)
    if (added) everyone('adjust', LIVE, {op: 'add', ...added})
  }

  async function endAll() {
    const {endTitle: title, endText: text, endGo: confirm} = texts
    const answer = await confirmDialog({title, text, confirm, danger: true, reason: true})
    if (answer) everyone('complete', LIVE, {reason: answer.reason ?? texts.ended})
  }

  /** Asks for minutes and a reason. Resolves with {ms, reason?}, or null. */
  async function timeDialog(title, text) {
    const limits = {min: '1', max: '600', step: '1', required: true}
    const minutes = make('input', {type: 'number', inputMode: 'numeric', value: '5', ...limits})
    const reason = make('input', {maxLength: 200, autocomplete: 'off'})
    const cancel = make('button', {type: 'button', className: 'button', textContent: common.cancel})
    const go = make('button', {type: 'submit', className: 'button primary', textContent: texts.addGo})
    const form = make('form', {},
      make('h2', {id: 'time-title', textContent: title}), make('p', {textContent: text}),
      make('label', {className: 'field'}, texts.minutes, minutes),
      make('label', {className: 'field'}, common.reason, reason), make('div', {className: 'actions'}, cancel, go))
    const dialog = make('dialog', {'aria-labelledby': 'time-title'}, form)
    cancel.addEventListener('click', () => dialog.close(''))
    form.addEventListener('submit', (event) => {
      event.preventDefault()
      dialog.close('yes')
    })
    const closed = openDialog(dialog)
    minutes.select()
    if (await closed !== 'yes') return null
    const why = reason.value.trim()
    return {ms: Math.round(Number(minutes.value) * 60_000), ...(why && {reason: why})}
  }

  async function addCandidate(event) {
    event.preventDefault()
    const name = byId('new-name').value.trim()
    if (!name) return byId('new-name').focus()
    if (candidatesOf(game.state).some((each) => each.name === name)) return toast(texts.nameTaken)
    if (await act(seats.add(name, byId('new-group').value))) {
      byId('new-name').value = ''
      announce(texts.added(name))
    }
    byId('new-name').focus()
  }

  function share() {
    const hall = {label: texts.forHall, page: 'exam', scope: 'session:watch', view: true}
    return shareDialog(game, access, [hall, {label: texts.forInvigilator, page: 'exam', scope: 'session:control'}])
  }

  // One candidate.

  async function addToOne(seat, name) {
    // Of two invigilators who react to the same incident, the second one is refused.
    const {version: expectedVersion, epoch: expectedEpoch, status} = seat.state, wasExpired = status === 'expired'
    const claim = {expectedVersion, expectedEpoch}
    const added = await timeDialog(texts.addTitleOne(name), texts.addTextOne)
    if (!added) return
    await act((async () => {
      // A candidate whose time is up has the clock back, stopped, before time is added.
      if (wasExpired) await seat.reopen({...claim, reason: added.reason})
      await seat.adjust({op: 'add', ...added, ...(wasExpired ? {} : claim)})
      if (wasExpired && game.state.status !== 'paused') await seat.resume()
    })())
  }

  async function endOne(seat, name) {
    const title = texts.endOneTitle(name), {endOneText: text, endOneGo: confirm} = texts
    const answer = await confirmDialog({title, text, confirm, reason: true})
    if (answer) await act(seat.complete({reason: answer.reason ?? texts.handedIn}))
  }

  function goOne(seat) {
    const command = {pending: 'start', running: 'pause', paused: 'resume'}[seat.state?.status]
    if (command) act(seat.command(command))
  }

  function shareOne(seat, name) {
    const candidate = {label: texts.forCandidate(name), page: 'exam', scope: 'session:watch', view: true}
    return shareDialog(seat, access, [candidate])
  }

  function newRow({name, seat: id}) {
    const button = (text, action) => {
      const element = make('button', {type: 'button', className: 'button', textContent: text})
      element.setAttribute('aria-label', `${text}: ${name}`)
      element.addEventListener('click', () => action(seats.game(id), name))
      return element
    }
    const row = {
      group: make('td', {className: 'group'}), left: make('td', {className: 'digits left'}),
      ends: make('td', {className: 'digits ends'}), status: make('span', {className: 'badge'}),
      add: button(texts.add, addToOne), go: button(texts.pause, goOne), end: button(texts.end, endOne),
      link: button(texts.link, shareOne),
    }
    row.element = make('tr', {},
      make('th', {scope: 'row', textContent: name}), row.group, row.left, row.ends, make('td', {}, row.status),
      make('td', {}, make('div', {className: 'row actions'}, row.add, row.go, row.end, row.link)))
    return row
  }

  function renderSeat(row, {name, group}, seat, hallIsLive) {
    const state = seat?.state, status = state?.status
    setText(row.group, group)
    setText(row.status, state ? texts.seatStatus[status] : texts.seatMaking)
    row.status.className = `badge ${{running: 'good', paused: 'warn'}[status] ?? ''}`
    const command = {pending: texts.startOne, paused: texts.resume}[status] ?? texts.pause
    setText(row.go, command)
    row.go.setAttribute('aria-label', `${command}: ${name}`)
    const isLive = Boolean(state) && !isOver(state), isOff = seat?.status !== 'live'
    row.add.disabled = isOff || (!isLive && status !== 'expired')
    row.go.disabled = isOff || !isLive || (status === 'pending' && !hallIsLive)
    row.end.disabled = isOff || !isLive || status === 'pending'
    row.link.hidden = !access.mayShare
    row.link.disabled = !state
  }

  // Everything.

  function render() {
    const {state} = game
    if (!state) return
    const isOff = isBusy || game.status !== 'live', isLive = ['running', 'paused'].includes(state.status)
    const shown = {start: state.status === 'pending', pause: isLive, add: !isOver(state), end: isLive}
    for (const [id, isShown] of Object.entries(shown)) {
      byId(id).hidden = !isShown
      byId(id).disabled = isOff
    }
    setText(byId('pause'), state.status === 'paused' ? texts.resumeAll : texts.pauseAll)
    byId('pause').classList.toggle('primary', state.status === 'paused')
    byId('controls').hidden = byId('keys').hidden = isOver(state)
    const candidates = candidatesOf(state)
    byId('hall-only').hidden = mayReachSeats || !candidates.length
    byId('candidates').hidden = !seats
    if (!seats) return
    for (const candidate of candidates) {
      if (!candidate.seat) continue
      if (!rows.has(candidate.seat)) {
        rows.set(candidate.seat, newRow(candidate))
        byId('seats').append(rows.get(candidate.seat).element)
      }
      renderSeat(rows.get(candidate.seat), candidate, seats.game(candidate.seat), isLive)
    }
    byId('no-candidates').hidden = candidates.length > 0
    byId('seat-table').hidden = rows.size === 0
    byId('new').hidden = isOver(state)
    const names = groupsOf(state).map(({name}) => name)
    if (byId('new-group').dataset.names !== names.join('\n')) {
      byId('new-group').dataset.names = names.join('\n')
      const option = (name) => make('option', {value: name, textContent: name || texts.everyone})
      byId('new-group').replaceChildren(...names.map(option))
    }
    if (!isFaulty) seats.follow().catch((error) => {
      isFaulty = true                                          // another change must not ask again and again
      act(Promise.reject(error))
    })
  }

  function frame() {
    for (const [id, row] of rows) {
      const seat = seats.game(id)
      if (!seat?.state) continue
      const left = isOver(seat.state) ? null : seat.remaining(), now = seat.clock.now()
      setText(row.left, left === null ? '' : timeText(Math.max(0, left), {tenths: false}))
      setText(row.ends, seat.state.status === 'running' && now !== null && left !== null ? timeOfDay(now + left) : '')
    }
  }

  return {render, frame}
}
