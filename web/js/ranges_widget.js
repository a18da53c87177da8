// Repaint, Extend, Stems and Timbre: the source as a waveform, on which ranges are drawn by hand. The widgets stay the truth.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { firstBeatOf } from "./analysis.js";
import { BeatsBar } from "./beats_bar.js";
import { reporting, urlOfFile } from "./outputs.js";
import { KINDS, parseRanges } from "./ranges.js";
import { RangesWaveform } from "./ranges_waveform.js";
import { songTempo } from "./song_tempo.js";
import { loadAudio } from "./sound_files.js";
import { sourceOf, toggle } from "./waveform.js";

const NARROWEST = 300;
const TEXTS = {
    en: {
        play: "Play from here (Space)", remove: "Remove the selected range (Delete)",
        hint: "Drag to make a range, drag its edges to change it, double-click to remove it. Click, then turn the wheel to zoom.",
        place: "Drag to where the song continues; the grey part is dropped. Double-click it to keep all.",
        empty: "Connect Load Audio, or run once, to see the source",
        loading: "Loading the source …",
        failed: "The source cannot be shown",
        beats: "Snap to beats", bpm: "BPM of the beats; empty is the BPM of Song", first: "First beat",
        here: "First beat at the playhead",
    },
    zh: {
        play: "从此处播放（空格键）", remove: "删除选中的区间（Delete 键）",
        hint: "拖动以新建区间，拖动边缘可修改，双击可删除。点击后滚动滚轮可缩放。",
        place: "拖动到歌曲继续的位置，灰色部分会被舍弃。双击灰色部分可保留全部。",
        empty: "连接“加载音频”，或运行一次，即可看到源音频",
        loading: "正在加载源音频……", failed: "无法显示源音频",
        beats: "对齐到节拍", bpm: "节拍的 BPM；留空则使用“歌曲”的 BPM", first: "第一拍", here: "以播放位置为第一拍",
    },
    ja: {
        play: "ここから再生（スペース）", remove: "選択した範囲を削除（Delete）",
        hint: "ドラッグで範囲を作り、端をドラッグして変更し、ダブルクリックで削除します。クリックしてからホイールで拡大します。",
        place: "曲を続ける位置までドラッグします。灰色の部分は使われません。ダブルクリックするとすべて残ります。",
        empty: "「音声を読み込む」を接続するか、一度実行すると元の曲が表示されます",
        loading: "読み込み中…",
        failed: "元の曲を表示できません",
        beats: "拍に揃える", bpm: "拍の BPM。空欄なら「曲」の BPM", first: "最初の拍", here: "再生位置を最初の拍にする",
    },
};

// The URL of a value of Load Audio, such as "folder/song.mp3" or "song.flac [output]".
function urlOf(value) {
    const match = /^(?:(.*)\/)?([^/]+?)(?: \[(input|output|temp)\])?$/.exec(value ?? "");
    if (!match) return null;
    const query = new URLSearchParams({ filename: match[2], subfolder: match[1] ?? "", type: match[3] ?? "input" });
    return api.apiURL(`/view?${query}`);
}

function chain(object, name, action) {
    const before = object[name];
    object[name] = function () {
        const result = before?.apply(this, arguments);
        action();
        return result;
    };
}

class RangesWidget {
    constructor(node) {
        this.node = node;
        this.kind = KINDS[node.comfyClass];
        const locale = app.extensionManager.setting.get("Comfy.Locale");
        this.texts = TEXTS[locale] ?? TEXTS.en;
        const shownTexts = this.kind.open ? { ...this.texts, hint: this.texts.place } : this.texts;
        this.resolved = null; // {where, ranges} of the last run
        this.reported = null; // the source of the last run
        this.watched = new WeakSet(); // widgets of Load Audio
        this.writing = false;
        this.waveform = new RangesWaveform(shownTexts, locale, this.kind, ranges => ranges ? this.write(ranges) : this.complete());
        this.buildBeats();
        const height = () => this.waveform.height;
        const options = { serialize: false, getMinHeight: height, getMaxHeight: height };
        this.widget = node.addDOMWidget("ranges", "acestep_ranges", this.waveform.element, options);
        this.widget.serialize = false; // neither saved in workflows nor sent as an input
        for (const name of new Set([...this.kind.fields, "where", "operation"])) {
            const widget = this.find(name);
            if (widget) chain(widget, "callback", () => this.writing || this.showRanges());
        }
        chain(node, "onConnectionsChange", () => this.refreshSoon());
        chain(node, "onConfigure", () => this.refreshSoon());
        chain(node, "onRemoved", () => this.waveform.destroy());
        this.fit();
        this.refreshSoon();
    }

    fit() {
        const { node } = this, [width, height] = node.size;
        if (node.flags.collapsed) return; // its bounding box would be that of an open node
        node.setSize([Math.max(width, NARROWEST), Math.max(height, node.computeSize()[1])]);
        node.setDirtyCanvas(true, true);
    }

    find(name) {
        return this.node.widgets.find(widget => widget.name === name);
    }

    linked(name) {
        return this.node.inputs?.some(input => input.name === name && input.link != null) ?? false;
    }

    refreshSoon() { // once the links of an opened workflow are there
        clearTimeout(this.timer);
        this.timer = setTimeout(async () => {
            this.showRanges();
            await this.showSource();
            this.showBeats();
        });
    }

    // -- beats -------------------------------------------------------------------------------------------------------

    buildBeats() {
        const { waveform, node, texts } = this;
        this.beatsButton = toggle("♩", texts.beats, () => this.setBeats({ snap: !node.properties.snap_to_beats }));
        waveform.views.loudness.after(this.beatsButton);
        this.beatsBar = new BeatsBar(texts, change => this.setBeats(change), () => waveform.playhead);
        waveform.addBar(this.beatsBar.element);
        waveform.canvas.addEventListener("pointerenter", () => this.showBeats()); // a song may have another BPM now
    }

    // Properties of a node are saved in workflows. They are no inputs: beats change nothing but where the mouse snaps.
    setBeats(change) {
        const names = { snap: "snap_to_beats", bpm: "bpm", first: "first_beat" };
        for (const [name, value] of Object.entries(change))
            if (value === null || value === false) delete this.node.properties[names[name]];
            else this.node.properties[names[name]] = value;
        this.showBeats();
        this.complete();
    }

    async showBeats() {
        const { properties } = this.node;
        if (properties.snap_to_beats) await this.waveform.analyse();
        const isOn = properties.snap_to_beats === true; // it may be off by now
        const song = songTempo(this.node), bpm = properties.bpm ?? song?.bpm ?? null, { analysis } = this.waveform;
        const found = { bpm: song?.bpm ?? null, first: analysis && bpm ? firstBeatOf(analysis.onsets, bpm) : 0 };
        const first = properties.first_beat ?? found.first;
        this.waveform.grid = isOn && bpm ? { bpm, first, meter: song?.meter ?? 4 } : null;
        this.beatsButton.press(isOn);
        this.beatsBar.show(isOn, { bpm: properties.bpm, first: properties.first_beat }, found);
        this.fit();
        this.waveform.draw();
    }

    // -- ranges ------------------------------------------------------------------------------------------------------

    showRanges() {
        const { fields, read } = this.kind, operation = this.find("operation")?.value ?? "add";
        const where = this.find("where")?.value?.trim() ?? "", isLinked = this.linked("where");
        if (isLinked || (where && !fields.includes("where"))) return this.waveform.setRanges(this.placesOf(where, isLinked), true);
        if (this.linked("mask") || operation !== "add") return this.waveform.setRanges([], true);
        const ranges = read(Object.fromEntries(fields.map(name => [name, this.find(name).value])));
        this.waveform.setRanges(ranges ?? this.placesOf(where, false), !ranges || fields.some(name => this.linked(name)));
    }

    // The ranges of a place, if it is in seconds or was in the last run.
    placesOf(where, isLinked) {
        const typed = isLinked ? null : parseRanges(where), more = parseRanges(this.find("more_ranges")?.value ?? "");
        if (typed) return [...typed, ...(more ?? [])];
        return this.resolved && (isLinked || this.resolved.where === where) ? this.resolved.ranges : [];
    }

    write(ranges) {
        this.writing = true;
        try {
            for (const [name, value] of Object.entries(this.kind.write(ranges))) {
                const widget = this.find(name);
                if (widget.value === value) continue;
                widget.value = value;
                widget.callback?.(value);
                widget.value = value; // the page rounds numbers to tenths
            }
        } finally {
            this.writing = false;
        }
        this.node.setDirtyCanvas(true, true);
    }

    complete() { // one step of undo for one change
        app.extensionManager.workflow?.activeWorkflow?.changeTracker?.checkState?.();
    }

    // -- source ------------------------------------------------------------------------------------------------------

    // Load Audio behind the input, or undefined.
    loader() {
        let node = this.node;
        for (let name = "audio"; ; name = undefined) {
            const slot = name ? node.inputs?.findIndex(input => input.name === name) : 0;
            node = slot >= 0 ? node.getInputNode?.(slot) : null;
            if (!node || node.mode) return undefined; // muted and bypassed nodes give no audio
            if (node.comfyClass === "LoadAudio") return node;
            if (node.type !== "Reroute") return undefined;
        }
    }

    async showSource() {
        const widget = this.loader()?.widgets?.find(widget => widget.name === "audio");
        if (widget && !this.watched.has(widget)) {
            this.watched.add(widget);
            chain(widget, "callback", () => this.refreshSoon());
        }
        const url = widget ? urlOf(widget.value) : null;
        if (!url) {
            this.url = null;
            const isConnected = this.linked("audio") || this.linked("latent");
            return this.waveform.setSource(isConnected ? this.reported : null);
        }
        if (this.url === url) return;
        this.url = url;
        this.waveform.setSource(null);
        this.waveform.setMessage(this.texts.loading);
        const source = await loadAudio(url).catch(() => null);
        if (this.url !== url) return; // another file was chosen
        this.waveform.setSource(source);
        if (!source) this.waveform.setMessage(this.texts.failed);
    }

    report(view) {
        this.reported = sourceOf(view, view.file && api.apiURL(urlOfFile(view.file)));
        this.resolved = { where: view.where, ranges: view.regions.map(([start, end]) => ({ start, end })) };
        this.waveform.setLyrics(view.sections, view.lines);
        this.fit();
        this.refreshSoon();
    }
}

const shown = new WeakMap();

app.registerExtension({
    name: "AS15.ranges",
    ...reporting(name => name in KINDS, (node, { waveform }) => waveform && shown.get(node)?.report(waveform[0])),
    nodeCreated(node) {
        if (node.comfyClass in KINDS) shown.set(node, new RangesWidget(node));
    },
});
