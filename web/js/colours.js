// A colour for the title of each of our nodes, one of ComfyUI's own, by the stage of the song's way that it serves.
import { app } from "../../../scripts/app.js";

const STAGES = {
    yellow: ["LoadModel", "LoadPlanner"],
    green: ["Song", "Encode", "BatchSongs", "ShowSong"],
    pale_blue: ["Sample", "EmptyLatent"],
    cyan: ["Decode", "EncodeAudio"],
    purple: [
        "Cover", "Repaint", "Extend", "Stems", "Timbre", "Morph", "AudioCodes", "SaveCodes", "LoadCodes",
    ],
    blue: ["Plan", "Write", "Polish", "Listen"],
};

app.registerExtension({
    name: "AS15.colours",
    beforeRegisterNodeDef(nodeType, nodeData) {
        const colour = Object.keys(STAGES).find(name => STAGES[name].some(id => nodeData.name === `AS15_${id}`));
        // Of the type, not of a node: what a user chooses goes before it, and no workflow keeps it.
        if (colour) nodeType.color = LGraphCanvas.node_colors[colour].bgcolor;
    },
});
