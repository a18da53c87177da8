// Save Song: ComfyUI's own player on the node, and its patterns in the filename prefix, such as %Song.bpm%.
import { app } from "../../../scripts/app.js";

const NODE = "AS15_SaveSong";

app.registerExtension({
    name: "AS15.save_song",
    beforeRegisterNodeDef(nodeType, nodeData) {
        if (nodeData.name === NODE) nodeData.input.required.audioUI = ["AUDIO_UI", {}]; // as for ComfyUI's own nodes
    },
    nodeCreated(node) {
        if (node.comfyClass !== NODE) return;
        const prefix = node.widgets.find(widget => widget.name === "filename_prefix");
        const replace = window.comfyAPI?.utils?.applyTextReplacements;
        if (replace) prefix.serializeValue = () => replace(app, prefix.value);
    },
});
