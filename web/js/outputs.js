// Give the outputs of a run to the widgets of its nodes: after the run, and when a workflow is opened again.
import { app } from "../../../scripts/app.js";

// Return the functions of an extension. report(node, output) gets the node's output for the page.
export function reporting(isOurs, report) {
    return {
        beforeRegisterNodeDef(nodeType, nodeData) {
            if (!isOurs(nodeData.name)) return;
            const before = nodeType.prototype.onExecuted;
            nodeType.prototype.onExecuted = function (output) {
                before?.apply(this, arguments);
                if (output) report(this, output);
            };
        },
        onNodeOutputsUpdated() { // from another tab, or from the history
            setTimeout(() => {
                for (const node of app.graph.nodes) {
                    const output = isOurs(node.comfyClass) && app.nodeOutputs[node.id];
                    if (output) report(node, output);
                }
            });
        },
    };
}

// The path of a file that a node reports, for api.apiURL.
export function urlOfFile({ filename, subfolder = "", type }) {
    return `/view?${new URLSearchParams({ filename, subfolder, type })}`;
}
