// Compare Takes: all takes play at once and one is audible, so that switching has no gap.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { reporting, urlOfFile } from "./outputs.js";
import { clock, extremes } from "./ranges.js";
import { factorOf, nameOf, positionOf, shuffled } from "./takes.js";

const NODE = "AS15_CompareTakes";
const ROW = 34, BAR = 24, GAP = 4; // pixels
const NARROWEST = 320;
const SWITCH = 0.005; // seconds of the fade between two takes, which prevents clicks
const START = 0.05; // seconds until all takes start together
const PLAYHEAD = "#f5b041", WAVE = "168, 85, 247";
const TEXTS = {
    en: {
        play: "Play (Space)", keep: "Keep this one", kept: "Kept", hear: "Switch to take", empty: "Run once to compare the takes",
        loading: "Loading …", failed: "The takes cannot be loaded",
    },
    zh: {
        play: "播放（空格键）", keep: "保留这一版", kept: "已保留", hear: "切换到版本", empty: "运行一次即可比较各版本",
        loading: "正在加载……", failed: "无法加载各版本",
    },
    ja: {
        play: "再生（スペース）", keep: "これを残す", kept: "残すテイク", hear: "テイクに切り替え", empty: "一度実行すると比べられます",
        loading: "読み込み中…", failed: "テイクを読み込めません",
    },
};

function make(tag, style, parent) {
    const element = document.createElement(tag);
    element.style.cssText = style;
    parent?.append(element);
    return element;
}

class Player {
    constructor() {
        this.buffers = new Map(); // by URL
        this.offset = 0; // seconds of the playhead when it stands
    }

    get plays() {
        return Boolean(this.voices);
    }

    get position() {
        if (!this.plays) return this.offset;
        return positionOf(this.offset, this.context.currentTime - this.startedAt, this.seconds);
    }

    load(urls) {
        for (const url of this.buffers.keys()) if (!urls.includes(url)) this.buffers.delete(url);
        return Promise.all(urls.map(url => {
            if (!this.buffers.has(url)) {
                const loading = fetch(url).then(response => response.arrayBuffer()).then(data => this.context.decodeAudioData(data));
                loading.catch(() => this.buffers.delete(url));
                this.buffers.set(url, loading);
            }
            return this.buffers.get(url);
        }));
    }

    // levels: the factor of each take, 0 but for the audible one.
    async play(urls, levels, onEnd) {
        this.context ??= new AudioContext();
        await this.context.resume();
        const buffers = await this.load(urls);
        this.stop();
        this.seconds = Math.max(...buffers.map(({ duration }) => duration));
        if (this.offset >= this.seconds - 0.01) this.offset = 0;
        this.startedAt = this.context.currentTime + START;
        this.voices = buffers.map((buffer, i) => {
            const source = new AudioBufferSourceNode(this.context, { buffer });
            const gain = new GainNode(this.context, { gain: levels[i] });
            source.connect(gain).connect(this.context.destination);
            if (this.offset < buffer.duration) source.start(this.startedAt, this.offset);
            return { source, gain };
        });
        const longest = buffers.findIndex(({ duration }) => duration === this.seconds);
        this.voices[longest].source.onended = () => { this.stop(); onEnd(); };
    }

    stop() {
        if (!this.plays) return;
        this.offset = this.position;
        for (const { source } of this.voices) {
            source.onended = null;
            try { source.stop(); } catch { /* not started, because it is shorter than the playhead */ }
            source.disconnect();
        }
        this.voices = null;
    }

    setLevels(levels) {
        this.voices?.forEach(({ gain }, i) => gain.gain.setTargetAtTime(levels[i], this.context.currentTime, SWITCH));
    }

    close() {
        this.stop();
        this.context?.close();
        this.buffers.clear();
    }
}

class TakesWidget {
    constructor(node) {
        this.node = node;
        this.texts = TEXTS[app.extensionManager.setting.get("Comfy.Locale")] ?? TEXTS.en;
        this.player = new Player();
        this.takes = [];
        this.order = [];
        this.audible = 0; // index of the take
        this.revealed = true;
        this.build();
        const height = () => BAR + GAP + Math.max(1, this.takes.length) * (ROW + GAP);
        const options = { serialize: false, getMinHeight: height, getMaxHeight: height };
        this.widget = node.addDOMWidget("takes", "acestep_takes", this.element, options);
        this.widget.serialize = false; // neither saved in workflows nor sent as an input
        for (const name of ["keep", "blind"]) {
            const widget = this.find(name), before = widget.callback, own = this;
            widget.callback = function () {
                const result = before?.apply(this, arguments);
                own.arrange();
                return result;
            };
        }
        const before = node.onRemoved;
        node.onRemoved = (...inputs) => {
            before?.apply(node, inputs);
            this.player.close();
        };
        this.fit();
        this.draw();
    }

    find(name) {
        return this.node.widgets.find(widget => widget.name === name);
    }

    get seconds() {
        return Math.max(0, ...this.takes.map(take => take.seconds));
    }

    build() {
        const font = "font: 11px Inter, sans-serif; color: var(--input-text)";
        this.element = make("div", `display: flex; flex-direction: column; gap: ${GAP}px; width: 100%; box-sizing: border-box`);
        this.element.className = "as15-takes";
        this.element.tabIndex = 0;
        const bar = make("div", `display: flex; gap: 8px; align-items: center; height: ${BAR - GAP}px; flex: none`, this.element);
        this.playButton = this.button("▶", this.texts.play, () => this.toggle());
        bar.append(this.playButton);
        this.time = make("span", font, bar);
        this.rows = make("div", `display: flex; flex-direction: column; gap: ${GAP}px`, this.element);
        for (const name of ["pointerdown", "mousedown", "dblclick", "contextmenu"]) // the node must not move
            this.element.addEventListener(name, event => event.stopPropagation());
        this.element.addEventListener("keydown", event => this.key(event));
    }

    button(text, label, onClick) {
        const element = make("button", "border: 0; border-radius: 4px; padding: 0 8px; min-width: 26px; height: 20px; cursor: pointer;" +
            "flex: none; background: var(--comfy-input-bg); color: var(--input-text); font: 11px Inter, sans-serif");
        element.type = "button";
        element.textContent = text;
        element.title = element.ariaLabel = label;
        element.addEventListener("click", onClick);
        return element;
    }

    // -- takes -------------------------------------------------------------------------------------------------------

    report(takes) {
        const urls = takes.map(take => api.apiURL(urlOfFile(take)));
        const isNew = JSON.stringify(urls) !== JSON.stringify(this.urls);
        this.takes = takes;
        this.urls = urls;
        if (isNew) {
            this.player.stop();
            this.player.offset = 0;
            this.audible = 0;
            this.revealed = false;
            this.order = shuffled(takes.length);
        }
        this.arrange();
        this.fit();
    }

    get hidden() {
        return this.find("blind").value && !this.revealed;
    }

    // Build the rows, in their order or shuffled.
    arrange() {
        const order = this.hidden ? this.order : this.takes.map((_, i) => i);
        const kept = this.find("keep").value - 1;
        this.rows.replaceChildren(...order.map((take, place) => {
            const name = nameOf(place, take, this.hidden), row = make("div", `display: flex; gap: 6px; align-items: center; height: ${ROW}px`);
            row.dataset.take = take;
            const hear = this.button(name, `${this.texts.hear} ${name}`, () => this.switchTo(take));
            const canvas = make("canvas", `flex: 1; min-width: 0; height: ${ROW}px; cursor: pointer`);
            canvas.addEventListener("click", event => this.seek(event, canvas, take));
            const isKept = !this.hidden && take === kept;
            const keep = this.button(isKept ? "✓" : "○", isKept ? this.texts.kept : this.texts.keep, () => this.keep(take));
            keep.className = "as15-keep";
            keep.ariaPressed = isKept;
            row.append(hear, canvas, keep);
            return row;
        }));
        this.draw();
    }

    keep(take) {
        this.revealed = true;
        const widget = this.find("keep");
        widget.value = take + 1;
        widget.callback?.(widget.value);
        app.extensionManager.workflow?.activeWorkflow?.changeTracker?.checkState?.();
        this.node.setDirtyCanvas(true, true);
    }

    fit() {
        const [width, height] = this.node.size;
        this.node.setSize([Math.max(width, NARROWEST), Math.max(height, this.node.computeSize()[1])]);
        this.node.setDirtyCanvas(true, true);
    }

    // -- sound -------------------------------------------------------------------------------------------------------

    get levels() {
        return this.takes.map((take, i) => i === this.audible ? factorOf(take.gain) : 0);
    }

    switchTo(take) {
        if (!this.takes[take]) return;
        this.audible = take;
        this.player.setLevels(this.levels);
        this.draw();
    }

    async seek(event, canvas, take) {
        const box = canvas.getBoundingClientRect();
        const wasPlaying = this.player.plays;
        this.player.stop();
        this.player.offset = Math.min(this.seconds, Math.max(0, (event.clientX - box.left) / box.width * this.seconds));
        this.switchTo(take);
        if (wasPlaying) await this.start();
    }

    async toggle() {
        if (!this.takes.length) return;
        if (this.player.plays) this.player.stop();
        else await this.start();
        this.draw();
    }

    async start() {
        this.time.textContent = this.texts.loading;
        try {
            await this.player.play(this.urls, this.levels, () => this.draw());
        } catch {
            this.time.textContent = this.texts.failed;
            return;
        }
        this.player.setLevels(this.levels); // another take may have been chosen meanwhile
        this.follow();
    }

    follow() {
        if (!this.player.plays) return;
        if (!this.element.isConnected) return this.player.stop();
        this.draw();
        requestAnimationFrame(() => this.follow());
    }

    key(event) {
        if (event.key === " ") this.toggle();
        else if (/^[1-8]$/.test(event.key)) this.switchTo(Number(this.rows.children[event.key - 1]?.dataset.take));
        else return;
        event.preventDefault();
        event.stopPropagation();
    }

    // -- drawing -----------------------------------------------------------------------------------------------------

    draw() {
        this.playButton.textContent = this.player.plays ? "❚❚" : "▶";
        this.playButton.disabled = !this.takes.length;
        this.time.textContent = this.takes.length
            ? `${clock(this.player.position)} / ${clock(this.seconds)}` : this.texts.empty;
        for (const row of this.rows.children) {
            const take = Number(row.dataset.take), isAudible = take === this.audible;
            row.dataset.audible = isAudible;
            row.firstChild.style.outline = isAudible ? `2px solid rgb(${WAVE})` : "none";
            this.drawRow(row.children[1], this.takes[take], isAudible);
        }
    }

    drawRow(canvas, { low, high, seconds }, isAudible) {
        const width = canvas.clientWidth;
        if (!width) return;
        const scale = window.devicePixelRatio || 1, context = canvas.getContext("2d");
        if (canvas.width !== Math.round(width * scale)) [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(ROW * scale)];
        context.setTransform(scale, 0, 0, scale, 0, 0);
        const style = getComputedStyle(this.element);
        context.fillStyle = style.getPropertyValue("--comfy-input-bg").trim() || "#222";
        context.fillRect(0, 0, width, ROW);
        context.fillStyle = isAudible ? `rgb(${WAVE})` : style.getPropertyValue("--input-text").trim() || "#ddd";
        context.globalAlpha = isAudible ? 1 : 0.45;
        const shown = width * seconds / this.seconds, middle = ROW / 2;
        for (let x = 0; x < shown; x++) {
            const [least, most] = extremes({ low, high }, shown, x, x + 1);
            context.fillRect(x, middle - most / 100 * middle, 1, Math.max(1, (most - least) / 100 * middle));
        }
        context.globalAlpha = 1;
        context.fillStyle = PLAYHEAD;
        context.fillRect(this.player.position / this.seconds * width - 0.5, 0, 1.5, ROW);
    }
}

const widgets = new WeakMap();

app.registerExtension({
    name: "AS15.compare_takes",
    ...reporting(name => name === NODE, (node, { takes }) => takes && widgets.get(node)?.report(takes)),
    nodeCreated(node) {
        if (node.comfyClass === NODE) widgets.set(node, new TakesWidget(node));
    },
});
