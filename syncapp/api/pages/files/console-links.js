// The links of a session: a list, making one with a QR code, and revoking them.

import {call, claims, isOpenToAll, token} from './console-access.js'
import {fullInstantText} from './console-words.js'
import {confirmDialog, shareDialog} from './page-dialogs.js'
import {byId, describeError, make, toast} from './page.js'
import {consoleTexts as texts} from './texts.js'

/** Shows the links. timeline: learns the names of links. Returns {update(), close()}. */
export function showLinks(game, timeline) {
  const box = byId('links')
  const list = make('div')
  const form = makeForm(() => share())
  let isOpen = true, people = '', isRead = false
  box.replaceChildren(list, form.element)
  if (isOpenToAll()) list.append(make('p', {className: 'quiet', textContent: texts.linksOff}))

  async function share() {
    const person = form.person()
    const access = {
      token: token(), sessionId: game.id, participant: null, mayAct: true, mayControl: true, mayShare: true,
      isLink: false, isOpen: isOpenToAll(), until: claims().exp ? claims().exp * 1000 : null,
    }
    await shareDialog(game, access, [person])
    if (isOpen) load()
  }

  async function load() {
    if (isOpenToAll()) return
    try {
      const {links} = await call('GET', path())
      if (!isOpen) return
      list.replaceChildren(...shown(links))
      timeline.nameLinks(new Map(links.filter(({label}) => label).map(({jti, label}) => [jti, label])))
    } catch (error) {
      if (isOpen) list.replaceChildren(make('p', {className: 'quiet', textContent: texts.linksAway}))
    }
  }

  const path = (jti = '') => `/v1/sessions/${game.id}/links${jti && `/${jti}`}`

  function shown(links) {
    if (!links.length) return [make('p', {className: 'quiet', textContent: texts.noLinks})]
    const titles = texts.linkColumns.map((textContent) => make('th', {scope: 'col', role: 'columnheader', textContent}))
    const head = make('tr', {role: 'row'}, ...titles, cell(''))
    const rows = links.map((link) => make('tr', {role: 'row'},
      ...[link.label ?? texts.unnamed, scopeText(link.scope), link.participant_id ?? texts.anybody,
        fullInstantText(link.expires_at), link.created_by].map(cell), cell(revokeButton(link))))
    const all = make('button', {type: 'button', className: 'button danger-text', textContent: texts.revokeAll})
    all.addEventListener('click', () => revoke(texts.askRevokeAll(links.length), path()))
    const table = make('table', {role: 'table', className: 'links-table'},
      make('thead', {role: 'rowgroup'}, head), make('tbody', {role: 'rowgroup'}, ...rows))
    const frame = make('div', {className: 'table', tabIndex: 0, role: 'region', 'aria-label': texts.linksTable}, table)
    return links.length > 1 ? [frame, all] : [frame]
  }

  function revokeButton(link) {
    const name = link.label ?? texts.unnamed
    const button = make('button', {type: 'button', className: 'button danger-text', textContent: texts.revoke,
      'aria-label': texts.revokeLabel(name)})
    button.addEventListener('click', () => revoke(texts.askRevoke(name), path(link.jti)))
    return button
  }

  async function revoke(title, where) {
    if (!await confirmDialog({title, text: texts.revokeText, confirm: texts.revoke, danger: true})) return
    try {
      await call('DELETE', where)
      toast(texts.revoked)
    } catch (error) {
      toast(describeError(error))
    }
    load()
  }

  return {
    update() {
      const ids = game.state.participants.map(({participant_id: id}) => id)
      if (!isRead) load()                                     // not before the session is known to be there
      isRead = true
      if (JSON.stringify(ids) === people) return
      people = JSON.stringify(ids)
      form.fillPeople(ids)
    },
    close() {
      isOpen = false
      box.replaceChildren()
    },
  }
}

const cell = (content) => make('td', {role: 'cell'}, content)

function scopeText(scope) {
  return scope.split(' ').map((each) => texts.linkScopes[each] ?? each).join(', ')
}

/** The form of a new link: {element, person(): what `shareDialog` takes, fillPeople(ids)}. */
function makeForm(submit) {
  const option = (value, textContent) => make('option', {value, textContent})
  const page = make('select', {}, ...Object.entries(texts.pages).map(([value, text]) => option(value, text)))
  const scope = make('select', {}, ...Object.entries(texts.linkScopes).map(([value, text]) => option(value, text)))
  const who = make('select', {}, option('', texts.anybody))
  const label = make('input', {maxLength: 100, autocomplete: 'off'})
  const field = (name, control) => make('label', {}, make('span', {textContent: name}), control)
  const fields = make('div', {className: 'inline-fields'},
    field(texts.linksPage, page), field(texts.linksScope, scope), field(texts.linksWho, who),
    field(texts.linksLabel, label), make('button', {type: 'submit', className: 'button', textContent: texts.makeLink}))
  const element = make('form', {className: 'inline-form', 'aria-label': texts.makeLink}, fields)
  const fit = () => {
    who.disabled = scope.value === 'session:watch'            // who only watches acts as nobody
    if (who.disabled) who.value = ''
  }
  scope.addEventListener('change', fit)
  fit()
  element.addEventListener('submit', (event) => {
    event.preventDefault()
    submit()
  })
  return {
    element,
    person: () => ({
      label: label.value.trim() || [texts.pages[page.value], who.value].filter(Boolean).join(': '),
      page: page.value, scope: scope.value, ...(who.value ? {participantId: who.value} : {}),
    }),
    fillPeople(ids) {
      who.replaceChildren(option('', texts.anybody), ...ids.map((id) => option(id, id)))
    },
  }
}
