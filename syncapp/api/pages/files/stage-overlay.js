// The parameters of an overlay, which a video mixer such as OBS lays over its picture. What is not valid is ignored.

import {PARTS} from './stage-model.js'

const ALIGN = ['left', 'center', 'right'], VALIGN = ['top', 'middle', 'bottom']
const FONTS = {
  sans: 'var(--font)',
  serif: 'Georgia, "Times New Roman", "DejaVu Serif", serif',
  mono: 'var(--mono)',
}
const COLOUR = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i
// The message is for the speaker, so the audience sees it only if asked for.
const SHOWN = ['time', 'title', 'bar']

/** What the address asks for: background, show, align, valign, size, color, font. Null without `overlay=1`. */
export function readOverlay(search) {
  const query = new URLSearchParams(search)
  if (query.get('overlay') !== '1') return null
  const oneOf = (name, values, otherwise) => (values.includes(query.get(name)) ? query.get(name) : otherwise)
  const colour = (name) => (COLOUR.test(query.get(name) ?? '') ? query.get(name) : null)
  const size = /^\d{1,2}(\.\d)?$/.test(query.get('size') ?? '') ? Number(query.get('size')) : NaN
  const parts = (query.get('show') ?? '').split(',').filter((part) => part === 'time' || PARTS.includes(part))
  return {
    background: colour('background') ?? 'transparent',
    show: new Set(parts.length ? parts : SHOWN),
    align: oneOf('align', ALIGN, 'center'),
    valign: oneOf('valign', VALIGN, 'middle'),
    size: size >= 2 && size <= 90 ? size : 25,
    color: colour('color'),
    font: FONTS[oneOf('font', Object.keys(FONTS), 'sans')],
  }
}

/** Makes the page an overlay. */
export function applyOverlay(root, overlay) {
  const page = document.documentElement
  page.classList.add('overlay')
  page.classList.toggle('clear', overlay.background === 'transparent')
  page.style.setProperty('--overlay-background', overlay.background)
  root.dataset.align = overlay.align
  root.dataset.valign = overlay.valign
  root.style.setProperty('--overlay-size', `${overlay.size}vh`)
  root.style.fontFamily = overlay.font
  if (overlay.color) {
    root.classList.add('one-colour')
    root.style.setProperty('--overlay-color', overlay.color)
  }
}
