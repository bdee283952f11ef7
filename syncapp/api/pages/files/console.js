// The console: signing in, the views that the fragment of the address names, and the keys.

import {claims, isOpenToAll, onSignIn, signInForm, signOut, start} from './console-access.js'
import {showHealth} from './console-health.js'
import {focusSearch, moveInList, showList} from './console-list.js'
import {showSession} from './console-session.js'
import {fullInstantText, instantText} from './console-words.js'
import {byId, fillTexts, setText} from './page.js'
import {consoleTexts as texts} from './texts.js'

const VIEWS = ['sign-in', 'list', 'session', 'health-view']
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
let close = () => {}
let view = ''

fillTexts()
byId('sign-out').addEventListener('click', () => {
  signOut()
  location.replace(location.pathname)
})
begin()

async function begin() {
  let problem
  try {
    problem = await start()
  } catch {
    problem = texts.noServer
  }
  if (problem !== '') return showSignIn(problem ?? '')
  const asked = new URLSearchParams(location.search).get('session')
  if (asked) history.replaceState(null, '', `${location.pathname}#session=${encodeURIComponent(asked)}`)
  showWho()
  onSignIn(showWho)
  byId('views').hidden = false
  addEventListener('hashchange', route)
  addEventListener('keydown', onKey)
  route()
}

function showSignIn(problem) {
  const card = byId('sign-in')
  const title = Object.assign(document.createElement('h1'), {textContent: texts.signInTitle})
  const text = Object.assign(document.createElement('p'), {textContent: texts.signInText})
  card.className = 'card sign-in'
  card.replaceChildren(title, text, signInForm('token', () => location.reload(), problem))
  show('sign-in')
  document.title = texts.pageTitle(texts.signInTitle)
  byId('token').focus()
}

function showWho() {
  const who = byId('who')
  if (isOpenToAll()) {
    setText(who, texts.anyone)
    who.className = 'badge warn'
    return
  }
  const {sub, tenant = 'default', scope = '', exp} = claims()
  setText(who, `${texts.who(sub, tenant)} · ${texts.until(instantText(exp * 1000))}`)
  who.title = `${texts.scopes(scope)} · ${texts.until(fullInstantText(exp * 1000))}`
  byId('sign-out').hidden = false
}

// The views.

function route() {
  const given = new URLSearchParams(location.hash.slice(1))
  close()
  close = () => {}
  const id = given.get('session')
  if (id !== null) return openSession(id.toLowerCase())
  if (given.has('health')) {
    show('health-view')
    document.title = texts.pageTitle(texts.healthTitle)
    close = showHealth()
    return
  }
  const cameFrom = view === 'session'
  show('list')
  document.title = texts.pageTitle(texts.listTitle)
  close = showList(cameFrom)
}

function openSession(id) {
  show('session')
  document.title = texts.pageTitle(texts.session(id.slice(0, 8)))
  close = showSession(id, UUID.test(id))
  byId('session-title').focus({preventScroll: true})
  scrollTo(0, 0)
}

function show(name) {
  view = name
  for (const each of VIEWS) byId(each).hidden = each !== name
  for (const link of byId('views').querySelectorAll('a')) {
    const isHere = link.hash === '#health' ? name === 'health-view' : name === 'list' || name === 'session'
    if (isHere) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
}

// The keys.

function onKey(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return
  if (document.querySelector('dialog[open]')) return
  const isField = event.target.closest?.('input:not([type="range"]), select, textarea')
  if (event.key === 'Escape') {
    if (isField) event.target.blur()
    else if (view !== 'list') location.hash = '#sessions'
    return
  }
  if (isField) return
  if (event.key === '/') {
    event.preventDefault()
    if (view !== 'list') location.hash = '#sessions'
    show('list')
    focusSearch()
  } else if (view === 'list' && (event.key === 'j' || event.key === 'k')) {
    event.preventDefault()
    moveInList(event.key === 'j' ? 1 : -1)
  }
}
