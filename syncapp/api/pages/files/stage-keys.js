// Single keys of the operator. They can be switched off: software for speech input may press them by mistake.

const STORED = 'syncapp.stage.keys'
const FIELDS = 'input:not([type="checkbox"], [type="radio"]), select, textarea'

/** Calls the action of a key that is pressed outside of fields and dialogs. `actions` has the keys' names. */
export function listenToKeys(actions) {
  let isOn = localStorage.getItem(STORED) !== 'off'
  const mark = () => document.documentElement.classList.toggle('keys', isOn)
  mark()
  document.addEventListener('keydown', (event) => {
    const {key, target} = event
    if (!isOn || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return
    if (document.querySelector('dialog:modal')) return
    if (target.closest(FIELDS)) return key === 'Escape' && target.blur()
    // The space bar presses the button that has the focus, and the arrows choose among its like.
    if (key === ' ' && target.closest('button, a, summary, input')) return
    if (key.startsWith('Arrow') && target.closest('input')) return
    const action = actions[key.length === 1 ? key.toLowerCase() : key]
    if (!action) return
    event.preventDefault()
    action()
  })
  return {
    get isOn() { return isOn },
    set isOn(value) {
      isOn = value
      mark()
      localStorage.setItem(STORED, value ? 'on' : 'off')
    },
  }
}
