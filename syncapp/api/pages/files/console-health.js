// The health of the service: readiness, the audit queue, the last check of the log, and its load.

import {call, token} from './console-access.js'
import {fillPairs} from './console-facts.js'
import {ageText, fullInstantText, instantText} from './console-words.js'
import {byId, make, setText} from './page.js'
import {consoleTexts as texts} from './texts.js'

const EVERY_MS = 5_000
const BEHIND_MS = 10_000
const COUNT = new Intl.NumberFormat()

/** Shows the health until the returned function is called. */
export function showHealth() {
  const box = byId('health-cards')
  const names = ['service', 'queue', 'verification', 'load']
  const cards = Object.fromEntries(names.map((name) => [name, newCard(texts[name])]))
  box.replaceChildren(...Object.values(cards).map(({element}) => element))
  let isOpen = true, timer, before = null

  async function refresh() {
    clearTimeout(timer)
    if (!isOpen || document.hidden) return
    const reads = {
      service: readiness, queue: () => call('GET', '/v1/audit/queue'),
      verification: () => call('GET', '/v1/audit/verification'), load: metrics,
    }
    await Promise.all(Object.entries(reads).map(async ([name, read]) => {
      try {
        const found = await read()
        if (!isOpen) return
        if (name === 'load') before = showLoad(cards.load, found, before)
        else SHOW[name](cards[name], found)
      } catch {
        if (isOpen) cards[name].say('warn', texts.unread)
      }
    }))
    if (!isOpen) return
    setText(byId('health-state'), texts.updated(instantText(Date.now())))
    timer = setTimeout(refresh, EVERY_MS)
  }

  document.addEventListener('visibilitychange', refresh)
  refresh()
  return () => {
    isOpen = false
    clearTimeout(timer)
    document.removeEventListener('visibilitychange', refresh)
    box.replaceChildren()
  }
}

const SHOW = {service: showReadiness, queue: showQueue, verification: showVerification}

/** A card: {element, say(kind, text), pairs(pairs), notes(texts)}. */
function newCard(title) {
  const said = make('p', {className: 'said', hidden: true}), notes = make('ul', {hidden: true})
  const list = make('dl', {className: 'facts'})
  return {
    element: make('section', {className: 'card'}, make('h2', {textContent: title}), said, notes, list),
    say(kind, text) {
      said.hidden = false
      said.className = `said note ${kind}`
      setText(said, text)
    },
    pairs: (pairs) => fillPairs(list, pairs),
    notes(lines) {
      notes.hidden = !lines.length
      if (notes.dataset.lines === lines.join('\n')) return
      notes.dataset.lines = lines.join('\n')
      notes.replaceChildren(...lines.map((textContent) => make('li', {textContent})))
    },
  }
}

/** `/ready` answers 503 with the same members; that is a finding here, not an error. */
async function readiness() {
  const headers = token() ? {Authorization: `Bearer ${token()}`} : {}
  return (await fetch('/ready', {cache: 'no-store', headers})).json()
}

function showReadiness(card, found) {
  const isReady = found.status === 'ready', worries = found.worries ?? []
  card.say(!isReady ? 'danger' : worries.length ? 'warn' : 'good', isReady ? texts.ready : texts.notReady)
  card.notes([...(found.problems ?? []), ...worries])
  card.pairs([[texts.redis, found.redis ?? '–'], [texts.postgresql, found.postgresql ?? '–']])
}

function showQueue(card, queue) {
  const {waiting, active, completed, failed, delayed, oldest_age_ms: oldest, rate_per_s: rate} = queue
  const names = texts.queueFacts
  const isBehind = (oldest ?? 0) > BEHIND_MS
  card.say(isBehind ? 'warn' : 'good', isBehind ? texts.queueBehind(ageText(oldest)) : texts.queueGood)
  card.notes(failed ? [texts.deadLetters(failed)] : [])
  card.pairs([
    [names.waiting, COUNT.format(waiting)], [names.active, COUNT.format(active)],
    [names.oldest, oldest === null ? texts.noneOldest : ageText(oldest)], [names.failed, COUNT.format(failed)],
    [names.delayed, delayed === null ? texts.unknownCount : COUNT.format(delayed)], [names.completed, COUNT.format(completed)],
    [names.rate, COUNT.format(rate)],
  ])
}

function showVerification(card, {last}) {
  if (!last) return card.say('warn', texts.neverVerified)
  const names = texts.verifiedFacts, finished = Date.parse(last.finished_at)
  card.say({as_committed: 'good', faults: 'danger', incomplete: 'warn'}[last.outcome], texts.verified[last.outcome])
  card.pairs([
    [names.finished, `${fullInstantText(finished)} (${texts.ago(ageText(Date.now() - finished))})`],
    [names.took, ageText(finished - Date.parse(last.started_at))],
    [names.sessions, COUNT.format(last.sessions)], [names.events, COUNT.format(last.events)],
    [names.faulty, COUNT.format(last.faulty_sessions)], [names.forks, COUNT.format(last.forks)],
    [names.erased, COUNT.format(last.erased_parts)],
  ])
}

/** Returns the text of `/metrics`, which is no JSON as the client expects it. */
async function metrics() {
  const bearer = token()
  const response = await fetch('/metrics', {headers: bearer ? {Authorization: `Bearer ${bearer}`} : {}})
  if (!response.ok) throw new Error(response.statusText)
  return response.text()
}

/** Shows some of the metrics; a rate needs those of the time before, {at, requests}, and returns those of now. */
function showLoad(card, metrics, before) {
  const sum = (name, label = '') => {
    let total = null
    for (const line of String(metrics).split('\n')) {
      if (!line.startsWith(name) || !/^[{ ]/.test(line.slice(name.length)) || !line.includes(label)) continue
      total = (total ?? 0) + Number(line.slice(line.lastIndexOf(' ') + 1))
    }
    return total ?? 0
  }
  const processes = ['web', 'worker'].map((kind) => sum('syncapp_processes', `kind="${kind}"`))
  const names = texts.loadFacts, now = {at: performance.now(), requests: sum('syncapp_http_requests_total')}
  const rate = before ? (1000 * (now.requests - before.requests)) / (now.at - before.at) : null
  card.pairs([
    [names.connections, COUNT.format(sum('syncapp_ws_connections'))],
    [names.commands, rate === null ? texts.measuring : COUNT.format(Math.max(0, Math.round(rate * 10) / 10))],
    [names.processes, texts.processes(...processes)],
    [names.unwell, COUNT.format(sum('syncapp_loop_failures_total'))],
  ])
  return now
}
