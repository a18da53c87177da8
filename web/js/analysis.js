// Spectrogram, loudness and beats of audio. It knows no page, and runs as a worker, so that the page stays smooth.

const SIZE = 2048, COLUMNS_PER_SECOND = 20, MOST_COLUMNS = 12000, ROWS = 96;
const LOWEST = 40, HIGHEST = 16000; // Hz
const QUIETEST = -95, LOUDEST = -15; // dB of a band
const HOPS_PER_SECOND = 10, SHORT_TERM_HOPS = 30; // 3 seconds, as in EBU Tech 3341
const OFFSET = -0.691; // LUFS, as in BS.1770
const SILENT = -70; // LUFS
const ONSETS_PER_SECOND = 100, PHASES = 200;

const turns = new Map(); // by count: cosine and sine of the parts of half a turn

function turnsOf(count) {
    if (!turns.has(count)) {
        const angles = Array.from({ length: count / 2 }, (_, k) => -2 * Math.PI * k / count);
        turns.set(count, [Float64Array.from(angles, Math.cos), Float64Array.from(angles, Math.sin)]);
    }
    return turns.get(count);
}

// Transform complex numbers in place. Their count is a power of two.
export function fft(real, imaginary) {
    const count = real.length, [cosines, sines] = turnsOf(count);
    for (let i = 1, j = 0; i < count; i++) { // in the order of reversed bits
        let bit = count >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        if (i >= j) continue;
        [real[i], real[j]] = [real[j], real[i]];
        [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
    for (let half = 1; half < count; half *= 2) {
        for (let k = 0; k < half; k++) {
            const cos = cosines[k * count / 2 / half], sin = sines[k * count / 2 / half];
            for (let a = k; a < count; a += 2 * half) {
                const b = a + half, x = real[b] * cos - imaginary[b] * sin, y = real[b] * sin + imaginary[b] * cos;
                real[b] = real[a] - x;
                imaginary[b] = imaginary[a] - y;
                real[a] += x;
                imaginary[a] += y;
            }
        }
    }
}

export function monoOf(channels) {
    if (channels.length === 1) return channels[0];
    const [left, right] = channels, mono = new Float32Array(left.length);
    for (let i = 0; i < mono.length; i++) mono[i] = (left[i] + right[i]) / 2; // faster than Float32Array.from
    return mono;
}

const melOf = frequency => Math.log1p(frequency / 700), frequencyOf = mel => 700 * Math.expm1(mel);

// The edges of the rows in bins of the transform, spaced as the ear hears pitch.
function edgesOf(rate) {
    const low = melOf(LOWEST), high = melOf(Math.min(HIGHEST, rate / 2));
    return Array.from({ length: ROWS + 1 }, (_, row) => frequencyOf(low + (high - low) * row / ROWS) / rate * SIZE);
}

// Return levels from 0 to 255 of a mono sound, row by row, the highest frequencies first, as a picture has them.
export function spectrogramOf(mono, rate) {
    const columns = Math.max(1, Math.min(MOST_COLUMNS, Math.ceil(mono.length / rate * COLUMNS_PER_SECOND)));
    const levels = new Uint8ClampedArray(columns * ROWS), edges = edgesOf(rate);
    const window = Float64Array.from({ length: SIZE }, (_, i) => (1 - Math.cos(2 * Math.PI * i / SIZE)) / SIZE * 2);
    const real = new Float64Array(SIZE), imaginary = new Float64Array(SIZE);
    for (let column = 0; column < columns; column++) {
        const from = Math.round((column + 0.5) * mono.length / columns) - SIZE / 2;
        for (let i = 0; i < SIZE; i++) real[i] = (mono[from + i] ?? 0) * window[i];
        imaginary.fill(0);
        fft(real, imaginary);
        for (let row = 0; row < ROWS; row++) {
            const first = Math.floor(edges[row]), last = Math.max(first + 1, Math.ceil(edges[row + 1]));
            let power = 0;
            for (let bin = first; bin < last; bin++) power = Math.max(power, real[bin] ** 2 + imaginary[bin] ** 2);
            const level = 10 * Math.log10(power + 1e-20);
            levels[(ROWS - 1 - row) * columns + column] = (level - QUIETEST) / (LOUDEST - QUIETEST) * 255;
        }
    }
    return { columns, rows: ROWS, levels };
}

// The two filters of BS.1770 at any sample rate, as [b0, b1, b2, a1, a2].
function weightingOf(rate) {
    const gain = 10 ** (3.999843853973347 / 20), bandwidth = gain ** 0.4996667741545416;
    const at = (frequency, quality) => { const k = Math.tan(Math.PI * frequency / rate); return [k * k, k / quality]; };
    const [s, t] = at(1681.974450955533, 0.7071752369554196), [u, v] = at(38.13547087602444, 0.5003270373238773);
    const shelf = [gain + bandwidth * t + s, 2 * (s - gain), gain - bandwidth * t + s, 2 * (s - 1), 1 - t + s];
    return [shelf.map(value => value / (1 + t + s)), [1, -2, 1, 2 * (u - 1) / (1 + v + u), (1 - v + u) / (1 + v + u)]];
}

// Return the short-term loudness in LUFS around each tenth of a second.
export function loudnessOf(channels, rate) {
    const hop = Math.round(rate / HOPS_PER_SECOND), hops = Math.floor(channels[0].length / hop);
    const powers = new Float64Array(hops);
    for (const samples of channels) {
        const [[b0, b1, b2, a1, a2], [c0, c1, c2, d1, d2]] = weightingOf(rate);
        let p = 0, q = 0, r = 0, s = 0; // the states of both filters
        for (let h = 0, i = 0; h < hops; h++) {
            let sum = 0;
            for (const end = i + hop; i < end; i++) {
                const x = samples[i], y = b0 * x + p;
                p = b1 * x - a1 * y + q;
                q = b2 * x - a2 * y;
                const z = c0 * y + r;
                r = c1 * y - d1 * z + s;
                s = c2 * y - d2 * z;
                sum += z * z;
            }
            powers[h] += sum / hop;
        }
    }
    return Float32Array.from(powers, (_, h) => {
        const part = powers.subarray(Math.max(0, h - SHORT_TERM_HOPS / 2), h + SHORT_TERM_HOPS / 2);
        const mean = part.reduce((sum, power) => sum + power, 0) / part.length;
        return Math.max(SILENT, OFFSET + 10 * Math.log10(mean + 1e-20));
    });
}

// Return how much louder each hundredth of a second is than the one before.
export function onsetsOf(mono, rate) {
    const hop = rate / ONSETS_PER_SECOND, count = Math.floor(mono.length / hop);
    let before = 0;
    return Float32Array.from({ length: count }, (_, frame) => {
        let energy = 0;
        for (let i = Math.max(1, Math.round(frame * hop)); i < Math.round((frame + 1) * hop); i++)
            energy += (mono[i] - mono[i - 1]) ** 2; // differences weigh high frequencies, where drums and plucks start
        const level = Math.log1p(1e4 * energy / hop), rise = Math.max(0, level - before);
        before = level;
        return frame ? rise : 0;
    });
}

// Return the seconds of the first beat of a tempo: the place of a regular grid on which most onsets lie.
export function firstBeatOf(onsets, bpm) {
    const beat = 60 / bpm * ONSETS_PER_SECOND;
    let best = 0, most = 0;
    for (let phase = 0; phase < PHASES; phase++) {
        let sum = 0;
        for (let place = phase / PHASES * beat; place < onsets.length; place += beat) {
            const frame = Math.floor(place), share = place - frame;
            sum += (onsets[frame] ?? 0) * (1 - share) + (onsets[frame + 1] ?? 0) * share;
        }
        if (sum > most) [best, most] = [phase, sum];
    }
    return best / PHASES * 60 / bpm;
}

export function analyse(channels, rate) {
    const mono = monoOf(channels);
    return { spectrogram: spectrogramOf(mono, rate), loudness: loudnessOf(channels, rate), onsets: onsetsOf(mono, rate) };
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope)
    self.onmessage = ({ data: { channels, rate } }) => self.postMessage(analyse(channels, rate));
