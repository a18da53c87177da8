// Edit Song: fill the widgets with the song of a run, and pass on the widgets once the user changes one.
import { app } from "../../../scripts/app.js";

const NODE = "AS15_EditSong";
const BLANK = { caption: "", lyrics: "", language: "auto", duration: 0, bpm: 0, key: "auto", time_signature: "auto" };
const INPUT = "input", EDITS = "edits"; // values of the widget "source"

class Editor {
    constructor(node) {
        const find = name => node.widgets.find(widget => widget.name === name);
        this.node = node;
        this.source = find("source");
        this.fields = Object.keys(BLANK).map(find);
        this.writing = false; // true while a script writes the widgets, not the user
        this.known = new Map(); // values of the fields before the user changes one
        this.learn();
        for (const field of this.fields) this.watch(field);
    }

    get passesInput() {
        const slot = this.node.inputs.findIndex(({ name }) => name === "song");
        if (this.source.value !== INPUT || this.node.inputs[slot]?.link == null) return false;
        return !this.node.getInputNode(slot)?.mode; // a muted or bypassed node gives no song
    }

    watch(field) {
        const before = field.callback, editor = this;
        field.callback = function () {
            before?.apply(this, arguments);
            if (!editor.writing && field.value !== editor.known.get(field)) editor.source.value = EDITS;
            editor.known.set(field, field.value);
        };
        // The shown song would change the inputs of this node, and all later nodes would run again.
        field.serializeValue = () => this.passesInput ? BLANK[field.name] : field.value;
    }

    write(action) {
        this.writing = true;
        try {
            return action();
        } finally {
            this.writing = false;
            this.learn();
        }
    }

    learn() {
        for (const field of this.fields) this.known.set(field, field.value);
    }

    show(song) {
        if (!song || this.source.value !== INPUT) return;
        this.write(() => this.fields.forEach(field => {
            field.value = song[field.name];
            field.callback?.(field.value);
        }));
        this.node.setDirtyCanvas(true, true);
    }
}

const editors = new WeakMap();

app.registerExtension({
    name: "AS15.edit_song",
    beforeRegisterNodeDef(nodeType, nodeData) {
        if (nodeData.name !== NODE) return;
        const { configure, onExecuted } = nodeType.prototype;
        nodeType.prototype.configure = function () { // a workflow is opened, or the node is pasted
            const load = () => configure.apply(this, arguments), editor = editors.get(this);
            return editor ? editor.write(load) : load();
        };
        nodeType.prototype.onExecuted = function (output) {
            onExecuted?.apply(this, arguments);
            editors.get(this)?.show(output?.song?.[0]);
        };
    },
    nodeCreated(node) {
        if (node.comfyClass === NODE) editors.set(node, new Editor(node));
    },
    onNodeOutputsUpdated() { // after a workflow is opened again, from another tab or from the history
        setTimeout(() => {
            for (const node of app.graph.nodes) editors.get(node)?.show(app.nodeOutputs[node.id]?.song?.[0]);
        });
    },
});
