// Show a word instead of the number 0 in our number widgets: "auto", or "end".
import { app } from "../../../scripts/app.js";

const OPTION = "zero_shown_as"; // set by nodes/comfy_runtime/versions.py
const style = document.head.appendChild(document.createElement("style"));

function wordsOf(nodeData) {
    const inputs = Object.entries({ ...nodeData?.input?.required, ...nodeData?.input?.optional });
    return inputs.filter(([, [, options]]) => options?.[OPTION]).map(([name, [, options]]) => ({ name, ...options }));
}

// The canvas draws `_displayValue`.
function showOnCanvas(widget, word) {
    const shown = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(widget), "_displayValue")?.get;
    if (!shown) return;
    const get = () => !widget.computedDisabled && Number(widget.value) === 0 ? word : shown.call(widget);
    Object.defineProperty(widget, "_displayValue", { get, configurable: true });
}

// Nodes 2.0 and forms draw an input element, which has the widget's range; it or a parent has the widget's name.
function addRule({ name, min, max, [OPTION]: word }) {
    const zero = `[aria-valuenow="0"][aria-valuemin="${min}"][aria-valuemax="${max}"]:not(:focus)`;
    const input = `:is([aria-label="${name}"] input, input[aria-label="${name}"])${zero}`;
    const rules = [
        `${input} { color: transparent !important; }`,
        `:has(> ${input})::after { content: "${word}"; position: absolute; inset: 0; padding: 0.25rem;` +
            " line-height: 1rem; pointer-events: none; }",
    ].filter(rule => !style.textContent.includes(rule));
    style.append(...rules.map(rule => `${rule}\n`));
}

app.registerExtension({
    name: "AS15.zero",
    beforeRegisterNodeDef(nodeType, nodeData) {
        if (nodeData.name.startsWith("AS15_")) wordsOf(nodeData).forEach(addRule);
    },
    nodeCreated(node) {
        if (!node.comfyClass?.startsWith("AS15_")) return;
        for (const { name, [OPTION]: word } of wordsOf(node.constructor.nodeData)) {
            const widget = node.widgets?.find(widget => widget.name === name);
            if (widget) showOnCanvas(widget, word);
        }
    },
});
