// The tempo of the song to which a node of the graph belongs.
import { isTempo, meterOf } from "./beats.js";

const SONGS = ["AS15_Song", "AS15_EditSong"];

function inputsOf(node) {
    return (node.inputs ?? []).map((_, slot) => node.getInputNode(slot)).filter(Boolean);
}

function outputsOf(node) {
    return (node.outputs ?? []).flatMap((_, slot) => node.getOutputNodes(slot) ?? []);
}

// Yield the nodes that are linked to a node, the nearest first.
function* linked(node, neighbours) {
    const seen = new Set([node]);
    for (const each of seen) {
        if (each !== node) yield each;
        for (const next of neighbours(each)) seen.add(next);
    }
}

function tempoOf(node) {
    const value = name => node.widgets?.find(widget => widget.name === name)?.value;
    if (!SONGS.includes(node.comfyClass) || !isTempo(value("bpm"))) return null;
    return { bpm: value("bpm"), meter: meterOf(value("time_signature")) };
}

// Return {bpm, meter} of the song that the source of a node is made from, else of the song that an edit makes, or null.
export function songTempo(node) {
    for (const each of [node, ...linked(node, outputsOf)])
        for (const source of linked(each, inputsOf)) {
            const found = tempoOf(source);
            if (found) return found;
        }
    return null;
}
