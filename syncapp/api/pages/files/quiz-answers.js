// A player's answers. They stay in this tab: the service keeps clocks, and what players could write there, everybody
// could read.

const known = new Map()

// The same for all epochs of a session, so answers outlive a restore; another session of the same id has another time.
function keyOf({session_id: id, created_at: createdAt}) {
  return `syncapp.answers.${id}.${createdAt}`
}

/** The answers of this tab, by the index of the question. They are read from the store before the first is written. */
export function answersOf(state) {
  const key = keyOf(state)
  if (!known.has(key)) known.set(key, read(key))
  return known.get(key)
}

/** Keeps an answer until the tab is closed. */
export function keepAnswer(state, index, option) {
  const answers = answersOf(state)
  answers[index] = option
  try {
    sessionStorage.setItem(keyOf(state), JSON.stringify(answers))
  } catch {
    // The browser allows no storage, or it is full: the answers last until the page is reloaded.
  }
}

function read(key) {
  try {
    return {...JSON.parse(sessionStorage.getItem(key))}
  } catch {
    return {}
  }
}
