// Keeps the screen awake, and fills it.

let lock = null, isWanted = false

/** Keeps the screen awake, or lets it sleep. Browsers without wake locks, and pages without HTTPS, do nothing. */
export async function keepAwake(wanted) {
  isWanted = wanted
  if (!('wakeLock' in navigator)) return
  if (!wanted) {
    await lock?.release()
    lock = null
  } else if (!lock && !document.hidden) {
    try {
      lock = await navigator.wakeLock.request('screen')
      lock.addEventListener('release', () => { lock = null })
    } catch {
      lock = null                                              // refused, for instance when the battery is low
    }
  }
}

// The browser releases the lock when the page is hidden.
document.addEventListener('visibilitychange', () => { if (!document.hidden && isWanted) keepAwake(true) })

export const canFill = () => Boolean(document.fullscreenEnabled)

export const isFull = () => document.fullscreenElement !== null

export function toggleFull() {
  const done = isFull() ? document.exitFullscreen() : document.documentElement.requestFullscreen()
  done.catch(() => {})                                         // refused by the browser: nothing is lost
}
