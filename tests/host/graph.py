"""Convert workflow files (the frontend's format) to the body of POST /prompt, and change such prompts."""

from __future__ import annotations

import json
from pathlib import Path

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
NOTES = {"Note", "MarkdownNote"}
MUTED, BYPASSED = 2, 4
SEED_NAMES = {"seed", "noise_seed"}  # by name, the frontend adds its "control after generate" widget


def load_workflow(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def inputs_of(info: dict) -> list[tuple[str, str | list, dict]]:
    """Return (name, type, options) of a node's inputs in the order of its sockets and widgets."""
    found = []
    for group in ("required", "optional"):
        for name in info["input_order"].get(group, []):
            kind, *rest = info["input"][group][name]
            found.append((name, kind, rest[0] if rest else {}))
    return found


def is_widget(kind: str | list, options: dict) -> bool:
    return (isinstance(kind, list) or kind in WIDGET_TYPES) and not options.get("forceInput")


def widget_names(info: dict) -> list[str | None]:
    """Return a name for each value in `widgets_values`. None is a widget of the frontend alone."""
    names: list[str | None] = []
    for name, kind, options in inputs_of(info):
        if not is_widget(kind, options):
            continue
        names.append(name)
        if options.get("control_after_generate") or (kind == "INT" and name in SEED_NAMES):
            names.append(None)
    return names


def to_prompt(workflow: dict, object_info: dict[str, dict]) -> dict[str, dict]:
    """Return the API-format prompt of a workflow, without muted nodes and notes."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES or node.get("mode", 0) in (MUTED, BYPASSED):
            continue
        names = widget_names(object_info[node["type"]])
        values = node.get("widgets_values", [])
        assert len(values) == len(names), f"{node['type']} #{node['id']}: {len(values)} values for widgets {names}"
        inputs = {name: value for name, value in zip(names, values, strict=True) if name is not None}
        for socket in node.get("inputs", []):
            if socket.get("link") is not None:
                inputs[socket["name"]] = links[socket["link"]]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def find(prompt: dict[str, dict], class_type: str) -> str:
    """Return the id of the only node of that class."""
    (node_id,) = [key for key, node in prompt.items() if node["class_type"] == class_type]
    return node_id


def with_inputs(prompt: dict[str, dict], class_type: str, **inputs: object) -> dict[str, dict]:
    """Return a copy of the prompt with other inputs for its only node of that class."""
    return with_node(prompt, find(prompt, class_type), **inputs)


def with_node(prompt: dict[str, dict], node_id: str, **inputs: object) -> dict[str, dict]:
    """Return a copy of the prompt with other inputs for one node."""
    node = prompt[node_id]
    return {**prompt, node_id: {**node, "inputs": {**node["inputs"], **inputs}}}


def without(prompt: dict[str, dict], node_id: str, passed: str | None = None) -> dict[str, dict]:
    """Return a copy of the prompt without a node. The link of its input `passed` replaces its outputs, if any."""
    remaining = {}
    for key, node in prompt.items():
        inputs = {
            name: prompt[node_id]["inputs"].get(passed) if is_link(value) and value[0] == node_id else value
            for name, value in node["inputs"].items()
        }
        remaining[key] = {**node, "inputs": {name: value for name, value in inputs.items() if value is not None}}
    del remaining[node_id]
    return remaining


def upstream(prompt: dict[str, dict], node_id: str, class_type: str) -> str:
    """Return the id of the nearest node of that class that a node depends on."""
    reached = [node_id]
    for key in reached:
        if key != node_id and prompt[key]["class_type"] == class_type:
            return key
        reached += [value[0] for value in prompt[key]["inputs"].values() if is_link(value)]
    raise AssertionError(f"{node_id} depends on no {class_type}")


def is_link(value: object) -> bool:
    return isinstance(value, list)


def with_all(prompt: dict[str, dict], class_type: str, **inputs: object) -> dict[str, dict]:
    """Return a copy of the prompt with other inputs for all nodes of that class."""
    return {
        key: {**node, "inputs": {**node["inputs"], **inputs}} if node["class_type"] == class_type else node
        for key, node in prompt.items()
    }
