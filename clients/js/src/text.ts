// Times as text.

/**
 * A time (ms) as text: "4:59", "0:09.3", "1:02:03", "−0:05"; "–:––" for null.
 *
 * up: the clock runs up. It is rounded down; one that runs down is rounded up, so it shows 0 only when nothing is left.
 * tenths: whether to show tenths of a second; by default in the last ten seconds of a clock that runs down.
 */
export function timeText(
  ms: number | null, { up = false, tenths = !up && ms! > 0 && ms! < 10_000 }: { up?: boolean; tenths?: boolean } = {},
): string {
  if (ms === null) return '–:––'
  const count = (up ? Math.floor : Math.ceil)(ms / (tenths ? 100 : 1000))
  const whole = Math.abs(count)
  const seconds = tenths ? Math.floor(whole / 10) : whole
  const two = (value: number) => String(Math.floor(value) % 60).padStart(2, '0')
  return (count < 0 ? '−' : '')
    + (seconds < 3600 ? Math.floor(seconds / 60) : `${Math.floor(seconds / 3600)}:${two(seconds / 60)}`)
    + `:${two(seconds)}` + (tenths ? `.${whole % 10}` : '')
}
