// The sides of the page /play/<id>: a player, a group, or the clock that all share.

import {timeText} from '/sdk/syncapp.js'
import {make, setText} from './page.js'
import {documentOf, duration, levelOf, name, overtime, stageOf} from './play-rules.js'
import {play} from './texts.js'

const CLICK_MS = 1_000

/** One side. `owner`: {id, people}, or null for the clock that all share. */
export class Side {
  #parts = {}
  #game
  #pressedAt = -Infinity

  /** onTap(side, byKey): the side was tapped. */
  constructor(game, owner, onTap) {
    this.#game = game
    this.owner = owner
    this.title = owner ? name(owner.id) : play.shared
    const part = (kind, tag = 'div') => (this.#parts[kind] = make(tag, {className: kind}))
    this.element = make('section', {className: 'side', 'aria-label': this.title})
    this.element.append(part('name', 'h2'), part('time'), part('delay'), part('pips'), part('facts', 'p'))
    this.element.append(part('marks'), part('people', 'ul'))
    this.#parts.people.hidden = true
    const {time, delay, pips} = this.#parts
    time.classList.add('digits')
    time.setAttribute('role', 'timer')
    time.setAttribute('aria-live', 'off')
    time.setAttribute('aria-label', play.timeOf(this.title))
    delay.append(make('span'))
    delay.setAttribute('aria-hidden', 'true')
    pips.setAttribute('aria-hidden', 'true')                   // the facts say the same in words
    this.tap = this.element.appendChild(make('button', {className: 'tap', type: 'button'}))
    this.tap.setAttribute('aria-label', owner ? play.endMoveOf(this.title) : play.endMove)
    this.tap.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return
      event.preventDefault()                                   // no focus, so the space bar is not taken by this button
      this.#pressedAt = event.timeStamp
      onTap(this)
    })
    // Keys and screen readers click without a pointer.
    this.tap.addEventListener('click', (event) => {
      if (event.timeStamp - this.#pressedAt > CLICK_MS) onTap(this)
    })
  }

  /** Whether this side's clock is the one that runs, or would run. */
  isActive(state) {
    if (!this.owner) return true
    return this.owner.people.includes(state.active_participant_id)
  }

  /** Shows a state; mayTap: whether a tap ends the turn now. */
  update(state, mayTap) {
    const {element, tap, owner} = this
    const isOn = state.status === 'running' && this.isActive(state)
    element.classList.toggle('active', isOn)
    element.classList.toggle('shared', !owner)
    tap.disabled = !mayTap
    tap.hidden = !mayTap
    setText(this.#parts.name, this.#titleIn(state))
    if (!owner) this.#showPeople(state)
    this.tick(state)
  }

  #titleIn(state) {
    const {owner, title} = this
    if (owner && owner.people.length > 1) return `${title} · ${owner.people.map(name).join(', ')}`
    return title
  }

  /** Lists those who share the clock, in the order of their turns. */
  #showPeople({participants, active_participant_id: mover}) {
    const {people} = this.#parts
    people.hidden = participants.length === 0
    people.replaceChildren(...participants.map(({participant_id: id}) => make('li', {
      className: id === mover ? 'mover' : '', textContent: id === mover ? play.toMove(name(id)) : name(id),
    })))
  }

  /** Shows the time now; returns the reading. */
  tick(state) {
    const {owner} = this, id = owner?.id
    const up = state.clock.direction === 'up'
    const found = this.#game.reading(id)
    const document = owner ? documentOf(state, id) : undefined
    const text = up ? timeText(this.#game.elapsed(), {up}) : timeText(found?.ms ?? null)
    setText(this.#parts.time, text)
    this.#parts.time.classList.toggle('long', text.length > 5)
    this.level = levelOf(state, document, found)
    if (this.element.dataset.level !== this.level) this.element.dataset.level = this.level
    const stage = stageOf(state, document)
    this.#showDelay(stage, found)
    this.#showPips(stage, found)
    setText(this.#parts.facts, factsOf(state, document, stage, found).join(' · '))
    this.#showMarks(state)
    return found
  }

  #showDelay(stage, found) {
    const {delay} = this.#parts, isSimple = stage?.delay === 'simple'
    delay.hidden = !isSimple
    if (!isSimple) return
    const share = found ? found.delayMs / stage.delay_ms : 1
    delay.firstChild.style.transform = `scaleX(${share.toFixed(3)})`
  }

  #showPips(stage, found) {
    const {pips} = this.#parts, count = stage?.periods ?? 0, isShown = count > 0 && count <= 10
    pips.hidden = !isShown
    if (!isShown) return
    while (pips.childElementCount > count) pips.lastChild.remove()
    while (pips.childElementCount < count) pips.append(make('span', {className: 'pip'}))
    const left = found?.periodsLeft ?? count
    for (const [index, pip] of [...pips.children].entries()) pip.classList.toggle('full', index < left)
  }

  #showMarks(state) {
    const marks = []
    if (this.level === 'flag') marks.push(play.flag)
    else if (state.status === 'running' && this.isActive(state)) {
      if (this.owner) marks.push(play.toMoveMark)
      if (this.level !== 'ok') marks.push(this.level === 'low' ? play.low : play.critical)
    }
    const {marks: box} = this.#parts
    const shown = [...box.children].map((each) => each.textContent).join()
    if (shown === marks.join()) return
    box.replaceChildren(...marks.map((textContent) => make('span', {className: 'mark', textContent})))
  }
}

/** What is worth knowing besides the time: moves, stage, periods, block, delay. */
function factsOf(state, document, stage, found) {
  const {max_cycles: most, cycle_count: count} = state
  if (!document) return most ? [play.cycle(Math.min(count + 1, most), most)] : []
  const facts = []
  if (stage?.period_ms && found) facts.push(overtimeFact(stage, found))
  if (found?.delayMs > 0 && found.running) facts.push(play.delayLeft(Math.ceil(found.delayMs / 1000)))
  if (document.moves_to_next_stage) facts.push(play.toNextStage(document.moves_to_next_stage))
  if (document.stage > 1) facts.push(play.stageNumber(document.stage))
  const moves = document.cycle_count
  if (moves !== undefined) facts.push(play.moves(moves))
  return facts
}

function overtimeFact(stage, found) {
  if (found.phase === 'period') {
    const ms = duration(stage.period_ms)
    return found.periodsLeft === 1 ? play.lastPeriod(ms) : play.periodsLeft(found.periodsLeft, ms)
  }
  if (found.phase === 'block') return play.blockMoves(found.blockMovesLeft)
  return play.overtime(overtime(stage))
}
