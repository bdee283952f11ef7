// Which session a page shows, and what its token allows. Servers check tokens; this only reads one.

const KEY = 'syncapp.token'
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** The token of this tab, or null. */
export function storedToken() {
  return sessionStorage.getItem(KEY)
}

/** Keeps a token for this tab, and for pages that it opens next; null forgets it. */
export function storeToken(token) {
  if (token === null) sessionStorage.removeItem(KEY)
  else sessionStorage.setItem(KEY, token)
}

/** Takes the token of a link out of the address bar, where it could be seen or copied. */
function keepTokenOfLink() {
  const token = new URLSearchParams(location.hash.slice(1)).get('token')
  if (!token) return false
  storeToken(token)
  history.replaceState(null, '', location.pathname + location.search)
  return true
}

/** What a token says, as far as it can be read. It is not verified: whoever made the link can have written anything. */
export function claimsOf(token) {
  try {
    const base64 = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(base64), (char) => char.charCodeAt(0))))
    const texts = ['session_id', 'participant_id', 'scope'].filter((name) => typeof claims?.[name] === 'string')
    return {
      exp: typeof claims?.exp === 'number' ? claims.exp : null,
      isLink: claims?.link === true,
      ...Object.fromEntries(texts.map((name) => [name, claims[name]])),
    }
  } catch {
    return {exp: null, isLink: false}
  }
}

/** The session that the address names: the last part of `/play/<id>`, or `?session=`. Null if there is none. */
function askedSession() {
  const [, , inPath] = location.pathname.split('/')
  return inPath || new URLSearchParams(location.search).get('session')
}

/** What this page may do; PAGES of docs/pages.md explains the parameters of the address. */
export function readAccess() {
  keepTokenOfLink()
  const query = new URLSearchParams(location.search)
  const asked = askedSession(), stored = storedToken()
  const claims = stored ? claimsOf(stored) : {}
  const isOfAnother = Boolean(asked && claims.session_id && claims.session_id.toLowerCase() !== asked.toLowerCase())
  const token = isOfAnother ? null : stored
  const sessionId = asked ?? (token && claims.session_id) ?? null
  const isView = query.get('view') === '1', isOpen = token === null
  const scopes = isOpen ? ['admin'] : String(claims.scope ?? '').split(' ')
  const has = (scope) => scopes.includes(scope) || scopes.includes('admin')
  const mayControl = !isView && has('session:control')
  const isLink = !isOpen && claims.isLink
  return {
    token,
    sessionId: sessionId && UUID.test(sessionId) ? sessionId.toLowerCase() : null,
    participant: (isOpen ? query.get('as') : claims.participant_id) ?? null,
    mayAct: mayControl || (!isView && has('session:act')),
    mayControl,
    mayShare: mayControl && !isLink,
    isLink,
    isOpen,
    isView,
    until: isOpen || claims.exp === null ? null : claims.exp * 1000,
  }
}

// Another link that is opened in the same tab changes only the fragment.
addEventListener('hashchange', () => { if (keepTokenOfLink()) location.reload() })
