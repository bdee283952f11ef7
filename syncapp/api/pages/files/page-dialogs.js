// Dialogs of all pages: a question, and links to share.

import {request} from '/sdk/syncapp.js'
import {describeError, make, toast} from './page.js'
import {common} from './texts.js'

/** Shows a dialog; resolves with what it was closed with: '' if by Escape. It is taken off the page then. */
export function openDialog(dialog) {
  const before = document.activeElement
  document.body.append(dialog)
  dialog.showModal()
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove()
      before?.focus?.()
      resolve(dialog.returnValue)
    })
    dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close('') })  // on the backdrop
  })
}

/** Asks before something is done. Resolves with {reason}, or null if it was cancelled; reason is undefined if empty. */
export async function confirmDialog({title, text, confirm = common.ok, danger = false, reason = false}) {
  const input = make('input', {maxLength: 200, autocomplete: 'off'})
  const heading = make('h2', {textContent: title, id: 'confirm-title'})
  const cancel = make('button', {type: 'button', className: 'button', textContent: common.cancel})
  const kind = danger ? 'danger' : 'primary'
  const go = make('button', {type: 'submit', className: `button ${kind}`, textContent: confirm})
  const form = make('form', {}, heading)
  if (text) form.append(make('p', {textContent: text}))
  if (reason) form.append(make('label', {className: 'field'}, common.reason, input))
  form.append(make('div', {className: 'actions'}, cancel, go))
  const dialog = make('dialog', {'aria-labelledby': 'confirm-title'}, form)
  cancel.addEventListener('click', () => dialog.close(''))
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    dialog.close('yes')
  })
  const answer = await openDialog(dialog)
  return answer === 'yes' ? {reason: input.value.trim() || undefined} : null
}

/**
 * Shows links to share, each as a QR code and as text.
 *
 * people: [{label, page, participantId?, scope, view?, query?}]. With tokens, each gets a link of its own that expires
 * after a day; without, a plain address.
 */
export async function shareDialog(game, access, people) {
  const list = make('ul', {className: 'share-list'})
  const hint = make('p', {className: 'quiet', textContent: access.isOpen ? common.shareHintOpen : common.shareHint})
  const close = make('button', {type: 'button', className: 'button primary', textContent: common.close})
  const dialog = make('dialog', {'aria-labelledby': 'share-title'},
    make('h2', {textContent: common.shareTitle, id: 'share-title'}), hint, list,
    make('div', {className: 'actions'}, close))
  close.addEventListener('click', () => dialog.close(''))
  const closed = openDialog(dialog)
  const {qrSvg} = await import('./qr.js')
  for (const person of people) list.append(shareEntry(game, access, person, qrSvg))
  await closed
}

function shareEntry(game, access, person, qrSvg) {
  const item = make('li', {}, make('h3', {textContent: person.label}))
  const show = (url) => item.append(...linkParts(withQuery(url, person.query), person.label, qrSvg))
  if (access.isOpen) {
    show(plainUrl(game, person))
    return item
  }
  // Each link is a new token, so it is made only for those who get one.
  const button = make('button', {type: 'button', className: 'button', textContent: common.makeLink})
  button.addEventListener('click', async () => {
    button.disabled = true
    try {
      const {page, scope, participantId, label} = person
      const body = {scope, page, label, ...(participantId ? {participant_id: participantId} : {})}
      const {url} = await request(game.base, 'POST', `/v1/sessions/${game.id}/links`, {token: game.token, body})
      button.remove()
      show(url + '')
    } catch (error) {
      button.disabled = false
      toast(describeError(error))
    }
  })
  item.append(button)
  return item
}

/** The address with these parameters, too: `{overlay: '1'}`. */
function withQuery(address, query = {}) {
  const url = new URL(address)
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
  return url.href
}

function plainUrl(game, {page, participantId, view, scope}) {
  const url = new URL(page === 'watch' ? '/watch' : `/${page}/${game.id}`, location)
  if (page === 'watch') url.searchParams.set('session', game.id)
  if (participantId) url.searchParams.set('as', participantId)
  if (view || scope === 'session:watch') url.searchParams.set('view', '1')
  return url.href
}

function linkParts(url, label, qrSvg) {
  const code = qrSvg(url)
  code.setAttribute('role', 'img')
  code.setAttribute('aria-label', common.qrLabel(label))
  const field = make('input', {readOnly: true, value: url, 'aria-label': common.linkLabel(label)})
  field.addEventListener('focus', () => field.select())
  const copy = make('button', {type: 'button', className: 'button', textContent: common.copy})
  copy.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(url)
    } catch {                                                  // no permission, or not over HTTPS
      field.select()
      document.execCommand('copy')
    }
    toast(common.copied)
  })
  const buttons = make('div', {className: 'row'}, copy)
  if (navigator.share) {
    const share = make('button', {type: 'button', className: 'button', textContent: common.share})
    share.addEventListener('click', () => navigator.share({title: label, url}).catch(() => {}))  // cancelled
    buttons.append(share)
  }
  return [code, make('p', {}, field), buttons]
}
