"""Write workflows/*.json and subgraphs/*.json from their declarations in tools/workflows and the nodes' schemas.

--check writes nothing: it prints which files are out of date, and exits with 1 if any is.

Usage: COMFYUI_PATH=/path/to/ComfyUI python -m tools.build_workflows [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .locales import find_nodes
from .workflows.apps import APPS
from .workflows.blueprints import blueprints
from .workflows.templates import TEMPLATES

REPO = Path(__file__).resolve().parents[1]


def build(object_info: dict[str, dict]) -> dict[Path, str]:
    """Return the content of every file, for the schemas of /object_info."""
    graphs = [declare(object_info) for declare in (*TEMPLATES, *APPS)]
    files = {REPO / "workflows" / f"{graph.name}.json": graph.workflow() for graph in graphs}
    files |= {REPO / "subgraphs" / f"{item.name}.json": item.workflow() for item in blueprints(object_info)}
    return {path: json.dumps(content, ensure_ascii=False, indent=1) + "\n" for path, content in files.items()}


def out_of_date(object_info: dict[str, dict]) -> list[str]:
    """Return the files that differ from their declaration, or have none."""
    files = build(object_info)
    there = {path for folder in ("workflows", "subgraphs") for path in (REPO / folder).glob("*.json")}
    changed = [path for path, text in files.items() if path not in there or path.read_text("utf-8") != text]
    return sorted(path.relative_to(REPO).as_posix() for path in {*changed, *(there - files.keys())})


def main(check: bool) -> int:
    info = {node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in find_nodes()}
    if check:
        late = out_of_date(info)
        print("\n".join(f"{name} is out of date: run python -m tools.build_workflows" for name in late) or "up to date")
        return 1 if late else 0
    for path, text in build(info).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
