// How long turns took: bars of the mean and the longest turn of each participant, and the same numbers as a table.

import {call} from './console-access.js'
import {lengthText} from './console-words.js'
import {byId, make} from './page.js'
import {consoleTexts as texts} from './texts.js'

const SVG = 'http://www.w3.org/2000/svg'
const SOON_MS = 1_500
const WIDEST = 640, BAR = 14, ROW = 56, TOP = 18, ROOM = 80
const MOST_BARS = 40

/** Shows the statistics, and reads them again after a turn has ended. Returns {close()}. */
export function showStatistics(game) {
  let isOpen = true, timer
  byId('statistics').replaceChildren()
  async function load() {
    try {
      const found = await call('GET', `/v1/sessions/${game.id}/statistics`)
      if (isOpen) draw(found)
    } catch (error) {
      const text = error.code === 'SESSION_NOT_FOUND' ? texts.noTurns : texts.logAway
      if (isOpen) byId('statistics').replaceChildren(make('p', {className: 'quiet', textContent: text}))
    }
  }
  const stop = game.on('change', ({event, skipped}) => {
    if (!event && !skipped) return
    clearTimeout(timer)
    timer = setTimeout(load, SOON_MS)
  })
  load()
  return {
    close() {
      isOpen = false
      stop()
      clearTimeout(timer)
    },
  }
}

function draw(found) {
  const box = byId('statistics')
  const turns = found.participants.filter(({cycles}) => cycles > 0)
  const wasOpen = box.querySelector('details')?.open ?? false
  const width = Math.min(WIDEST, box.clientWidth || WIDEST)
  const picture = turns.length ? [legend(), bars(turns.slice(0, MOST_BARS), width)]
    : [make('p', {className: 'quiet', textContent: texts.noTurns})]
  const summary = make('summary', {textContent: texts.asTable})
  box.replaceChildren(...picture, make('details', {open: wasOpen}, summary, table(found)))
}

function legend() {
  const key = (name, text) => make('span', {}, make('span', {className: `swatch ${name}`}), text)
  const keys = [key('mean', texts.mean), key('longest', texts.longest)]
  return make('p', {className: 'legend small', 'aria-hidden': 'true'}, ...keys)
}

/** For each participant a bar of the mean turn and one of the longest, on one scale. */
function bars(turns, width) {
  const most = Math.max(1, ...turns.map(({longest_ms: longest}) => longest))
  const scale = (width - ROOM) / most
  const svg = element('svg',
    {width, height: turns.length * ROW, role: 'img', 'aria-label': texts.statisticsLabel, class: 'bars'})
  turns.forEach((each, index) => {
    const y = index * ROW
    svg.append(text(each.participant_id, 0, y + 12, 'bar-name'), ...bar('mean', each.mean_ms, y + TOP, scale),
      ...bar('longest', each.longest_ms, y + TOP + BAR + 2, scale))
  })
  return svg
}

function bar(name, ms, y, scale) {
  const width = Math.max(2, ms * scale)
  const shape = element('rect', {x: 0, y, width, height: BAR, rx: 3, class: name})
  return [shape, text(lengthText(ms), width + 6, y + 11, 'bar-value')]
}

function text(content, x, y, name) {
  const label = element('text', {x, y, class: name})
  label.textContent = content
  return label
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  return made
}

function table(found) {
  const head = make('tr', {}, ...texts.statisticsColumns.map((name, index) =>
    make('th', {scope: 'col', className: index ? 'number' : '', textContent: name})))
  const rows = [...found.participants.map((each) => row(each.participant_id, each)), row(texts.everybody, found)]
  return make('div', {className: 'table', tabIndex: 0, role: 'region', 'aria-label': texts.statisticsTable},
    make('table', {}, make('thead', {}, head), make('tbody', {}, ...rows)))
}

function row(name, {cycles, total_ms: total, mean_ms: mean, longest_ms: longest, open_ms: open}) {
  const numbers = [String(cycles), ...[total, mean, longest, open].map(lengthText)]
  return make('tr', {}, make('th', {scope: 'row', textContent: name}),
    ...numbers.map((textContent) => make('td', {className: 'number', textContent})))
}
