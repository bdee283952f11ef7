// The page `/`: starts demos, and asks for a token where they need one.

import {request} from '/sdk/syncapp.js'
import {DEMOS} from './home-demos.js'
import {byId, create, describeError, fillTexts, make, setText, storeToken, storedToken} from './page.js'
import {home} from './texts.js'

const SVG = 'http://www.w3.org/2000/svg'
const ICONS = {
  blitz: 'M6 21h12M8 21c0-5 2-6 2-9a4 4 0 1 1 4 0c0 3 2 4 2 9M12 4V2',
  go: 'M3 8h18M3 16h18M8 3v18M16 3v18M8 8h.01M16 16h.01',
  stage: 'M4 4h16v11H4zM12 15v6M8 21h8',
  quiz: 'M9 9a3 3 0 1 1 4 3c-1 .5-1 1-1 2M12 18h.01M3 12a9 9 0 1 0 18 0a9 9 0 1 0-18 0',
  auction: 'M14 4l6 6M11 7l6 6M12.500 5.500l-6 6M17.500 10.500l-5 5M9 10l5 5M11 13l-7 7M14 21h7',
  exam: 'M6 3h12v18H6zM9 8h6M9 12h6M9 16h3',
}
/** Whether the server needs tokens; null until it is known. */
let needsToken = null

fillTexts()
byId('demos').append(...Object.keys(DEMOS).map(card))
byId('token-form').addEventListener('submit', (event) => {
  event.preventDefault()
  storeToken(byId('token').value.trim())
  byId('token-form').reset()
  showToken()
})
byId('forget').addEventListener('click', () => {
  storeToken(null)
  showToken()
})
// Back from a demo, the page may come out of the browser's cache as it was left.
addEventListener('pageshow', (event) => { if (event.persisted) setBusy(null) })
await findOut()

function card(name) {
  const title = make('h3', {textContent: home[`${name}Title`], id: `demo-${name}`})
  const button = make('button', {type: 'button', className: 'button primary', textContent: home.start})
  button.setAttribute('aria-describedby', title.id)
  button.dataset.demo = name
  button.addEventListener('click', () => start(name))
  return make('li', {}, make('article', {className: 'card demo'},
    icon(ICONS[name]), title, make('p', {textContent: home[`${name}Text`]}), button))
}

function icon(path) {
  const svg = document.createElementNS(SVG, 'svg'), line = document.createElementNS(SVG, 'path')
  const looks = {d: path, fill: 'none', stroke: 'currentColor', 'stroke-width': 2, 'stroke-linecap': 'round'}
  for (const [key, value] of Object.entries(looks)) line.setAttribute(key, value)
  svg.setAttribute('viewBox', '0 0 24 24')
  svg.setAttribute('aria-hidden', 'true')
  svg.append(line)
  return svg
}

/** Finds out whether the server needs tokens: without one, it then shows only its status. */
async function findOut() {
  try {
    const {redis} = await request(location.origin, 'GET', '/ready')
    needsToken = redis === undefined
  } catch (error) {
    tell(describeError(error))
  }
  showToken()
}

function showToken() {
  byId('needs-token').hidden = !needsToken
  const has = storedToken() !== null
  byId('forget').hidden = !has
  setText(byId('token-state'), has ? home.tokenKept : '')
  for (const button of document.querySelectorAll('[data-demo]')) button.disabled = Boolean(needsToken && !has)
}

async function start(name) {
  const {page, body} = DEMOS[name], token = needsToken ? storedToken() : null
  tell('')
  setBusy(name)
  try {
    const {session_id: id} = await create(body, token)
    location.assign(`/${page}/${id}`)
  } catch (error) {
    setBusy(null)
    tell(error.code === 'UNAUTHORIZED' ? home.tokenRefused : describeError(error))
  }
}

/** Marks the demo that is being created, and keeps others from being started meanwhile. */
function setBusy(name) {
  for (const button of document.querySelectorAll('[data-demo]')) {
    button.disabled = name !== null
    button.textContent = button.dataset.demo === name ? home.starting : home.start
  }
}

function tell(text) {
  byId('problem').hidden = !text
  setText(byId('problem'), text)
}
