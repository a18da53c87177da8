// Show text below the widgets of our nodes: results, and the notes of a run.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const OURS = "AS15_";
const TALLEST = 300; // pixels of text that a node grows for; longer text scrolls
const NARROWEST = 270; // least width of a node with text

export function show(node, name, text) {
    const widget = node.widgets?.find(widget => widget.name === name) ?? addWidget(node, name);
    widget.value = text;
    if (LiteGraph.vueNodesMode) {
        requestAnimationFrame(() => requestAnimationFrame(() => growDrawn(node, text))); // after the node is drawn
        return;
    }
    const needed = heightOf(text, widget.element, node.size[0] - 2 * widget.margin) + 2 * widget.margin;
    widget.options.getMinHeight = () => needed;
    const [width, height] = node.size;
    node.setSize([width, Math.max(height, node.computeSize()[1])]); // never smaller than the user's size
    node.setDirtyCanvas(true, true);
}

function addWidget(node, name) {
    const { widget } = app.widgets.STRING(node, name, ["STRING", { multiline: true }], app);
    widget.element.readOnly = widget.options.read_only = true;
    widget.serialize = widget.options.serialize = false; // neither saved in workflows nor sent as an input
    node.setSize([Math.max(node.size[0], NARROWEST), node.size[1]]);
    return widget;
}

// Measure a copy, because a new area is not drawn yet.
function heightOf(text, area, width) {
    const copy = area.cloneNode();
    copy.value = text;
    copy.style.cssText = `position: absolute; visibility: hidden; height: 0; width: ${width}px`;
    document.body.append(copy);
    const height = Math.min(copy.scrollHeight, TALLEST);
    copy.remove();
    return height;
}

// Nodes 2.0 draws its own text area in another font. The node grows with it.
function growDrawn(node, text) {
    const areas = document.querySelectorAll(`[data-node-id="${node.id}"] textarea`);
    const area = [...areas].find(area => area.value === text);
    if (!area) return;
    area.style.minHeight = "";
    if (area.scrollHeight > area.clientHeight) area.style.minHeight = `${Math.min(area.scrollHeight, TALLEST)}px`;
}

function isOurs(node) {
    return node?.comfyClass?.startsWith(OURS);
}

// "7:3" is node 3 in the subgraph of node 7.
function find(id) {
    let graph = app.graph, node;
    for (const part of String(id).split(":")) {
        node = graph?.getNodeById(part);
        graph = node?.subgraph;
    }
    return isOurs(node) ? node : undefined; // another workflow may be open than the running one
}

app.registerExtension({
    name: "AS15.text",
    setup() {
        api.addEventListener("acestep.notes", ({ detail }) => {
            const node = find(detail.node);
            if (node) show(node, "notes", detail.text);
        });
        api.addEventListener("executing", ({ detail }) => {
            const notes = detail && find(detail)?.widgets?.find(widget => widget.name === "notes");
            if (notes) notes.value = ""; // clear the notes of the previous run
        });
    },
    beforeRegisterNodeDef(nodeType, nodeData) {
        if (!nodeData.name.startsWith(OURS)) return;
        const before = nodeType.prototype.onExecuted;
        nodeType.prototype.onExecuted = function (output) {
            before?.apply(this, arguments);
            if (output?.text) show(this, "text", output.text.join("\n\n"));
        };
    },
    onNodeOutputsUpdated() { // after a workflow is opened again, from another tab or from the history
        setTimeout(() => {
            for (const node of app.graph.nodes) {
                const text = isOurs(node) && app.nodeOutputs[node.id]?.text;
                if (text) show(node, "text", text.join("\n\n"));
            }
        });
    },
});
