"""A compact graph, and the frontend's format of it."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, field
from typing import Any

from tests.host.graph import SEED_NAMES, inputs_of, is_widget

TITLE = 30  # pixels of a node's title bar, above its position
GAP = 45  # pixels between two nodes, with the footer of Nodes 2.0
COLUMN_GAP = 35
WINDOW = (1366, 768)  # a small laptop's, which shows a whole graph
LEFT, TOP, MARGIN = 60, 90, 20  # pixels of the frontend's menus, and around the graph
COLLAPSED = 0  # pixels of a collapsed node below its title bar
NAMESPACE = uuid.UUID("5f2d6f0a-6b55-4b8e-9a0e-ac5e51500000")

# ComfyUI's own nodes, as far as all versions from 0.3.75 on have them.
CORE: dict[str, dict[str, Any]] = {
    "LoadAudio": {
        "input": {"required": {"audio": ["COMBO", {"audio_upload": True}]}},
        "output": ["AUDIO"],
        "output_name": ["AUDIO"],
    },
    "PreviewImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_name": []},
    "ConditioningZeroOut": {
        "input": {"required": {"conditioning": ["CONDITIONING"]}},
        "output": ["CONDITIONING"],
        "output_name": ["CONDITIONING"],
    },
    "KSampler": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"default": 0, "control_after_generate": True}],
                "steps": ["INT", {"default": 20}],
                "cfg": ["FLOAT", {"default": 8.0}],
                "sampler_name": ["COMBO", {"default": "euler"}],
                "scheduler": ["COMBO", {"default": "simple"}],
                "positive": ["CONDITIONING"],
                "negative": ["CONDITIONING"],
                "latent_image": ["LATENT"],
                "denoise": ["FLOAT", {"default": 1.0}],
            }
        },
        "output": ["LATENT"],
        "output_name": ["LATENT"],
    },
}
for _info in CORE.values():
    _info["input_order"] = {group: list(inputs) for group, inputs in _info["input"].items()}


def plain(info: dict) -> dict:
    """Return the schema of a node with COMBO for outputs that some versions give as a list."""
    return {**info, "output": [kind if isinstance(kind, str) else "COMBO" for kind in info["output"]]}


@dataclass(frozen=True)
class Output:
    """An output of a node, to connect."""

    node: Node
    slot: int


@dataclass
class Node:
    """A node of a graph. `values` and `sources` are its widgets and connected inputs, by name."""

    id: int
    type: str
    info: dict
    pos: list[float]
    size: list[float]
    title: str | None = None
    after_generate: str = "randomize"
    collapsed: bool = False
    values: dict[str, object] = field(default_factory=dict)
    sources: dict[str, Output] = field(default_factory=dict)
    properties: dict[str, object] = field(default_factory=dict)

    def __getitem__(self, output: str) -> Output:
        return Output(self, self.info["output_name"].index(output))

    @property
    def out(self) -> Output:
        """The first output."""
        return Output(self, 0)

    @property
    def widgets(self) -> list[tuple[str, str, dict]]:
        """Return (name, type, options) of the widgets."""
        return [
            (name, "COMBO" if isinstance(kind, list) else kind, options)
            for name, kind, options in inputs_of(self.info)
            if is_widget(kind, options)
        ]

    def widget_values(self) -> list[object]:
        values: list[object] = []
        for name, kind, options in self.widgets:
            value = self.values.get(name, options.get("default"))
            values.append(float(value) if kind == "FLOAT" else value)  # type: ignore[arg-type]
            if options.get("control_after_generate") or name in SEED_NAMES:
                values.append(self.after_generate)
        return values

    def slots(self, exposed: set[str]) -> list[tuple[str, str, bool]]:
        """Return (name, type, is widget) of the inputs: all sockets, and the connected or exposed widgets."""
        sockets = [(name, kind, False) for name, kind, options in inputs_of(self.info) if not is_widget(kind, options)]
        used = self.sources.keys() | exposed
        return sockets + [(name, kind, True) for name, kind, _ in self.widgets if name in used]


class Graph:
    """Nodes in columns from left to right. `columns` are their widths. A node goes below the last one of its column."""

    def __init__(self, name: str, object_info: dict[str, dict], columns: list[int]):
        self.name, self.widths = name, columns
        self.info = {name: plain(info) for name, info in {**object_info, **CORE}.items()}
        self.nodes: list[Node] = []
        self.notes: list[dict] = []
        self.extra: dict[str, object] = {}
        self.x = [sum(columns[:i]) + i * COLUMN_GAP for i in range(len(columns))]
        self.y = [float(TITLE)] * len(columns)

    def _place(self, column: int, height: float, gap: float) -> tuple[list[float], list[float]]:
        pos, size = [float(self.x[column]), self.y[column]], [float(self.widths[column]), float(height)]
        self.y[column] += height + gap + TITLE
        return pos, size

    def add(
        self,
        type_: str,
        column: int,
        height: float,
        *,
        title: str | None = None,
        collapsed: bool = False,
        after_generate: str = "randomize",
        gap: float = GAP,
        **inputs: object,
    ) -> Node:
        """Add a node. `inputs` are values of widgets or outputs of other nodes, by name."""
        type_ = type_ if type_ in CORE else f"AS15_{type_}"
        pos, size = self._place(column, COLLAPSED if collapsed else height, gap)
        if collapsed:
            size[1] = float(height)
        node = Node(len(self.nodes) + 1, type_, self.info[type_], pos, size, title, after_generate, collapsed)
        names = {name for name, _, _ in inputs_of(node.info)}
        for name, value in inputs.items():
            if name not in names:
                raise KeyError(f"{type_} has no input {name}")
            if isinstance(value, Output):
                node.sources[name] = value
            else:
                node.values[name] = value
        self.nodes.append(node)
        return node

    def note(self, column: int, height: float, texts: dict[str, dict[str, str]]) -> None:
        """Add a note. `texts` has a title and a text per language."""
        pos, size = self._place(column, height, GAP)
        self.notes.append(
            {
                "id": 0,
                "type": "MarkdownNote",
                "pos": pos,
                "size": size,
                "flags": {},
                "order": 0,
                "mode": 0,
                "inputs": [],
                "outputs": [],
                "title": texts["en"]["title"],
                "properties": {"as15_text": texts},
                "widgets_values": [texts["en"]["text"]],
            }
        )

    # -- the frontend's format ----------------------------------------------------------------------------------------

    def links(self, exposed: dict[int, set[str]]) -> list[list]:
        """Return [id, source, output, target, input, type] of each link."""
        links: list[list] = []
        for node in self.nodes:
            for slot, (name, kind, _) in enumerate(node.slots(exposed.get(node.id, set()))):
                if source := node.sources.get(name):
                    own = source.node.info["output"][source.slot]
                    kind = own if kind == "*" else kind
                    links.append([len(links) + 1, source.node.id, source.slot, node.id, slot, kind])
        return links

    def node_entries(self, links: list[list], exposed: dict[int, set[str]]) -> list[dict]:
        into = {(link[3], link[4]): link[0] for link in links}
        entries = []
        for order, node in enumerate(self.nodes):
            inputs = []
            for slot, (name, kind, is_a_widget) in enumerate(node.slots(exposed.get(node.id, set()))):
                widget = {"widget": {"name": name}} if is_a_widget else {}
                inputs.append({"name": name, "type": kind, **widget, "link": into.get((node.id, slot))})
            outputs = []
            for slot, (name, kind) in enumerate(zip(node.info["output_name"], node.info["output"], strict=True)):
                leaving = [link[0] for link in links if (link[1], link[2]) == (node.id, slot)]
                outputs.append({"name": name, "type": kind, "links": leaving})
            entry = {
                "id": node.id,
                "type": node.type,
                "pos": node.pos,
                "size": node.size,
                "flags": {"collapsed": True} if node.collapsed else {},
                "order": order,
                "mode": 0,
                "inputs": inputs,
                "outputs": outputs,
                "properties": {"Node name for S&R": node.type, **node.properties},
                "widgets_values": node.widget_values(),
            }
            entries.append({**entry, "title": node.title} if node.title else entry)
        return entries

    def workflow(self) -> dict:
        """Return the graph as a workflow file."""
        links = self.links({})
        nodes = self.node_entries(links, {})
        for note in self.notes:
            nodes.append({**note, "id": len(nodes) + 1, "order": len(nodes)})
        return {
            "id": str(uuid.uuid5(NAMESPACE, self.name)),
            "revision": 0,
            "last_node_id": len(nodes),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": links,
            "groups": [],
            "config": {},
            "extra": {"ds": self.view(nodes), **self.extra},
            "version": 0.4,
        }

    def view(self, nodes: list[dict]) -> dict:
        """Return the scale and offset that show all nodes in a small window."""
        right = max(node["pos"][0] + node["size"][0] for node in nodes)
        bottom = max(node["pos"][1] + (0 if node["flags"] else node["size"][1]) for node in nodes)
        wide, high = WINDOW[0] - LEFT - 2 * MARGIN, WINDOW[1] - TOP - 2 * MARGIN
        scale = math.floor(100 * min(wide / right, high / bottom, 1)) / 100
        left = LEFT + MARGIN + max(0, (wide - right * scale) / 2)
        return {"scale": scale, "offset": [round(left / scale), round((TOP + MARGIN) / scale)]}
