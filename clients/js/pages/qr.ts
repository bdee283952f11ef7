import { encode } from 'uqr'

const SVG = 'http://www.w3.org/2000/svg'
/** The light margin that readers need, in modules. */
const QUIET = 4

/**
 * Makes an image of a QR code, black on white in dark mode too. It has no size of its own: style it by CSS.
 *
 * The caller sets `aria-label`. Throws an error if the text is too long, which is about 2,300 bytes.
 */
export function qrSvg(text: string): SVGSVGElement {
  const { size, data } = encode(text, { ecc: 'M', border: 0 })
  // One rectangle for each horizontal run of dark modules.
  const dark = data.map((row, y) => {
    let path = ''
    for (let x = 0, end = 0; x < size; x = end + 1) {
      for (end = x; row[end]; end++);
      if (end > x) path += `M${x} ${y}h${end - x}v1h${x - end}z`
    }
    return path
  })
  const svg = document.createElementNS(SVG, 'svg')
  const whole = size + 2 * QUIET
  svg.setAttribute('viewBox', `${-QUIET} ${-QUIET} ${whole} ${whole}`)
  svg.setAttribute('role', 'img')
  svg.setAttribute('shape-rendering', 'crispEdges')
  svg.append(
    shape(`M${-QUIET} ${-QUIET}h${whole}v${whole}h${-whole}z`, '#fff'),
    shape(dark.join(''), '#000'),
  )
  return svg
}

function shape(path: string, fill: string): SVGPathElement {
  const element = document.createElementNS(SVG, 'path')
  element.setAttribute('d', path)
  element.setAttribute('fill', fill)
  return element
}
