// A colour for the title of each of our nodes, one of ComfyUI's own, by the stage of the song's way that it serves.
import { app } from "../../../scripts/app.js";

const COLOURS = {
    loaders: "yellow",
    song: "green",
    sampling: "pale_blue",
    audio: "cyan",
    edits: "purple",
    planner: "blue",
};

app.registerExtension({
    name: "AS15.colours",
    beforeRegisterNodeDef(nodeType, nodeData) {
        if (!nodeData.name.startsWith("AS15_")) return;
        const stage = nodeData.category.split("/").at(-1);
        // Of the type, not of a node: what a user chooses goes before it, and no workflow keeps it.
        nodeType.color = LGraphCanvas.node_colors[COLOURS[stage]].bgcolor;
    },
});
