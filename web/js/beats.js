// The grid of beats of a song. It knows no page. A grid is {bpm, first, meter}: the seconds of the first beat, and the
// beats of a bar.

const NARROWEST = 7; // pixels between two lines

export const SLOWEST = 20, FASTEST = 400; // BPM

export function isTempo(bpm) {
    return Number.isFinite(bpm) && bpm >= SLOWEST && bpm <= FASTEST;
}

// Return the beats between two lines: 1, or as many bars as there is space for.
export function strideOf({ bpm, meter }, pixelsPerSecond) {
    const pixels = 60 / bpm * pixelsPerSecond;
    let stride = 1;
    while (stride * pixels < NARROWEST) stride = stride === 1 ? meter : 2 * stride;
    return stride;
}

// Return the nearest line of a grid.
export function snapToBeat(seconds, grid, pixelsPerSecond) {
    const step = 60 / grid.bpm * strideOf(grid, pixelsPerSecond);
    return Math.max(0, grid.first + Math.round((seconds - grid.first) / step) * step);
}

// Return the lines between two moments as [seconds, true for the start of a bar].
export function linesOf(grid, start, end, pixelsPerSecond) {
    const beat = 60 / grid.bpm, stride = strideOf(grid, pixelsPerSecond), lines = [];
    const from = Math.max(start, 0);
    for (let index = Math.ceil((from - grid.first) / beat / stride - 1e-6) * stride; ; index += stride) {
        const seconds = grid.first + index * beat;
        if (seconds > end) return lines;
        lines.push([seconds, index % grid.meter === 0]);
    }
}

// Return the beats of a bar of a time signature such as "3/4", 4 if it is unknown. 6/8 has two beats.
export function meterOf(signature) {
    const match = /^(\d+)(?:\/(\d+))?$/.exec(`${signature ?? ""}`);
    const count = match ? Number(match[1]) : 4;
    return match?.[2] === "8" && count % 3 === 0 && count > 3 ? count / 3 : Math.max(1, count);
}
