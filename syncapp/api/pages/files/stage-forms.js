// The operator's forms that change the metadata alone: the message, and what screens show.

import {act, byId, make, setText, toast} from './page.js'
import {change} from './stage-commands.js'
import {durationOf} from './stage-dialogs.js'
import {durationText, MESSAGE_COLOURS, PARTS, readStage, TIMES} from './stage-model.js'
import {stage as texts} from './texts.js'

/** The message to the speaker. Nothing is sent before it is shown. */
export function runMessages(game) {
  const input = byId('message')
  let colour = null, wasText = null
  const radios = MESSAGE_COLOURS.map((name) => {
    const radio = make('input', {type: 'radio', name: 'colour', value: name})
    radio.addEventListener('change', () => choose(name))
    const text = make('span', {textContent: texts.colours[name]})
    byId('colours').append(make('label', {className: `swatch ${name}`}, radio, text))
    return radio
  })
  for (const [text, preset] of texts.presetTexts) {
    const button = make('button', {type: 'button', className: `button preset ${preset}`, textContent: text})
    button.addEventListener('click', () => {
      input.value = text
      mark(preset)
      send({text, colour: preset, shown: true})
    })
    byId('presets').append(button)
  }

  const send = (message) => act(change(game, () => ({message})))
  const mark = (name) => {
    colour = name
    for (const radio of radios) radio.checked = radio.value === name
  }

  /** A message that is on screen changes its colour at once. */
  function choose(name) {
    colour = name
    if (readStage(game.state).message.shown) send({colour: name})
  }

  function show() {
    const text = input.value.trim()
    if (text) send({text, colour, shown: true})
    else input.focus()
  }

  byId('message-form').addEventListener('submit', (event) => {
    event.preventDefault()
    show()
  })
  byId('message-hide').addEventListener('click', () => send({shown: false}))
  const label = () => {
    const {message} = readStage(game.state)
    const isOther = message.shown && input.value.trim() !== message.text
    setText(byId('message-show'), isOther ? texts.updateMessage : texts.showMessage)
  }
  input.addEventListener('input', label)

  return {
    /** Takes over what another operator has sent, unless this one is writing something else. */
    update({message}) {
      if (wasText === null || input.value.trim() === wasText) input.value = message.text
      wasText = message.text
      if (colour === null || message.shown) mark(message.colour)
      byId('message-hide').disabled = !message.shown || game.status !== 'live'
      const isOn = message.shown && message.text
      setText(byId('message-state'), isOn ? texts.messageIsOn(message.text) : texts.messageIsOff)
      label()
    },
    toggle() {
      if (readStage(game.state).message.shown) send({shown: false})
      else show()
    },
  }
}

/** Thresholds, the large time, and the parts that screens show. */
export function runDisplay(game) {
  const yellow = byId('yellow'), red = byId('red'), large = byId('large')
  large.append(...TIMES.map((time) => make('option', {value: time, textContent: texts.times[time]})))
  const send = (show) => act(change(game, () => ({show})))
  large.addEventListener('change', () => send({time: large.value}))
  const boxes = PARTS.map((part) => {
    const box = make('input', {type: 'checkbox', name: part})
    box.addEventListener('change', () => send({[part]: box.checked}))
    const text = make('span', {textContent: texts.parts[part]})
    byId('parts').append(make('label', {className: 'check'}, box, text))
    return [part, box]
  })
  for (const input of [yellow, red]) input.addEventListener('input', () => { input.dataset.edited = 'yes' })
  byId('warnings').addEventListener('submit', async (event) => {
    event.preventDefault()
    const yellowMs = durationOf(yellow), redMs = yellowMs === null ? null : durationOf(red)
    if (redMs === null) return
    if (redMs >= yellowMs) return toast(texts.redIsLater)
    if (await act(change(game, () => ({warn: {yellow_ms: yellowMs, red_ms: redMs}})))) {
      for (const input of [yellow, red]) delete input.dataset.edited
    }
  })
  return {
    update({warn, time, show}) {
      for (const [input, ms] of [[yellow, warn.yellowMs], [red, warn.redMs]]) {
        if (!input.dataset.edited) input.value = durationText(ms)
      }
      large.value = time
      for (const [part, box] of boxes) box.checked = show[part]
    },
  }
}
