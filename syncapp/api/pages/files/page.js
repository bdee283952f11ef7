// What all pages share: opening the session, texts, messages, dialogs. docs/pages.md describes the pages.

import {createSession, open} from '/sdk/syncapp.js'
import {readAccess} from './page-access.js'
import {toast} from './page-messages.js'
import * as texts from './texts.js'
import {newUuid} from './uuid.js'

export {storedToken, storeToken} from './page-access.js'
export {confirmDialog, shareDialog} from './page-dialogs.js'
export {announce, toast} from './page-messages.js'

const {common} = texts

// Elements and texts.

/** The element with an id. Throws if there is none. */
export function byId(id) {
  const found = document.getElementById(id)
  if (!found) throw new Error(`no element with the id ${id}`)
  return found
}

/** A new element: `make('p', {className: 'quiet'}, child, …)`; keys with a dash, and `role`, become attributes. */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name)
  for (const [key, value] of Object.entries(properties)) {
    if (key === 'role' || key.includes('-')) element.setAttribute(key, value)
    else element[key] = value
  }
  element.append(...children)
  return element
}

/** Sets an element's text, if it changed. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

/** Fills the elements that name their texts: `data-text="play.title"`, and `-label`, `-title`, `-placeholder`. */
export function fillTexts(root = document) {
  const targets = {text: 'textContent', textLabel: 'ariaLabel', textTitle: 'title', textPlaceholder: 'placeholder'}
  for (const [name, property] of Object.entries(targets)) {
    const attribute = `data-${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
    for (const element of root.querySelectorAll(`[${attribute}]`)) element[property] = textAt(element.dataset[name])
  }
}

function textAt(path) {
  const [page, name] = path.split('.')
  const found = texts[page]?.[name]
  if (typeof found !== 'string') throw new Error(`no text ${path}`)
  return found
}

// The session.

/**
 * Opens the session that the address names, with the token of the link or of this tab.
 *
 * Returns {game, access}. If the address names no session, the page says so, and `game` is null.
 * options: those of the client's `open`; by default the page waits for a session that does not exist yet.
 */
export function openPage(options = {}) {
  const access = readAccess()
  if (!access.sessionId) {
    explainMissingSession()
    return {game: null, access}
  }
  const game = open(location.origin, access.sessionId, {token: access.token, wait: true, ...options})
  game.ready.catch(() => {})                                  // the banner tells why
  return {game, access}
}

function explainMissingSession() {
  const back = make('a', {href: '/', className: 'button primary', textContent: common.toHome})
  const title = make('h1', {textContent: common.noSessionTitle})
  const text = make('p', {textContent: common.noSession})
  const box = make('main', {className: 'problem-page stack'}, title, text, make('p', {}, back))
  for (const each of document.querySelectorAll('body > *')) each.hidden = true
  document.body.append(box)
}

/** Shows a banner while the page is not live: why, and whether it continues by itself. Final reasons stay. */
export function connectionBanner(game) {
  const banner = make('div', {className: 'banner', role: 'status', hidden: true})
  document.body.append(banner)
  const show = () => {
    const {text, isFinal} = connectionText(game)
    banner.hidden = !text
    banner.classList.toggle('final', isFinal)
    // Without a state there is nothing else to see.
    banner.classList.toggle('alone', !game.state && (isFinal || game.reason?.code === 'SESSION_NOT_FOUND'))
    banner.classList.toggle('waits', game.status === 'connecting' && !game.reason)
    setText(banner, text)
  }
  game.on('status', show)
  game.on('change', show)
  show()
  return banner
}

/** Why a game is not live, in words; the text is empty while it is. */
export function connectionText(game) {
  const {status, reason} = game
  if (status === 'live') return {text: '', isFinal: false}
  if (!reason) return {text: status === 'closed' ? common.closed : common.connecting, isFinal: status === 'closed'}
  return {text: sentenceOf(reason), isFinal: reason.final || status === 'closed'}
}

function sentenceOf({code, message, final, retryInMs}) {
  switch (code) {
    case 'UNAUTHORIZED': return refusalText(message)
    case 'FORBIDDEN': return common.notAllowed
    case 'DELETED': return common.deleted
    case 'SESSION_NOT_FOUND': return final ? common.gone : common.waiting
    case 'STORE_UNAVAILABLE': return common.storeAway
    case 'CLOSED': return common.closed
    case 'OFFLINE': if (!navigator.onLine) return common.offline
  }
  if (final) return common.cannotTalk
  return retryInMs > 1500 ? common.staleIn(Math.ceil(retryInMs / 1000)) : common.stale
}

/** Why a token was refused, as one sentence. */
export function refusalText(message, {token} = readAccess()) {
  if (!token) return common.tokenMissing
  if (message.includes('expired')) return common.tokenExpired
  if (message.includes('revoked')) return common.tokenRevoked
  return message.includes('earlier') ? common.tokenEarlier : common.tokenInvalid
}

/** Creates a session; the key is a UUID, which the server wants where the body has no id. Returns the state. */
export function create(body, token) {
  return createSession(location.origin, body, {token, idempotencyKey: newUuid()})
}

// Frames.

/** Calls back before each frame; not while the page is hidden. Returns a function that ends it. */
export function everyFrame(callback) {
  let isOn = true
  const frame = () => {
    if (!isOn) return
    callback()
    requestAnimationFrame(frame)
  }
  requestAnimationFrame(frame)
  return () => { isOn = false }
}

// Errors.

/** An error of a command or request as one plain sentence. */
export function describeError(error) {
  const {code, message, details, outcomeUnknown} = error
  if (outcomeUnknown) return common.noAnswer
  switch (code) {
    case 'CONFLICT': return common.tooLate
    case 'NOT_ACTIVE_PARTICIPANT': return common.notYourTurn
    case 'INVALID_STATE_TRANSITION': return common.notNow
    case 'FORBIDDEN': return common.forbidden
    case 'UNAUTHORIZED': return refusalText(message)
    case 'SESSION_NOT_FOUND': return common.gone
    case 'RATE_LIMITED': return common.rateLimited(Math.ceil(details?.retry_after_s ?? 1))
    case 'OFFLINE': case 'TIMEOUT': case 'CLOSED': return common.notSent
  }
  return common.refused(message ?? String(error))
}

/** Awaits a command; an error becomes a toast. Returns what the command has done, or null. */
export async function act(promise) {
  try {
    return await promise
  } catch (error) {
    toast(describeError(error))
    return null
  }
}
