/**
 * A time (ms) as text: "4:59", "0:09.3", "1:02:03", "−0:05"; "–:––" for null.
 *
 * up: the clock runs up. It is rounded down; one that runs down is rounded up, so it shows 0 only when nothing is left.
 * tenths: whether to show tenths of a second; by default in the last ten seconds of a clock that runs down.
 */
export declare function timeText(ms: number | null, { up, tenths }?: {
    up?: boolean;
    tenths?: boolean;
}): string;
