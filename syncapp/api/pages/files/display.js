// For pages that people look at for hours, or that are run from a keyboard.

/** Keeps the screen on while the page is visible, where the browser allows it (over HTTPS, and on this computer). */
export function keepAwake() {
  if (!navigator.wakeLock) return
  const ask = () => {
    if (!document.hidden) navigator.wakeLock.request('screen').catch(() => {})  // refused, as on a low battery
  }
  document.addEventListener('visibilitychange', ask)           // the lock is lost while the page is hidden
  ask()
}

/**
 * Calls actions by key: {' ': start, p: pause}. Not while something is typed or a dialog is open, not for the keys
 * that press a focused button, and not while a key is held down.
 */
export function onKeys(actions) {
  document.addEventListener('keydown', (event) => {
    const {key, target} = event
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return
    if (target.closest('input, textarea, select')) return
    if (target.closest('button, a, summary') && [' ', 'Enter'].includes(key)) return
    const action = actions[key.length === 1 ? key.toLowerCase() : key]
    if (!action) return
    event.preventDefault()
    action()
  })
}
