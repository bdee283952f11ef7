// What people type into the search field, as parameters of GET /v1/sessions. Pure functions.

const WORD = /(?:[^\s"]|"[^"]*")+/g
const ID = /^[0-9a-f][0-9a-f-]{0,35}$/i

/** The words of a search: {kind: 'id' | 'member' | 'participant' | 'unknown', text, key, value}. */
export function searchWords(text) {
  return (text.match(WORD) ?? []).map((word) => {
    const plain = word.replaceAll('"', '')
    const [, who] = /^participant:(.+)$/.exec(plain) ?? []
    if (who) return {kind: 'participant', text: plain, value: who}
    const at = plain.indexOf('=')
    if (at > 0) {
      const key = plain.slice(0, at).replace(/^metadata\./, '')
      return {kind: 'member', text: plain, key, value: plain.slice(at + 1)}
    }
    return {kind: ID.test(plain) ? 'id' : 'unknown', text: plain, value: plain}
  })
}

/** The parameters of a search; words that mean nothing are left out. */
export function readSearch(text) {
  const asked = new URLSearchParams()
  for (const {kind, key, value} of searchWords(text)) {
    if (kind === 'id') asked.set('id_prefix', value.toLowerCase())
    else if (kind === 'participant') asked.set('participant_id', value)
    else if (kind === 'member') asked.set(`metadata.${key}`, value)
  }
  return asked
}
