// Who uses the console: the token of this tab, and requests with it. A refused token is asked for again, in a dialog.

import {claimsOf, request} from '/sdk/syncapp.js'
import {readAccess, storedToken, storeToken} from './page-access.js'
import {openDialog} from './page-dialogs.js'
import {make, setText} from './page.js'
import {consoleTexts as texts} from './texts.js'

let asking = null
let isOpen = false
let tell = () => {}

/** The token that requests carry; null with `AUTH=off`. */
export const token = () => (isOpen ? null : storedToken())

/** Whether everyone may do everything. */
export const isOpenToAll = () => isOpen

/** What the token says about its bearer: {sub, tenant, scope, exp, session_id}. Nobody has verified it. */
export const claims = (text = storedToken()) => claimsOf(text ?? '')

/** Finds out at the start whether the page may go on. Returns '' if so, else why not; null if nobody has signed in. */
export async function start() {
  readAccess()                                                // takes #token= out of the address bar
  const kept = storedToken()
  if (kept) return problemOf(kept)
  isOpen = await showsDetails(null)
  return isOpen ? '' : null
}

/** Takes a token into use. Returns '' if it allows the console, else why it does not. */
export async function signIn(text) {
  const problem = await problemOf(text)
  if (problem !== '') return problem
  storeToken(text)
  tell()
  return ''
}

/** Calls the listener after each sign-in. */
export function onSignIn(listener) {
  tell = listener
}

export function signOut() {
  storeToken(null)
}

/**
 * Why a token does not allow the console; '' if it does.
 *
 * `/ready` shows its details to those alone who have the scope `admin`, and takes a bad token for none: so it tells
 * whether the server accepts this one, without an error.
 */
async function problemOf(text) {
  const found = claims(text)
  if (!found.sub) return texts.notAToken
  if (typeof found.exp === 'number' && found.exp * 1000 <= Date.now()) return texts.expired
  const scopes = String(found.scope ?? '').split(' ')
  if (!scopes.includes('admin')) return texts.noAdmin(scopes.filter(Boolean).join(', '))
  if (found.session_id) return texts.oneSession
  try {
    return (await showsDetails(text)) ? '' : texts.badToken
  } catch {
    return texts.noServer
  }
}

async function showsDetails(text) {
  const answer = await fetch('/ready', {cache: 'no-store', headers: text ? {Authorization: `Bearer ${text}`} : {}})
  const document = await answer.json()
  return 'redis' in document || 'problems' in document
}

/** Sends a request to the API. If its token is refused, asks for a new one, and sends it again. */
export async function call(method, path, options = {}) {
  for (;;) {
    try {
      return await request(location.origin, method, path, {...options, token: token()})
    } catch (error) {
      if (error.status !== 401 || isOpen) throw error
      await askAgain()
    }
  }
}

/** The client's source of tokens: the one of this tab, or, if that was refused, the next one that is given. */
export async function tokenSource({refused}) {
  if (refused || hasExpired()) await askAgain()
  return storedToken()
}

function hasExpired() {
  const exp = claims()?.exp
  return typeof exp === 'number' && exp * 1000 <= Date.now()
}

/** Asks for a new token, once for all who wait; the page stays where it is. */
function askAgain() {
  asking ??= askInDialog().finally(() => { asking = null })
  return asking
}

async function askInDialog() {
  const dialog = make('dialog', {'aria-labelledby': 'again-title', className: 'again'},
    make('h2', {textContent: texts.again, id: 'again-title'}), make('p', {textContent: texts.againText}),
    signInForm('again-token', () => dialog.close('yes')))
  dialog.addEventListener('cancel', (event) => event.preventDefault())  // nothing works without a token
  while (await openDialog(dialog) !== 'yes');
}

/** A form for a token; `done` is called when one was accepted. */
export function signInForm(id, done, problem = '') {
  const input = make('input', {id, type: 'password', required: true, autocomplete: 'off', spellcheck: false,
    'aria-describedby': `${id}-problem ${id}-how`})
  const said = make('p', {id: `${id}-problem`, className: 'note danger', role: 'alert', hidden: !problem,
    textContent: problem})
  const go = make('button', {type: 'submit', className: 'button primary', textContent: texts.signIn})
  const field = make('div', {className: 'field'}, make('label', {htmlFor: id, textContent: texts.token}), input)
  const form = make('form', {}, field, said, go,
    make('p', {id: `${id}-how`, className: 'hint', textContent: texts.signInHow}))
  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    go.disabled = true
    setText(go, texts.checking)
    const why = await signIn(input.value.trim())
    go.disabled = false
    setText(go, texts.signIn)
    said.hidden = why === ''
    setText(said, why)
    if (why === '') done()
    else input.select()
  })
  return form
}
