// The controls of the beats that ranges snap to: BPM, and the first beat.
import { FASTEST, SLOWEST, isTempo } from "./beats.js";
import { FONT, button } from "./waveform.js";

function number(label, step, onChange) {
    const element = document.createElement("input");
    element.type = "number";
    element.min = 0;
    element.step = step;
    element.title = element.ariaLabel = label;
    element.style.cssText = `${FONT}; width: 58px; height: 20px; box-sizing: border-box; border: 0; border-radius: 4px; padding: 0 4px;` +
        "background: var(--comfy-input-bg)";
    element.addEventListener("change", () => onChange(element.value === "" ? null : Number(element.value)));
    element.addEventListener("keydown", event => event.stopPropagation()); // the graph has keys, too
    return element;
}

export class BeatsBar {
    // texts: {bpm, first, here}. onChange gets {bpm} or {first}, null for the value that is found. playhead() is in seconds.
    constructor(texts, onChange, playhead) {
        this.element = document.createElement("div");
        this.element.className = "as15-beats";
        this.element.style.cssText = "display: none; gap: 6px; align-items: center; height: 20px; flex: none";
        this.bpm = number(texts.bpm, 1, bpm => onChange({ bpm: isTempo(bpm) ? bpm : null }));
        [this.bpm.min, this.bpm.max] = [SLOWEST, FASTEST];
        this.first = number(texts.first, 0.01, first => onChange({ first: first >= 0 ? first : null }));
        const here = button("⇤", texts.here, () => onChange({ first: Math.round(playhead() * 100) / 100 }));
        for (const [label, ...controls] of [["BPM", this.bpm], [texts.first, this.first, here]]) {
            const name = document.createElement("span");
            name.style.cssText = FONT;
            name.textContent = label;
            this.element.append(name, ...controls);
        }
    }

    // own: what the user typed, or null. found: what the graph and the sound tell, or null.
    show(isShown, own, found) {
        this.element.style.display = isShown ? "flex" : "none";
        for (const name of ["bpm", "first"]) {
            this[name].value = own[name] ?? "";
            this[name].placeholder = found[name] === null ? "" : `${Math.round(found[name] * 100) / 100}`;
        }
    }
}
