// A waveform on one canvas, with a playhead and ranges that the mouse and the keyboard change.
import { View, between, clock, extremes, formatRanges, hit, inOrder, movedTo, nearest, peaksOf, snap, withEdge } from "./ranges.js";

const HEIGHT = 84, RULER = 14; // pixels
const PARTS_PER_SECOND = 60, MOST_PARTS = 36000; // of the peaks
const CLICK = 3; // pixels that the mouse may move in a click
const RANGE = "168, 85, 247", DROPPED = "140, 140, 140", PLAYHEAD = "#f5b041";
const KEY_STEP = 0.1; // seconds

// Return peaks and duration of an audio file.
export async function loadAudio(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    const decoder = new OfflineAudioContext(1, 1, 44100);
    const sound = await decoder.decodeAudioData(await response.arrayBuffer());
    const channels = [...Array(sound.numberOfChannels).keys()].map(index => sound.getChannelData(index));
    const count = Math.min(MOST_PARTS, Math.ceil(sound.duration * PARTS_PER_SECOND));
    return { peaks: peaksOf(channels, count), duration: sound.duration, url };
}

function button(text, label, onClick) {
    const element = document.createElement("button");
    element.textContent = text;
    element.type = "button";
    element.title = element.ariaLabel = label;
    element.style.cssText = "border: 0; border-radius: 4px; padding: 0 7px; height: 20px; cursor: pointer; flex: none;" +
        "background: var(--comfy-input-bg); color: var(--input-text); font: 11px Inter, sans-serif";
    element.addEventListener("click", onClick);
    return element;
}

export class Waveform {
    // texts: {play, remove, hint, empty}. limits: {least, most, open}, as in KINDS. onChange gets the ranges after each
    // change by the user, and null when the change is complete.
    constructor(texts, limits, onChange) {
        this.texts = texts;
        this.limits = limits;
        this.onChange = onChange;
        this.ranges = [];
        this.selected = -1;
        this.locked = false; // true while other inputs set the ranges
        this.sections = []; // [seconds, label]
        this.lines = []; // seconds where lines start and end
        this.playhead = 0;
        this.source = null; // {peaks, duration, url}
        this.message = texts.empty;
        this.view = new View(0, 1);
        this.player = new Audio();
        this.build();
    }

    build() {
        this.element = document.createElement("div");
        this.element.className = "as15-waveform";
        this.element.style.cssText = "display: flex; flex-direction: column; gap: 4px; width: 100%; box-sizing: border-box";
        this.canvas = document.createElement("canvas");
        this.canvas.tabIndex = 0;
        this.canvas.title = this.texts.hint;
        this.canvas.style.cssText = `width: 100%; height: ${HEIGHT}px; display: block; touch-action: none; outline-offset: -1px`;
        this.canvas.setAttribute("role", "application");
        this.canvas.ariaLabel = this.texts.hint;
        this.time = document.createElement("span");
        this.time.style.cssText = "font: 11px Inter, sans-serif; color: var(--input-text); white-space: nowrap; overflow: hidden;" +
            "text-overflow: ellipsis";
        this.playButton = button("▶", this.texts.play, () => this.togglePlay());
        this.removeButton = button("✕", this.texts.remove, () => this.remove());
        const bar = document.createElement("div");
        bar.style.cssText = "display: flex; gap: 6px; align-items: center; height: 20px";
        bar.append(this.playButton, this.removeButton, this.time);
        this.element.append(this.canvas, bar);
        for (const [name, listener] of Object.entries({
            pointerdown: this.press, pointermove: this.hover, dblclick: this.removeAt, keydown: this.key, wheel: this.wheel,
        })) this.canvas.addEventListener(name, listener.bind(this), { passive: false });
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

    // -- what is shown -----------------------------------------------------------------------------------------------

    setSource(source) {
        this.source = source;
        if (this.player.dataset.url !== (source?.url ?? "")) {
            this.player.pause();
            this.player.dataset.url = source?.url ?? "";
            if (source?.url) this.player.src = source.url;
            this.playhead = 0;
        }
        this.view = new View(source?.duration ?? 0, this.view.width);
        this.message = source ? "" : this.texts.empty;
        this.draw();
    }

    setLyrics(sections, lines) {
        this.sections = sections;
        this.lines = lines;
        this.draw();
    }

    setMessage(message) {
        this.message = message;
        this.draw();
    }

    setRanges(ranges, locked = false) {
        const kept = this.ranges[this.selected];
        this.ranges = inOrder(ranges ?? []);
        this.selected = kept ? this.ranges.findIndex(({ start, end }) => start === kept.start && end === kept.end) : -1;
        this.locked = locked;
        this.draw();
    }

    add(a, b) {
        const made = between(a, b, this.source.duration), range = this.limits.open ? { ...made, end: null } : made;
        return this.base.length < this.limits.most ? [...this.base, range] : [...this.base.slice(1), range];
    }

    change(ranges, selected) {
        const chosen = ranges[selected];
        this.ranges = inOrder(ranges);
        this.selected = this.ranges.indexOf(chosen);
        this.onChange(this.ranges);
        this.draw();
    }

    // -- mouse -------------------------------------------------------------------------------------------------------

    xOf(event) {
        const box = this.canvas.getBoundingClientRect(); // scaled with the canvas of the graph
        return (event.clientX - box.left) / box.width * this.view.width;
    }

    snapped(x, event) {
        const seconds = this.view.secondsAt(x);
        if (event.altKey) return snap(seconds, 0);
        const moment = nearest([...this.lines, ...this.sections.map(([start]) => start)], seconds, this.view);
        return moment === null ? snap(seconds, this.view.snapStep) : snap(moment, 0);
    }

    press(event) {
        if (event.button !== 0 || !this.source) return;
        event.preventDefault();
        this.canvas.focus({ preventScroll: true });
        const x = this.xOf(event), found = hit(this.ranges, this.view, x), { duration } = this.source;
        const before = this.base = this.ranges, from = this.view.secondsAt(x), anchor = this.snapped(x, event);
        let moved = false;
        const move = event => {
            const now = this.xOf(event);
            if (!moved && Math.abs(now - x) < CLICK) return;
            moved = true;
            if (this.locked) return;
            const seconds = this.snapped(now, event);
            if (!found) {
                const ranges = this.add(anchor, seconds);
                this.change(ranges, ranges.length - 1);
            } else {
                const range = before[found.index], delta = this.view.secondsAt(now) - from;
                const step = event.altKey ? 0 : this.view.snapStep;
                const next = this.limits.open
                    ? { start: withEdge(range, "start", seconds, duration).start, end: null }
                    : found.part === "inside" ? movedTo(range, snap(range.start + delta, step), duration)
                    : withEdge(range, found.part, seconds, duration);
                this.change(before.with(found.index, next), found.index);
            }
        };
        const release = () => {
            this.canvas.removeEventListener("pointermove", move);
            for (const name of ["pointerup", "pointercancel"]) this.canvas.removeEventListener(name, release);
            if (!moved) this.click(from, found);
            this.onChange(null); // the change is complete
        };
        this.canvas.setPointerCapture(event.pointerId);
        this.canvas.addEventListener("pointermove", move);
        for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, release);
    }

    click(seconds, found) {
        this.selected = found?.index ?? -1;
        this.seek(seconds);
    }

    hover(event) {
        if (!this.source || event.buttons) return;
        const found = this.locked ? null : hit(this.ranges, this.view, this.xOf(event));
        this.canvas.style.cursor = !found ? "crosshair" : found.part === "inside" ? "grab" : "ew-resize";
    }

    removeAt(event) {
        const found = this.source && hit(this.ranges, this.view, this.xOf(event));
        if (!found) return;
        event.preventDefault();
        this.remove(found.index);
    }

    canRemove(index) {
        return !this.locked && this.ranges.length > this.limits.least && Boolean(this.ranges[index]);
    }

    remove(index = this.selected) {
        if (!this.canRemove(index)) return;
        this.change(this.ranges.toSpliced(index, 1), -1);
        this.onChange(null);
    }

    wheel(event) {
        if (!this.source || document.activeElement !== this.canvas) return; // the graph zooms
        event.preventDefault();
        event.stopPropagation();
        if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.view.pan(event.deltaX || event.deltaY);
        else this.view.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.xOf(event));
        this.draw();
    }

    // -- keyboard ----------------------------------------------------------------------------------------------------

    key(event) {
        if (!this.source) return;
        const range = this.ranges[this.selected], { duration } = this.source;
        const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (event.key === " ") this.togglePlay();
        else if (event.key === "Delete" || event.key === "Backspace") this.remove();
        else if (event.key === "Enter" && !this.locked) {
            this.base = this.ranges;
            const ranges = this.add(this.playhead, this.playhead + 5);
            this.change(ranges, ranges.length - 1);
            this.onChange(null);
        } else if (direction && range && !this.locked) {
            const step = direction * KEY_STEP;
            const next = this.limits.open
                ? { start: withEdge(range, "start", range.start + step, duration).start, end: null }
                : event.shiftKey ? withEdge(range, "end", (range.end ?? duration) + step, duration)
                : movedTo(range, range.start + step, duration);
            this.change(this.ranges.with(this.selected, next), this.selected);
            this.onChange(null);
        } else if (direction) this.seek(this.playhead + direction);
        else if (event.key === "Home") this.seek(0);
        else if (event.key === "+" || event.key === "-") this.view.zoom(event.key === "+" ? 0.5 : 2, this.view.xOf(this.playhead));
        else return; // the graph's own keys
        event.preventDefault();
        event.stopPropagation();
        this.draw();
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
            this.drawPeaks(context, text);
            this.drawRanges(context, text);
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
        this.playButton.textContent = this.plays ? "❚❚" : "▶";
        this.playButton.disabled = !this.source?.url;
        this.removeButton.disabled = !this.canRemove(this.selected);
        for (const each of [this.playButton, this.removeButton]) each.style.opacity = each.disabled ? 0.4 : 1;
        const shown = this.source ? `${clock(this.playhead)} / ${clock(this.source.duration)}` : "";
        this.time.textContent = [shown, formatRanges(this.ranges)].filter(Boolean).join("  ·  ");
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

    drawRanges(context, text) {
        for (const [index, { start, end }] of this.ranges.entries()) {
            const left = this.view.xOf(start), right = this.view.xOf(end ?? this.source.duration);
            const chosen = index === this.selected && !this.locked;
            const colour = this.limits.open ? DROPPED : RANGE;
            context.fillStyle = `rgba(${colour}, ${chosen ? 0.5 : 0.32})`;
            context.fillRect(left, 0, right - left, HEIGHT - RULER);
            context.fillStyle = chosen ? text : `rgb(${colour})`;
            for (const x of [left, right - 2]) context.fillRect(x, 0, 2, HEIGHT - RULER);
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
        for (const seconds of this.lines) context.fillRect(this.view.xOf(seconds), HEIGHT - RULER - 6, 1, 6);
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
