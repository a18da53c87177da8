// The logic of a waveform: seconds and pixels, ranges and text, peaks. It knows no page.
// A range is {start, end} in seconds. An end of null is the end of the song.

const TIME = String.raw`((?:\d+:)?\d+(?:\.\d+)?)?`;
const RANGE = new RegExp(String.raw`^${TIME}\s*(?:-|–|to)\s*${TIME}$`);
const PLACE = /^(?:\d+:)?\d+(?:\.\d+)?$/;
const BETWEEN = /[,;，；、\n]/;
const STEPS = [0.1, 0.5, 1, 5, 10, 30, 60]; // seconds that a dragged edge snaps to, and of the ruler
const SNAP_PIXELS = 4, TICK_PIXELS = 60;
const NARROWEST_VIEW = 0.5; // seconds
export const SHORTEST = 0.1; // seconds of a range

export const round = seconds => Math.round(seconds * 100) / 100;

function parseSeconds(time) {
    const parts = time.split(":").map(Number);
    return parts.length === 2 ? 60 * parts[0] + parts[1] : parts[0];
}

// Return the ranges of a text such as "10-15, 1:20-", or null if it is none.
export function parseRanges(text) {
    const ranges = [];
    for (const part of text.split(BETWEEN).map(part => part.trim()).filter(Boolean)) {
        const match = RANGE.exec(part);
        if (!match || (match[1] === undefined && match[2] === undefined)) return null;
        const start = parseSeconds(match[1] ?? "0"), end = match[2] === undefined ? null : parseSeconds(match[2]);
        if (end !== null && end <= start) return null;
        ranges.push({ start, end });
    }
    return ranges;
}

export function formatRanges(ranges) {
    return ranges.map(({ start, end }) => `${round(start)}-${end === null ? "" : round(end)}`).join(", ");
}

// The widgets start, end and more_ranges as ranges, or null if their text is none.
export function rangesOf({ start, end, more_ranges }) {
    const more = parseRanges(more_ranges);
    if (!more || (end && end <= start)) return null;
    return [{ start, end: end || null }, ...more];
}

// The inverse: the first range in time has widgets of its own.
export function valuesOf(ranges) {
    const [{ start, end }, ...more] = inOrder(ranges);
    return { start: round(start), end: end === null ? 0 : round(end), more_ranges: formatRanges(more) };
}

const SECONDS = ["start", "end", "more_ranges"];

// How nodes keep ranges in widgets: read returns null for a text that is no range. A node has `least` to `most` ranges;
// an open one lasts to the end of the song.
export const KINDS = {
    AS15_Repaint: { fields: SECONDS, least: 1, most: Infinity, open: false, read: rangesOf, write: valuesOf },
    AS15_Stems: {
        fields: SECONDS, least: 0, most: Infinity, open: false,
        read: values => values.start || values.end ? rangesOf(values) : parseRanges(values.more_ranges),
        write: ranges => { // start and end, both 0, are no range here
            const [first] = inOrder(ranges);
            if (first && (first.start || first.end !== null)) return valuesOf(ranges);
            return { start: 0, end: 0, more_ranges: formatRanges(inOrder(ranges)) };
        },
    },
    AS15_Timbre: { // the part of the reference to use
        fields: ["start", "end"], least: 0, most: 1, open: false,
        read: ({ start, end }) => start || end ? rangesOf({ start, end, more_ranges: "" }) : [],
        write: ([first]) => ({ start: first ? round(first.start) : 0, end: first?.end ? round(first.end) : 0 }),
    },
    AS15_Extend: { // the part behind the place from which the song continues
        fields: ["where"], least: 0, most: 1, open: true,
        read({ where }) {
            if (!where.trim()) return [];
            const start = PLACE.test(where.trim()) ? parseSeconds(where.trim()) : parseRanges(where)?.at(-1)?.end;
            return start === undefined ? null : start === null ? [] : [{ start, end: null }];
        },
        write: ([first]) => ({ where: first ? `${round(first.start)}` : "" }),
    },
};

export function inOrder(ranges) {
    return [...ranges].sort((a, b) => a.start - b.start || (a.end ?? Infinity) - (b.end ?? Infinity));
}

export function clock(seconds, digits = 1) {
    const scale = 10 ** digits, whole = Math.round(Math.max(0, seconds) * scale) / scale;
    const minutes = Math.floor(whole / 60);
    return `${minutes}:${(whole - 60 * minutes).toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}`;
}

export function snap(seconds, step) {
    return step ? round(Math.round(seconds / step) * step) : round(seconds);
}

// Return the nearest of these moments within `reach` pixels, or null.
export function nearest(moments, seconds, view, reach = 6) {
    let best = null, least = reach;
    for (const moment of moments) {
        const distance = Math.abs(view.xOf(moment) - view.xOf(seconds));
        if (distance <= least) [best, least] = [moment, distance];
    }
    return best;
}

// Return the line that is sung at a moment, or the one that follows.
export function lineAt(lines, seconds) {
    const line = lines.find(([, end]) => seconds < end);
    return line ? { text: line[2], isSung: line[0] <= seconds } : { text: "", isSung: false };
}

// The visible part of a song, `width` pixels wide.
export class View {
    constructor(duration, width) {
        this.duration = duration;
        this.width = width;
        this.start = 0;
        this.end = duration;
    }

    get seconds() {
        return this.end - this.start;
    }

    xOf(seconds) {
        return (seconds - this.start) / this.seconds * this.width;
    }

    secondsAt(x) {
        return Math.min(this.duration, Math.max(0, this.start + x / this.width * this.seconds));
    }

    // Show `factor` times as many seconds, with those at `x` in place.
    zoom(factor, x) {
        const fixed = this.secondsAt(x);
        const seconds = Math.min(this.duration, Math.max(Math.min(NARROWEST_VIEW, this.duration), this.seconds * factor));
        this.show(fixed - x / this.width * seconds, seconds);
    }

    pan(pixels) {
        this.show(this.start + pixels / this.width * this.seconds, this.seconds);
    }

    show(start, seconds) {
        this.start = Math.min(Math.max(0, start), this.duration - seconds);
        this.end = this.start + seconds;
    }

    step(pixels) {
        return STEPS.find(step => step / this.seconds * this.width >= pixels) ?? STEPS.at(-1);
    }

    get snapStep() {
        return this.step(SNAP_PIXELS);
    }

    get ticks() {
        const step = this.step(TICK_PIXELS), first = Math.ceil(this.start / step - 1e-6), ticks = [];
        for (let i = first; i * step <= this.end + 1e-6; i++) ticks.push(round(i * step));
        return ticks;
    }
}

// What is at `x`: {index, part} with the part "start", "end" or "inside", or null.
export function hit(ranges, view, x, reach = 6) {
    let best = null, nearest = reach;
    for (const [index, { start, end }] of ranges.entries())
        for (const [part, seconds] of [["start", start], ["end", end ?? view.duration]]) {
            const distance = Math.abs(view.xOf(seconds) - x);
            if (distance <= nearest) [best, nearest] = [{ index, part }, distance];
        }
    if (best) return best;
    const seconds = view.secondsAt(x);
    const index = ranges.findLastIndex(({ start, end }) => start <= seconds && seconds <= (end ?? view.duration));
    return index < 0 ? null : { index, part: "inside" };
}

// A range between two moments. Near its end, the song may be a few samples shorter, so such a range is open.
export function between(a, b, duration) {
    let start = Math.max(0, Math.min(a, b)), end = Math.min(duration, Math.max(a, b));
    if (end - start < SHORTEST) [start, end] = [Math.max(0, Math.min(start, duration - SHORTEST)), start + SHORTEST];
    return { start: round(start), end: end > duration - SHORTEST / 2 ? null : round(end) };
}

export function withEdge({ start, end }, part, seconds, duration) {
    if (part === "start") return between(Math.min(seconds, (end ?? duration) - SHORTEST), end ?? duration, duration);
    return between(start, Math.max(seconds, start + SHORTEST), duration);
}

export function movedTo({ start, end }, seconds, duration) {
    const length = (end ?? duration) - start, first = Math.min(Math.max(0, seconds), duration - length);
    return between(first, first + length, duration);
}

// The lowest and highest sample of each of `count` parts, of all channels.
export function peaksOf(channels, count) {
    const length = channels[0]?.length ?? 0, parts = Math.max(1, Math.min(count, length));
    const low = new Float32Array(parts), high = new Float32Array(parts);
    for (let part = 0; part < parts; part++) {
        const from = Math.floor(part * length / parts), to = Math.max(from + 1, Math.floor((part + 1) * length / parts));
        let least = Infinity, most = -Infinity;
        for (const samples of channels)
            for (let i = from; i < to && i < length; i++) {
                const sample = samples[i];
                if (sample < least) least = sample;
                if (sample > most) most = sample;
            }
        low[part] = least === Infinity ? 0 : least;
        high[part] = most === -Infinity ? 0 : most;
    }
    return { low, high };
}

// The extremes of the seconds from `a` to `b`, of peaks that cover the whole song.
export function extremes({ low, high }, duration, a, b) {
    const parts = low.length, from = Math.min(parts - 1, Math.max(0, Math.floor(a / duration * parts)));
    const to = Math.min(parts, Math.max(from + 1, Math.ceil(b / duration * parts)));
    let least = Infinity, most = -Infinity;
    for (let i = from; i < to; i++) {
        if (low[i] < least) least = low[i];
        if (high[i] > most) most = high[i];
    }
    return [least, most];
}
