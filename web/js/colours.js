// Colour our nodes by stage, with ComfyUI's own colours.
import { app } from "../../../scripts/app.js";

const STAGES = { // by node id: categories are translated
    yellow: ["LoadModel", "LoadLora", "LoadPlanner", "Download"],
    green: ["Song", "EditSong", "Encode", "BatchSongs"],
    pale_blue: ["Sample", "EmptyLatent", "PickBest"],
    cyan: [
        "Decode", "EncodeAudio", "CompareTakes", "MixStems", "FinishSong", "SaveSong", "SongPicture", "LyricTimes",
        "SaveLyrics",
    ],
    purple: ["Cover", "Repaint", "Extend", "Stems", "Timbre", "Morph", "AudioCodes", "SaveCodes", "LoadCodes"],
    blue: ["Plan", "Write", "Polish", "Listen"],
    brown: ["SongFolder", "TrainLora", "TrainOptions"],
};
const COLOURS = new Map(Object.entries(STAGES).flatMap(
    ([colour, names]) => names.map(name => [`AS15_${name}`, LGraphCanvas.node_colors[colour].bgcolor])));

app.registerExtension({
    name: "AS15.colours",
    nodeCreated(node) {
        const colour = COLOURS.get(node.comfyClass);
        if (!colour) return;
        node.color = colour;
        const before = node.onSerialize;
        node.onSerialize = function (data) {
            before?.apply(this, arguments);
            // Workflows save the colours of the user alone. ComfyUI's menu sets a body colour as well.
            if (data.color === colour && !data.bgcolor) delete data.color;
        };
    },
});
