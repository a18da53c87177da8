// Save Song: a player of the saved songs on the node, and its patterns in the filename prefix, such as %Song.bpm%.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { reporting, urlOfFile } from "./outputs.js";
import { Waveform, button, sourceOf } from "./waveform.js";

const NODE = "AS15_SaveSong";
const NARROWEST = 300; // pixels
const TEXTS = {
    en: {
        play: "Play (Space)", previous: "Previous song", next: "Next song", download: "Download",
        hint: "Click to play from there. The wheel zooms, the arrow keys move by a second.",
        empty: "Run to save the song and hear it",
    },
    zh: {
        play: "播放（空格键）", previous: "上一首", next: "下一首", download: "下载",
        hint: "点击即可从该处播放。滚轮缩放，方向键移动一秒。",
        empty: "运行后即可保存并试听歌曲",
    },
    ja: {
        play: "再生（スペース）", previous: "前の曲", next: "次の曲", download: "ダウンロード",
        hint: "クリックした位置から再生します。ホイールで拡大、矢印キーで 1 秒ずつ移動します。",
        empty: "実行すると曲が保存され、ここで聴けます",
    },
};

class SongPlayer {
    constructor(node) {
        this.node = node;
        const locale = app.extensionManager.setting.get("Comfy.Locale"), texts = TEXTS[locale] ?? TEXTS.en;
        this.songs = []; // {source, sections, lines}
        this.index = 0;
        this.waveform = new Waveform(texts, locale);
        this.build(texts);
        const height = () => this.waveform.height;
        const options = { serialize: false, getMinHeight: height, getMaxHeight: height };
        const widget = node.addDOMWidget("player", "acestep_player", this.waveform.element, options);
        widget.serialize = false; // neither saved in workflows nor sent as an input
        const before = node.onRemoved;
        node.onRemoved = (...inputs) => {
            before?.apply(node, inputs);
            this.waveform.destroy();
        };
        this.fit();
        this.choose(0);
    }

    build(texts) {
        const { bar, time } = this.waveform;
        this.number = time.cloneNode();
        this.chooser = [
            button("‹", texts.previous, () => this.choose(this.index - 1)), this.number,
            button("›", texts.next, () => this.choose(this.index + 1)),
        ];
        this.download = document.createElement("a");
        this.download.textContent = "⤓";
        this.download.title = this.download.ariaLabel = texts.download;
        this.download.style.cssText = "margin-left: auto; color: var(--input-text); text-decoration: none; font-size: 15px; padding: 0 4px";
        this.download.download = "";
        bar.append(...this.chooser, this.download);
    }

    report(files, views) {
        this.songs = files.map((file, i) => ({ ...views[i], source: sourceOf(views[i], api.apiURL(urlOfFile(file))) }));
        this.choose(0);
        this.fit();
    }

    choose(index) {
        const song = this.songs.at(index % this.songs.length);
        this.index = this.songs.indexOf(song);
        this.waveform.setLyrics(song?.sections ?? [], song?.lines ?? []);
        this.waveform.setSource(song?.source ?? null);
        for (const element of this.chooser) element.style.display = this.songs.length > 1 ? "" : "none";
        this.number.textContent = `${this.index + 1} / ${this.songs.length}`;
        this.download.style.visibility = song ? "visible" : "hidden";
        if (song) this.download.href = song.source.url;
    }

    fit() {
        const { node } = this, [width, height] = node.size;
        node.setSize([Math.max(width, NARROWEST), Math.max(height, node.computeSize()[1])]);
        node.setDirtyCanvas(true, true);
    }
}

const players = new WeakMap();

app.registerExtension({
    name: "AS15.save_song",
    ...reporting(name => name === NODE, (node, { audio, waveform }) =>
        audio && waveform && players.get(node)?.report(audio, waveform)),
    nodeCreated(node) {
        if (node.comfyClass !== NODE) return;
        players.set(node, new SongPlayer(node));
        const prefix = node.widgets.find(widget => widget.name === "filename_prefix");
        const replace = window.comfyAPI?.utils?.applyTextReplacements;
        if (replace) prefix.serializeValue = () => replace(app, prefix.value);
    },
});
