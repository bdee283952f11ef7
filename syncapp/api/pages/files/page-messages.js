// Messages to people: spoken by a screen reader, and short ones on screen.

import {make} from './page.js'

const SETTLE_MS = 100            // a region that comes together with its text may not be read
const SAID_MS = 10_000
const TOAST_MS = 5_000
const CONTROLS = 'button, a[href], input, select, textarea, summary'
const GAP_PX = 8

const regions = {}

function region(isAssertive) {
  return regions[isAssertive] ??= document.body.appendChild(make('div', {
    className: 'visually-hidden', role: isAssertive ? 'alert' : 'log',
    'aria-live': isAssertive ? 'assertive' : 'polite', 'aria-atomic': 'false',
  }))
}

/** Has a screen reader say a text, after those that it has not said yet. The text is gone again after some seconds. */
export function announce(text, {assertive = false} = {}) {
  const target = region(assertive), said = make('p', {textContent: text})
  setTimeout(() => target.append(said), SETTLE_MS)
  setTimeout(() => said.remove(), SETTLE_MS + SAID_MS)
}

/** Shows a short message for some seconds where it hides no control, and has it said. */
export function toast(text) {
  const box = document.querySelector('.toasts') ?? document.body.appendChild(make('div', {className: 'toasts'}))
  const shown = make('div', {className: 'toast', textContent: text})
  // What is shown in a dialog must be in it, or it is behind it.
  const parent = document.querySelector('dialog:modal') ?? document.body
  if (box.parentElement !== parent) parent.append(box)
  box.ariaHidden = String(parent === document.body)            // it is read from the log, but not under a dialog
  box.append(shown)
  requestAnimationFrame(() => place(box, parent))              // when the page shows what has just been done
  announce(text)
  setTimeout(() => shown.remove(), TOAST_MS)
}

/** Moves the messages to the highest place where they are over no control; to the top if there is none. */
function place(box, parent) {
  box.style.translate = ''
  const {top, bottom} = box.getBoundingClientRect()
  const controls = [...parent.querySelectorAll(CONTROLS)]
    .map((each) => each.getBoundingClientRect())
    .filter((rect) => rect.width > 0 && rect.bottom > 0 && rect.top < innerHeight)
  const isFree = (by) => bottom + by <= innerHeight
    && controls.every((rect) => rect.bottom <= top + by || rect.top >= bottom + by)
  const free = [0, ...controls.map((rect) => rect.bottom + GAP_PX - top)].filter((by) => by >= 0 && isFree(by))
  if (free.length) box.style.translate = `0 ${Math.min(...free)}px`
}
