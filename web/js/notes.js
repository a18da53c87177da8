// Show the notes of our templates in the user's language. A note that the user changed stays.
import { app } from "../../../scripts/app.js";

app.registerExtension({
    name: "AS15.notes",
    loadedGraphNode(node) {
        const texts = node.properties?.as15_text; // {language: {title, text}}, from tools/workflows/notes.py
        const own = texts?.[app.extensionManager.setting.get("Comfy.Locale")] ?? texts?.en;
        const widget = node.widgets?.[0];
        if (!own || !widget) return;
        const shipped = Object.values(texts);
        if (shipped.some(({ text }) => text === widget.value)) widget.value = own.text;
        if (shipped.some(({ title }) => title === node.title)) node.title = own.title;
    },
});
