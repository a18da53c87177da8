// A song on one canvas: its waveform with a playhead, played with mouse and keyboard, and the line that is sung.
import { View, clock, extremes, lineAt } from "./ranges.js";
import { loadAnalysis } from "./sound_files.js";

export const HEIGHT = 84, RULER = 14; // pixels of the canvas
const BAR = 20, LINE = 18, GAP = 4;
const PLAYHEAD = "#f5b041", LOUDNESS = "#2dd4bf", PRESSED = "rgb(168, 85, 247)";
const QUIETEST = -45, LOUDEST = -3; // LUFS of the loudness curve
const TARGETS = [-14, -23]; // LUFS
const VIEWS = {
    en: { spectrogram: "Spectrogram", loudness: "Loudness curve (short-term)", failed: "The sound cannot be analysed" },
    zh: { spectrogram: "频谱图", loudness: "响度曲线（短期）", failed: "无法分析声音" },
    ja: { spectrogram: "スペクトログラム", loudness: "ラウドネス曲線（ショートターム）", failed: "音を分析できません" },
};
export const FONT = "font: 11px Inter, sans-serif; color: var(--input-text); white-space: nowrap; overflow: hidden; text-overflow: ellipsis";

let sounding = null; // the waveform that plays, one at a time

// Return the source of a song that a node reports: seconds, peaks in percent, and the file to play, if there is one.
export function sourceOf({ seconds, low, high }, url) {
    const scaled = values => Float32Array.from(values, value => value / 100);
    return { duration: seconds, peaks: low.length ? { low: scaled(low), high: scaled(high) } : null, url };
}

export function button(text, label, onClick) {
    const element = document.createElement("button");
    element.textContent = text;
    element.type = "button";
    element.title = element.ariaLabel = label;
    element.style.cssText = "border: 0; border-radius: 4px; padding: 0 7px; height: 20px; cursor: pointer; flex: none;" +
        "background: var(--comfy-input-bg); color: var(--input-text); font: 11px Inter, sans-serif";
    element.addEventListener("click", onClick);
    return element;
}

// Return a button that stays pressed.
export function toggle(text, label, onClick) {
    const element = button(text, label, onClick);
    element.press = isPressed => {
        element.ariaPressed = isPressed;
        element.style.boxShadow = isPressed ? `inset 0 0 0 2px ${PRESSED}` : "none";
    };
    return element;
}

export class Waveform {
    // texts: {play, hint, empty}. locale: of the page.
    constructor(texts, locale) {
        this.texts = { ...(VIEWS[locale] ?? VIEWS.en), ...texts };
        this.shown = { spectrogram: false, loudness: false };
        this.analysis = null; // {picture, loudness, onsets}, once they are needed
        this.sections = []; // [seconds, label]
        this.lines = []; // [start, end, text]
        this.playhead = 0;
        this.source = null; // {peaks, duration, url}
        this.message = texts.empty;
        this.view = new View(0, 1);
        this.player = new Audio();
        this.bars = []; // rows of controls below the canvas
        this.build();
    }

    build() {
        this.element = document.createElement("div");
        this.element.className = "as15-waveform";
        this.element.style.cssText = `display: flex; flex-direction: column; gap: ${GAP}px; width: 100%; box-sizing: border-box`;
        this.canvas = document.createElement("canvas");
        this.canvas.tabIndex = 0;
        this.canvas.title = this.texts.hint;
        this.canvas.style.cssText = `width: 100%; height: ${HEIGHT}px; display: block; touch-action: none; outline-offset: -1px; flex: none`;
        this.canvas.setAttribute("role", "application");
        this.canvas.ariaLabel = this.texts.hint;
        this.line = document.createElement("div");
        this.line.className = "as15-line";
        this.line.style.cssText = `${FONT}; font-size: 13px; line-height: ${LINE}px; height: ${LINE}px; text-align: center; flex: none; display: none`;
        this.time = document.createElement("span");
        this.time.style.cssText = FONT;
        this.playButton = button("▶", this.texts.play, () => this.togglePlay());
        this.bar = document.createElement("div");
        this.bar.style.cssText = `display: flex; gap: 6px; align-items: center; height: ${BAR}px; flex: none`;
        this.views = {
            spectrogram: toggle("▤", this.texts.spectrogram, () => this.show("spectrogram")),
            loudness: toggle("LU", this.texts.loudness, () => this.show("loudness")),
        };
        this.bar.append(this.playButton, ...Object.values(this.views), this.time);
        this.element.append(this.canvas, this.line, this.player);
        this.addBar(this.bar);
        for (const [name, listener] of Object.entries({ pointerdown: this.press, keydown: this.key, wheel: this.wheel }))
            this.canvas.addEventListener(name, listener.bind(this), { passive: false });
        for (const name of ["pointerdown", "mousedown", "dblclick", "contextmenu"]) // the node must not move
            this.element.addEventListener(name, event => event.stopPropagation());
        this.player.addEventListener("ended", () => this.draw());
        this.observer = new ResizeObserver(() => this.draw());
        this.observer.observe(this.canvas);
    }

    destroy() {
        this.observer.disconnect();
        this.player.pause();
        this.player.removeAttribute("src");
    }

    get height() { // pixels
        const rows = [this.line, ...this.bars].filter(row => row.style.display !== "none");
        return rows.reduce((sum, row) => sum + GAP + parseInt(row.style.height), HEIGHT);
    }

    addBar(element) {
        this.bars.push(element);
        this.element.append(element);
    }

    // -- what is shown -----------------------------------------------------------------------------------------------

    setSource(source) {
        this.source = source;
        if (this.player.dataset.url !== (source?.url ?? "")) {
            this.player.pause();
            this.player.dataset.url = source?.url ?? "";
            if (source?.url) this.player.src = source.url;
            else this.player.removeAttribute("src");
            this.playhead = 0;
            this.analysis = null;
            if (this.needsAnalysis) this.analyse();
        }
        this.view = new View(source?.duration ?? 0, this.view.width);
        this.message = source ? "" : this.texts.empty;
        this.draw();
    }

    setLyrics(sections, lines) {
        this.sections = sections;
        this.lines = lines;
        this.line.style.display = lines.length ? "block" : "none";
        this.draw();
    }

    show(name) {
        this.shown[name] = !this.shown[name];
        if (this.needsAnalysis) this.analyse();
        this.draw();
    }

    get needsAnalysis() {
        return this.shown.spectrogram || this.shown.loudness;
    }

    async analyse() {
        const url = this.source?.url;
        if (!url || this.analysis) return;
        const analysis = await loadAnalysis(url).catch(() => null);
        if (this.source?.url !== url) return; // another source was chosen
        this.analysis = analysis;
        if (!analysis) this.message = this.texts.failed;
        this.draw();
    }

    setMessage(message) {
        this.message = message;
        this.draw();
    }

    // -- mouse and keyboard ------------------------------------------------------------------------------------------

    xOf(event) {
        const box = this.canvas.getBoundingClientRect(); // scaled with the canvas of the graph
        return (event.clientX - box.left) / box.width * this.view.width;
    }

    press(event) {
        if (event.button !== 0 || !this.source) return;
        event.preventDefault();
        this.canvas.focus({ preventScroll: true });
        const move = event => this.seek(this.view.secondsAt(this.xOf(event)));
        move(event);
        this.track(event, move, () => {});
    }

    // Follow the mouse until its button is released.
    track(event, onMove, onRelease) {
        const release = () => {
            this.canvas.removeEventListener("pointermove", onMove);
            for (const name of ["pointerup", "pointercancel"]) this.canvas.removeEventListener(name, release);
            onRelease();
        };
        this.canvas.setPointerCapture(event.pointerId);
        this.canvas.addEventListener("pointermove", onMove);
        for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, release);
    }

    wheel(event) {
        if (!this.source || document.activeElement !== this.canvas) return; // the graph zooms
        event.preventDefault();
        event.stopPropagation();
        if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.view.pan(event.deltaX || event.deltaY);
        else this.view.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.xOf(event));
        this.draw();
    }

    key(event) {
        if (!this.source || !this.act(event)) return; // the graph's own keys
        event.preventDefault();
        event.stopPropagation();
        this.draw();
    }

    // Return true for a key with a meaning.
    act({ key }) {
        const direction = { ArrowLeft: -1, ArrowRight: 1 }[key];
        if (key === " ") this.togglePlay();
        else if (direction) this.seek(this.playhead + direction);
        else if (key === "Home") this.seek(0);
        else if (key === "End") this.seek(this.source.duration);
        else if (key === "+" || key === "-") this.view.zoom(key === "+" ? 0.5 : 2, this.view.xOf(this.playhead));
        else return false;
        return true;
    }

    // -- sound -------------------------------------------------------------------------------------------------------

    get plays() {
        return !this.player.paused && !this.player.ended;
    }

    seek(seconds) {
        this.playhead = Math.min(Math.max(0, seconds), this.source.duration);
        if (this.source.url) this.player.currentTime = this.playhead;
        this.draw();
    }

    async togglePlay() {
        if (!this.source?.url) return;
        if (this.plays) {
            this.player.pause();
        } else {
            if (this.player.ended || this.playhead >= this.source.duration) this.seek(0);
            if (sounding !== this) sounding?.player.pause();
            sounding = this;
            await this.player.play().catch(() => {}); // a browser may refuse sound
            this.follow();
        }
        this.draw();
    }

    follow() {
        if (!this.plays || !this.canvas.isConnected) {
            this.player.pause();
            return this.draw();
        }
        this.playhead = this.player.currentTime;
        this.draw();
        requestAnimationFrame(() => this.follow());
    }

    // -- drawing -----------------------------------------------------------------------------------------------------

    draw() {
        this.showState();
        const width = this.canvas.clientWidth;
        if (!width) return;
        const scale = window.devicePixelRatio || 1, context = this.canvas.getContext("2d");
        if (this.canvas.width !== Math.round(width * scale)) this.canvas.width = Math.round(width * scale);
        if (this.canvas.height !== Math.round(HEIGHT * scale)) this.canvas.height = Math.round(HEIGHT * scale);
        this.view.width = width;
        const style = getComputedStyle(this.element), of = name => style.getPropertyValue(name).trim();
        const text = of("--input-text") || "#ddd", back = of("--comfy-input-bg") || "#222";
        context.setTransform(scale, 0, 0, scale, 0, 0);
        context.globalAlpha = 1;
        context.fillStyle = back;
        context.fillRect(0, 0, width, HEIGHT);
        if (this.source) {
            if (this.shown.spectrogram && this.analysis) this.drawSpectrogram(context);
            else this.drawPeaks(context, text);
            if (this.shown.loudness && this.analysis) this.drawLoudness(context, text);
            this.drawRanges?.(context, text);
            this.drawLyrics(context, text);
            this.drawRuler(context, text);
            this.drawPlayhead(context);
        }
        if (this.message) {
            context.fillStyle = text;
            context.font = "11px Inter, sans-serif";
            context.textAlign = "center";
            context.fillText(this.message, width / 2, HEIGHT / 2, width - 10);
        }
    }

    // The elements around the canvas.
    showState() {
        this.playButton.textContent = this.plays ? "❚❚" : "▶";
        this.playButton.disabled = !this.source?.url;
        for (const [name, element] of Object.entries(this.views)) {
            element.disabled = this.playButton.disabled;
            element.press(this.shown[name]);
        }
        for (const each of [this.playButton, ...Object.values(this.views)]) each.style.opacity = each.disabled ? 0.4 : 1;
        const loudness = this.shown.loudness && this.analysis?.loudness;
        const level = loudness?.[Math.min(loudness.length - 1, Math.floor(this.playhead * 10))];
        this.time.textContent = this.source
            ? `${clock(this.playhead)} / ${clock(this.source.duration)}${level ? `  ·  ${level.toFixed(1)} LUFS` : ""}` : "";
        const { text, isSung } = lineAt(this.lines, this.playhead);
        this.line.textContent = text;
        this.line.style.opacity = isSung ? 1 : 0.5;
    }

    drawPeaks(context, colour) {
        const { peaks, duration } = this.source;
        if (!peaks) return;
        const middle = (HEIGHT - RULER) / 2, height = middle - 2;
        context.fillStyle = colour;
        context.globalAlpha = 0.75;
        for (let x = 0; x < this.view.width; x++) {
            const [low, high] = extremes(peaks, duration, this.view.secondsAt(x), this.view.secondsAt(x + 1));
            const top = Math.max(-1, Math.min(1, high)), bottom = Math.max(-1, Math.min(1, low));
            context.fillRect(x, middle - top * height, 1, Math.max(1, (top - bottom) * height));
        }
        context.globalAlpha = 1;
    }

    drawSpectrogram(context) {
        const { picture } = this.analysis, columns = picture.width / this.source.duration;
        context.drawImage(picture, this.view.start * columns, 0, this.view.seconds * columns, picture.height,
            0, 0, this.view.width, HEIGHT - RULER);
    }

    drawLoudness(context, text) {
        const height = HEIGHT - RULER, { loudness } = this.analysis;
        const yOf = level => height * (1 - (Math.min(LOUDEST, Math.max(QUIETEST, level)) - QUIETEST) / (LOUDEST - QUIETEST));
        context.font = "9px Inter, sans-serif";
        context.textAlign = "right";
        context.fillStyle = text;
        for (const target of TARGETS) {
            context.globalAlpha = 0.35;
            context.fillRect(0, yOf(target), this.view.width, 1);
            context.globalAlpha = 0.8;
            context.fillText(`${target}`, this.view.width - 3, yOf(target) - 2);
        }
        context.globalAlpha = 1;
        for (const [colour, width] of [["rgba(0, 0, 0, 0.6)", 4], [LOUDNESS, 2]]) { // readable on bright and dark
            context.strokeStyle = colour;
            context.lineWidth = width;
            context.beginPath();
            loudness.forEach((level, i) => context.lineTo(this.view.xOf(i / 10), yOf(level)));
            context.stroke();
        }
    }

    drawRuler(context, colour) {
        context.fillStyle = colour;
        context.font = "9px Inter, sans-serif";
        const ticks = this.view.ticks, digits = ticks.some(seconds => seconds % 1) ? 1 : 0;
        for (const seconds of ticks) {
            const x = this.view.xOf(seconds);
            context.globalAlpha = 0.5;
            context.fillRect(x, HEIGHT - RULER, 1, 4);
            context.globalAlpha = 0.8;
            context.textAlign = x < 12 ? "left" : x > this.view.width - 12 ? "right" : "center";
            context.fillText(clock(seconds, digits), Math.min(Math.max(x, 3), this.view.width - 3), HEIGHT - 3);
        }
        context.globalAlpha = 1;
    }

    drawLyrics(context, colour) {
        context.fillStyle = colour;
        context.globalAlpha = 0.5;
        for (const seconds of this.lines.flatMap(([start, end]) => [start, end]))
            context.fillRect(this.view.xOf(seconds), HEIGHT - RULER - 6, 1, 6);
        context.globalAlpha = 0.9;
        context.font = "9px Inter, sans-serif";
        context.textAlign = "left";
        for (const [index, [seconds, label]] of this.sections.entries()) {
            const x = this.view.xOf(seconds), next = this.sections[index + 1]?.[0] ?? this.source.duration;
            const room = this.view.xOf(next) - x - 6;
            context.fillRect(x, 0, 1, HEIGHT - RULER);
            if (room > 12) context.fillText(label, x + 3, 9, room);
        }
        context.globalAlpha = 1;
    }

    drawPlayhead(context) {
        const x = this.view.xOf(this.playhead);
        context.fillStyle = PLAYHEAD;
        context.fillRect(x - 0.5, 0, 1.5, HEIGHT - RULER);
    }
}
