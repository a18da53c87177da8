// Download Model: show the size and the place of the chosen release, and list new files in the loaders after a run.
import { app } from "../../../scripts/app.js";
import { show } from "./text.js";

const NODE = "AS15_Download";

let details = {}; // by release; a refresh of the lists brings new ones

app.registerExtension({
    name: "AS15.download",
    beforeRegisterNodeDef(nodeType, nodeData) {
        if (nodeData.name !== NODE) return;
        details = nodeData.input.required.release[1].details;
        const before = nodeType.prototype.onExecuted;
        nodeType.prototype.onExecuted = function (output) {
            before?.apply(this, arguments);
            if (output?.downloaded?.[0]) app.refreshComboInNodes();
        };
    },
    nodeCreated(node) {
        if (node.comfyClass !== NODE) return;
        const release = node.widgets.find(widget => widget.name === "release");
        const describe = () => show(node, "text", details[release.value] ?? "");
        const before = release.callback;
        release.callback = function () {
            before?.apply(this, arguments);
            describe();
        };
        requestAnimationFrame(describe); // after the values of an opened workflow
    },
});
