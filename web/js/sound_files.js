// Audio files: their peaks, spectrogram, loudness and onsets.
import { peaksOf } from "./ranges.js";

const PARTS_PER_SECOND = 60, MOST_PARTS = 36000; // of the peaks
const KEPT = 6; // files
const COLOURS = [[8, 6, 18], [60, 15, 110], [150, 45, 125], [232, 85, 90], [253, 170, 105], [252, 250, 200]]; // of levels

// Return a function that remembers what it loaded for the last few URLs.
function remembering(load) {
    const loaded = new Map();
    return url => {
        if (!loaded.has(url)) {
            const loading = load(url);
            loading.catch(() => loaded.delete(url));
            loaded.set(url, loading);
            if (loaded.size > KEPT) loaded.delete(loaded.keys().next().value);
        }
        return loaded.get(url);
    };
}

async function decode(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    const decoder = new OfflineAudioContext(1, 1, 44100);
    const sound = await decoder.decodeAudioData(await response.arrayBuffer());
    const channels = [...Array(sound.numberOfChannels).keys()].map(index => sound.getChannelData(index));
    return { channels, duration: sound.duration, rate: sound.sampleRate };
}

// Return peaks and duration of an audio file.
export const loadAudio = remembering(async url => {
    const { channels, duration } = await decode(url);
    const count = Math.min(MOST_PARTS, Math.ceil(duration * PARTS_PER_SECOND));
    return { peaks: peaksOf(channels, count), duration, url };
});

// Return {picture, loudness, onsets} of an audio file, as analysis.js has them.
export const loadAnalysis = remembering(async url => {
    const { channels, rate } = await decode(url);
    const worker = new Worker(new URL("./analysis.js", import.meta.url), { type: "module" });
    try {
        const { spectrogram, ...rest } = await new Promise((resolve, reject) => {
            worker.onmessage = ({ data }) => resolve(data);
            worker.onerror = reject;
            worker.postMessage({ channels: channels.slice(0, 2), rate });
        });
        return { ...rest, picture: pictureOf(spectrogram) };
    } finally {
        worker.terminate();
    }
});

function colourOf(level) {
    const place = level / 255 * (COLOURS.length - 1), index = Math.min(COLOURS.length - 2, Math.floor(place));
    return COLOURS[index].map((from, i) => from + (COLOURS[index + 1][i] - from) * (place - index));
}

function pictureOf({ columns, rows, levels }) {
    const canvas = document.createElement("canvas"), pixels = new ImageData(columns, rows);
    [canvas.width, canvas.height] = [columns, rows];
    const bytes = Array.from({ length: 256 }, (_, level) => [...colourOf(level), 255]).flat();
    const colours = new Uint32Array(Uint8ClampedArray.from(bytes).buffer), whole = new Uint32Array(pixels.data.buffer);
    levels.forEach((level, i) => { whole[i] = colours[level]; });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
}
