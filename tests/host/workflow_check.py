"""Check a workflow file against the schemas of a running server (/object_info)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

from .graph import NOTES, inputs_of, is_widget, widget_names

AFTER_GENERATE = {"fixed", "increment", "decrement", "randomize"}
ABSOLUTE_PATH = re.compile(r"""(?:^|[\s"'`(])(?:~?/|[A-Za-z]:[\\/]|\\\\)\w""")
WIDEST, TALLEST = 1600, 805  # pixels of the canvas, which a window of 1366 x 768 shows at READABLE
READABLE = 0.79  # titles have 11 pixels at this scale
TITLE = 30  # pixels of a node's title bar, above its position
FOOTER = 40  # pixels that Nodes 2.0 adds below a node with advanced widgets, with a gap

Slots = list[tuple[str, str]]  # name and type


def problems(workflow: dict, object_info: dict[str, dict]) -> list[str]:
    """Return a sentence for each mistake that the frontend or the server would report."""
    return list(_problems(workflow, object_info))


def _problems(workflow: dict, object_info: dict[str, dict]) -> Iterator[str]:
    nodes = {node["id"]: node for node in workflow["nodes"]}
    if len(nodes) != len(workflow["nodes"]):
        yield "two nodes have the same id"
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        if node["type"] not in object_info:
            yield f"{_name(node)} does not exist"
            continue
        yield from _sockets(node, object_info[node["type"]])
        yield from _widgets(node, object_info[node["type"]])
    yield from _links(workflow, nodes)
    yield from _layout(workflow, nodes)
    for text in _texts(workflow):
        if ABSOLUTE_PATH.search(text):
            yield f"an absolute path: {text!r}"


def _name(node: dict) -> str:
    return f"{node['type']} #{node['id']}"


def _sockets(node: dict, info: dict) -> Iterator[str]:
    known = inputs_of(info)
    expected = [(name, kind) for name, kind, options in known if not is_widget(kind, options)]
    widgets = {name: kind for name, kind, options in known if is_widget(kind, options)}
    given = [slot for slot in node["inputs"] if "widget" not in slot]
    if _slots(given) != expected:
        yield f"{_name(node)} has the inputs {_slots(given)}, its schema {expected}"
    for slot in node["inputs"]:
        if "widget" in slot and (slot["widget"]["name"] != slot["name"] or widgets.get(slot["name"]) != slot["type"]):
            yield f"{_name(node)} has no widget {slot['name']} of the type {slot['type']} that can be connected"
    for slot in given:
        if slot["name"] in info["input_order"].get("required", []) and slot["link"] is None:
            yield f"{_name(node)}: nothing is connected to {slot['name']}"
    kinds = [kind if isinstance(kind, str) else "COMBO" for kind in info["output"]]
    outputs = list(zip(info["output_name"], kinds, strict=True))
    ours = node["type"].startswith("AS15_")  # ComfyUI's own nodes gain outputs from version to version
    if _slots(node["outputs"]) != (outputs if ours else outputs[: len(node["outputs"])]):
        yield f"{_name(node)} has the outputs {_slots(node['outputs'])}, its schema {outputs}"


def _slots(slots: list[dict]) -> Slots:
    return [(slot["name"], slot["type"]) for slot in slots]


def _widgets(node: dict, info: dict) -> Iterator[str]:
    kinds = {name: (kind, options) for name, kind, options in inputs_of(info)}
    names, values = widget_names(info), node["widgets_values"]
    offered = [file["name"] for file in node["properties"].get("models", [])]  # for a download
    linked = {slot["name"] for slot in node["inputs"] if "widget" in slot and slot["link"] is not None}
    if len(names) != len(values):
        yield f"{_name(node)}: {len(values)} values for the widgets {names}"
        return
    for name, value in zip(names, values, strict=True):
        if name is None:
            fits = value in AFTER_GENERATE
        else:
            fits = name in linked or _fits(value, *kinds[name]) or value in offered
        if not fits:
            yield f"{_name(node)}: {value!r} is not allowed for {name or 'control after generate'}"


def _fits(value: object, kind: str | list, options: dict) -> bool:
    if isinstance(kind, list) or kind == "COMBO":
        return value in (kind if isinstance(kind, list) else options["options"])
    if kind in ("BOOLEAN", "STRING"):
        return isinstance(value, {"BOOLEAN": bool, "STRING": str}[kind])
    if isinstance(value, bool) or not isinstance(value, int if kind == "INT" else (int, float)):
        return False
    return options.get("min", value) <= value <= options.get("max", value)


def _links(workflow: dict, nodes: dict[int, dict]) -> Iterator[str]:
    """The table of links must agree with the nodes and the reroutes."""
    table: dict[int, list] = {link[0]: link for link in workflow["links"]}
    if len(table) != len(workflow["links"]):
        yield "two links have the same id"
    leaving = [(n["id"], i, k) for n in nodes.values() for i, s in enumerate(n["outputs"]) for k in s["links"] or []]
    arriving = [
        (n["id"], i, s["link"]) for n in nodes.values() for i, s in enumerate(n["inputs"]) if s["link"] is not None
    ]
    if sorted(leaving) != sorted((link[1], link[2], link[0]) for link in workflow["links"]):
        yield "outputs and the table of links do not agree"
        return
    if sorted(arriving) != sorted((link[3], link[4], link[0]) for link in workflow["links"]):
        yield "inputs and the table of links do not agree"
        return
    for number, source, output, target, slot, kind in workflow["links"]:
        ends = nodes[source]["outputs"][output]["type"], nodes[target]["inputs"][slot]["type"]
        if not set(ends) <= {kind, "*"}:
            yield f"link {number} is called {kind} and goes from {ends[0]} to {ends[1]}"
    if workflow["last_node_id"] < max(nodes) or workflow["last_link_id"] < max(table):
        yield "the next new node or link would get an id that is taken"
    through = {reroute["id"]: set(reroute["linkIds"]) for reroute in workflow["extra"].get("reroutes", [])}
    for bent in workflow["extra"].get("linkExtensions", []):
        if bent["id"] not in through.get(bent["parentId"], ()):
            yield f"link {bent['id']} goes through a reroute that does not know it"
    if not set().union(*through.values()) <= table.keys():
        yield "a reroute knows a link that is not there"


def _layout(workflow: dict, nodes: dict[int, dict]) -> Iterator[str]:
    for _, source, _, target, *_ in workflow["links"]:
        (x, y), (x2, y2) = nodes[source]["pos"], nodes[target]["pos"]
        below = x == x2 and y < y2
        if x + nodes[source]["size"][0] > x2 and not below:
            yield f"the link from {_name(nodes[source])} to {_name(nodes[target])} runs backwards"
    boxes = [_box(node) for node in nodes.values()] + [group["bounding"] for group in workflow["groups"]]
    width, height = (max(box[i] + box[i + 2] for box in boxes) - min(box[i] for box in boxes) for i in (0, 1))
    if width > WIDEST:
        yield f"{width:.0f} pixels are too wide for a window"
    if height > TALLEST:
        yield f"{height:.0f} pixels are too high for a window"
    for node in nodes.values():
        for group in workflow["groups"]:
            if _meet(_box(node), group["bounding"]) and not _holds(group["bounding"], _box(node)):
                yield f"{_name(node)} sticks out of the group {group['title']}"
        if node["type"].startswith("AS15_") and not node["flags"].get("collapsed"):
            below = [node["pos"][0], node["pos"][1] + node["size"][1], node["size"][0], FOOTER]
            for other in nodes.values():
                if _meet(below, _box(other)):
                    yield f"{_name(node)} may grow a footer, and {_name(other)} is too near for one"
    for one, other in combinations(nodes.values(), 2):
        if _meet(_box(one), _box(other)):
            yield f"{_name(one)} overlaps {_name(other)}"
    if workflow["extra"]["ds"]["scale"] < READABLE:
        yield "the texts are too small at this scale"


def _box(node: dict) -> list[float]:
    """Return left, top, width and height, with the title bar."""
    height = 0 if node["flags"].get("collapsed") else node["size"][1]
    return [node["pos"][0], node["pos"][1] - TITLE, node["size"][0], height + TITLE]


def _meet(a: list[float], b: list[float]) -> bool:
    return all(a[i] < b[i] + b[i + 2] and b[i] < a[i] + a[i + 2] for i in (0, 1))


def _holds(outer: list[float], inner: list[float]) -> bool:
    return all(outer[i] <= inner[i] and inner[i] + inner[i + 2] <= outer[i] + outer[i + 2] for i in (0, 1))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for item in (*value, *value.values()) for text in _texts(item))
    elif isinstance(value, list):
        yield from (text for item in value for text in _texts(item))
