// A waveform on which ranges are drawn, moved and removed, with mouse and keyboard.
import { linesOf, snapToBeat } from "./beats.js";
import { between, formatRanges, hit, inOrder, movedTo, nearest, snap, withEdge } from "./ranges.js";
import { HEIGHT, RULER, Waveform, button } from "./waveform.js";

const CLICK = 3; // pixels that the mouse may move in a click
const RANGE = "168, 85, 247", DROPPED = "140, 140, 140";
const KEY_STEP = 0.1; // seconds

export class RangesWaveform extends Waveform {
    // texts: {play, remove, hint, empty}. limits: {least, most, open}, as in KINDS. onChange gets the ranges after each
    // change by the user, and null when the change is complete.
    constructor(texts, locale, limits, onChange) {
        super(texts, locale);
        this.limits = limits;
        this.onChange = onChange;
        this.ranges = [];
        this.selected = -1;
        this.locked = false; // true while other inputs set the ranges
        this.grid = null; // of beats, as in beats.js, or null to snap to seconds
        this.removeButton = button("✕", texts.remove, () => this.remove());
        this.playButton.after(this.removeButton);
        for (const [name, listener] of Object.entries({ pointermove: this.hover, dblclick: this.removeAt }))
            this.canvas.addEventListener(name, listener.bind(this));
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

    snapped(x, event) {
        const seconds = this.view.secondsAt(x);
        if (event.altKey) return snap(seconds, 0);
        const lines = this.lines.flatMap(([start, end]) => [start, end]);
        const moment = nearest([...lines, ...this.sections.map(([start]) => start)], seconds, this.view);
        return moment === null ? this.snappedToGrid(seconds) : snap(moment, 0);
    }

    snappedToGrid(seconds) {
        return this.grid ? snap(snapToBeat(seconds, this.grid, this.pixelsPerSecond), 0) : snap(seconds, this.view.snapStep);
    }

    get pixelsPerSecond() {
        return this.view.width / this.view.seconds;
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
                const start = event.altKey ? snap(range.start + delta, 0) : this.snappedToGrid(range.start + delta);
                const next = this.limits.open
                    ? { start: withEdge(range, "start", seconds, duration).start, end: null }
                    : found.part === "inside" ? movedTo(range, start, duration)
                    : withEdge(range, found.part, seconds, duration);
                this.change(before.with(found.index, next), found.index);
            }
        };
        this.track(event, move, () => {
            if (!moved) this.click(from, found);
            this.onChange(null); // the change is complete
        });
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

    // -- keyboard ----------------------------------------------------------------------------------------------------

    act(event) {
        const range = this.ranges[this.selected], { duration } = this.source;
        const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (event.key === "Delete" || event.key === "Backspace") this.remove();
        else if (event.key === "Enter" && !this.locked) {
            this.base = this.ranges;
            const ranges = this.add(this.playhead, this.playhead + 5);
            this.change(ranges, ranges.length - 1);
            this.onChange(null);
        } else if (direction && range && !this.locked) {
            const step = direction * (this.grid ? 60 / this.grid.bpm : KEY_STEP);
            const next = this.limits.open
                ? { start: withEdge(range, "start", range.start + step, duration).start, end: null }
                : event.shiftKey ? withEdge(range, "end", (range.end ?? duration) + step, duration)
                : movedTo(range, range.start + step, duration);
            this.change(this.ranges.with(this.selected, next), this.selected);
            this.onChange(null);
        } else return super.act(event);
        return true;
    }

    // -- drawing -----------------------------------------------------------------------------------------------------

    showState() {
        super.showState();
        this.removeButton.disabled = !this.canRemove(this.selected);
        this.removeButton.style.opacity = this.removeButton.disabled ? 0.4 : 1;
        this.time.textContent = [this.time.textContent, formatRanges(this.ranges)].filter(Boolean).join("  ·  ");
    }

    drawBeats(context, text) {
        context.fillStyle = text;
        for (const [seconds, isBar] of linesOf(this.grid, this.view.start, this.view.end, this.pixelsPerSecond)) {
            context.globalAlpha = isBar ? 0.5 : 0.2;
            context.fillRect(this.view.xOf(seconds) - 0.5, 0, 1, HEIGHT - RULER);
        }
        context.globalAlpha = 1;
    }

    drawRanges(context, text) {
        if (this.grid) this.drawBeats(context, text);
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
}
