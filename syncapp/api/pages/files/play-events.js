// What is said and heard: warnings, periods, the last seconds, the end.

import {announce} from './page.js'
import {duration, headlineOf, name, overtime} from './play-rules.js'
import {playBeep, playFlag, speak} from './play-sounds.js'
import {play} from './texts.js'

const LAST_S = 10

export class PlayEvents {
  #game
  #own
  #lastSecond = null

  constructor(game, access) {
    this.#game = game
    this.#own = access.participant
  }

  /** Says what an event means for the clocks; nothing for ordinary moves. */
  heard(event) {
    const {state} = this.#game, who = name(event.group_id ?? event.participant_id ?? '')
    switch (event.type) {
      case 'time_warning': return announce(play.warning(who, duration(event.threshold_ms)))
      case 'period_started': case 'period_lost': return this.#say(periodText(who, event.periods_left))
      case 'block_started': return this.#say(play.blockStarted(who, overtimeOf(event)))
      case 'stage_entered': return announce(play.stageEntered(who, event.stage))
      case 'session_paused': case 'session_resumed': case 'session_started': case 'cycles_taken_back':
        return announce(headlineOf(state, this.#own))
      case 'participant_expired': case 'group_expired': case 'session_expired':
        playFlag()
        return this.#end(state.status === 'expired' ? headlineOf(state, this.#own) : play.timeIsUpFor(who))
      case 'session_completed': case 'session_cancelled': return this.#end(headlineOf(state, this.#own))
    }
  }

  #end(text) {
    announce(text, {assertive: true})
  }

  #say(text) {
    announce(text)
    speak(text)
  }

  /** Beeps once in each of the last seconds of the clock that runs, and counts them aloud if speech is on. */
  counted(side, reading) {
    const isLast = reading?.running && reading.ms !== null && reading.ms > 0 && reading.ms <= LAST_S * 1000
      && this.#game.state.clock.direction === 'down' && !reading.delayMs
    const second = isLast ? `${side.owner?.id} ${Math.ceil(reading.ms / 1000)}` : null
    if (second === this.#lastSecond) return
    this.#lastSecond = second
    if (second === null) return
    playBeep()
    speak(String(Math.ceil(reading.ms / 1000)))
  }
}

const periodText = (who, left) => left === 1 ? play.saysLastPeriod(who) : play.saysPeriods(who, left)

const overtimeOf = (event) => overtime({period_moves: event.block_moves_left, period_ms: event.period_remaining_ms})
