// Colour the titles of our nodes by category, with ComfyUI's own colours.
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
        // Set on the type: a colour that the user chooses on a node wins, and workflows do not save ours.
        nodeType.color = LGraphCanvas.node_colors[COLOURS[stage]].bgcolor;
    },
});
