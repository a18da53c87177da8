"""Write locales/<language>/*.json, the texts of our nodes for ComfyUI, from the nodes' schemas.

English comes from the schemas. tools/translations/<language>.json maps every English text to its translation, so a
changed tooltip has no translation rather than an old one. --check writes nothing: it prints what is missing or out of
date, and exits with 1 if anything is.

Usage: COMFYUI_PATH=/path/to/ComfyUI python tools/locales.py [--check]
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
LOCALES = REPO / "locales"
TRANSLATIONS = REPO / "tools" / "translations"
PACKAGE = "acestep_pack"  # any name works, as in ComfyUI


def find_nodes() -> list[type]:
    """Return our node classes, as ComfyUI gets them. Needs COMFYUI_PATH."""
    if "COMFYUI_PATH" not in os.environ:
        raise SystemExit("COMFYUI_PATH: not set. Set it to a ComfyUI folder, whose classes the schemas use.")
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    sys.argv = [sys.argv[0], "--cpu"]  # ComfyUI reads the command line when it is imported
    import comfy.options

    comfy.options.enable_args_parsing()
    spec = importlib.util.spec_from_file_location(PACKAGE, REPO / "__init__.py", submodule_search_locations=[str(REPO)])
    pack = sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)

    async def list_nodes() -> list[type]:
        return await (await pack.comfy_entrypoint()).get_node_list()

    return asyncio.run(list_nodes())


def node_texts(schema: Any, translate: Callable[[str], str]) -> dict[str, object]:
    """Return the translated texts of one node, in the frontend's format."""

    def slot(label: str, tooltip: str | None) -> dict[str, str]:
        return {"name": translate(label), **({"tooltip": translate(tooltip)} if tooltip else {})}

    inputs = {entry.id: slot(entry.display_name or entry.id, entry.tooltip) for entry in schema.inputs}
    if any(getattr(entry, "control_after_generate", False) for entry in schema.inputs):
        inputs["control_after_generate"] = slot("control after generate", None)  # the frontend's own widget
    return {
        "display_name": translate(schema.display_name),
        "description": translate(schema.description),
        "inputs": inputs,
        "outputs": {str(index): slot(entry.display_name, entry.tooltip) for index, entry in enumerate(schema.outputs)},
    }


def build(schemas: list, translate: Callable[[str], str]) -> dict[str, str]:
    """Return the files of a language, by name."""
    texts = {
        "main.json": {"nodeCategories": {stage: translate(stage) for stage in stages(schemas)}},
        "nodeDefs.json": {schema.node_id: node_texts(schema, translate) for schema in schemas},
    }
    return {name: json.dumps(content, ensure_ascii=False, indent=2) + "\n" for name, content in texts.items()}


def stages(schemas: list) -> list[str]:
    """Return the subfolders of our nodes in the node library."""
    return sorted({schema.category.rpartition("/")[2] for schema in schemas})


class Translator:
    """A translation file that records which texts are used."""

    def __init__(self, path: Path):
        self.known: dict[str, str] = json.loads(path.read_text("utf-8"))
        self.used: dict[str, None] = {}

    def __call__(self, text: str) -> str:
        self.used[text] = None
        return self.known.get(text, text)

    def complaints(self) -> list[str]:
        missing = [f"no translation of: {text}" for text in self.used if text not in self.known]
        return missing + [f"unused translation: {text}" for text in self.known if text not in self.used]


def main(check: bool) -> int:
    languages = {path.stem: Translator(path) for path in sorted(TRANSLATIONS.glob("*.json"))}
    schemas = [node.define_schema() for node in find_nodes()]
    files = {"en": build(schemas, str), **{name: build(schemas, translate) for name, translate in languages.items()}}
    complaints = [f"{name}: {line}" for name, translate in languages.items() for line in translate.complaints()]
    contents = {LOCALES / language / name: text for language, texts in files.items() for name, text in texts.items()}
    for path, content in contents.items():
        if check:
            if not path.is_file() or path.read_text("utf-8") != content:
                complaints.append(f"{path.relative_to(REPO)} is out of date: run python tools/locales.py")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, "utf-8", newline="\n")
    print("\n".join(complaints) or "locales are complete")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
