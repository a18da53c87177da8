// Label the text boxes of our nodes on the canvas, and make room for lyrics. Nodes 2.0 has its own labels.
import { app } from "../../../scripts/app.js";

const SIZES = { AS15_Song: [420, 440], AS15_EditSong: [420, 520] }; // of a node that the user places

function drawLabels(node, ctx) {
    if (node.flags.collapsed || LiteGraph.vueNodesMode) return;
    ctx.save();
    ctx.font = "10px Inter, sans-serif";
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    ctx.fillStyle = LiteGraph.WIDGET_SECONDARY_TEXT_COLOR;
    for (const widget of node.widgets ?? []) {
        const box = widget.element?.tagName === "TEXTAREA" && !widget.element.readOnly && !widget.hidden;
        if (box) ctx.fillText(widget.label ?? widget.name, widget.margin + 2, widget.y + widget.margin - 2);
    }
    ctx.restore();
}

app.registerExtension({
    name: "AS15.text_boxes",
    nodeCreated(node) {
        if (!node.comfyClass?.startsWith("AS15_")) return;
        const size = SIZES[node.comfyClass];
        if (size) node.setSize(size.map((least, i) => Math.max(least, node.size[i])));
        const before = node.onDrawForeground;
        node.onDrawForeground = function (ctx) {
            before?.apply(this, arguments);
            drawLabels(this, ctx);
        };
    },
});
