"""The blueprints: one subgraph node each, which newest ComfyUI lists in its node library and search."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from .edits import EDITS
from .graph import NAMESPACE, TITLE, Graph, Node, Output
from .parts import EDIT_COLUMNS, INSTRUMENTAL, POP, SEED, Builder

INPUT, OUTPUT = -10, -20  # ids of a subgraph's input and output node
SIZE = [400.0, 520.0]
NAMES = ["ace step", "acestep", "ace-step 1.5", "music", "song"]


@dataclass
class Blueprint:
    """A graph whose inputs and widgets `exposed` are those of one node, by name. `result` is its output."""

    graph: Graph
    description: str
    aliases: list[str]
    result: Output
    exposed: list[tuple[Node, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.graph.name

    def unique(self, *parts: object) -> str:
        return str(uuid.uuid5(NAMESPACE, " ".join(map(str, (self.name, *parts)))))

    def workflow(self) -> dict:
        """Return the blueprint file: a workflow with the subgraph node alone."""
        widgets = [(node, name) for node, name in self.exposed if name in {widget for widget, *_ in node.widgets}]
        inputs = [
            {"name": name, "type": self.type_of(node, name), **({"widget": {"name": name}} if (node, name) in widgets
             else {}), "link": None}
            for node, name in self.exposed
        ]  # fmt: skip
        values = []
        for node, name in widgets:
            options = next(options for widget, _, options in node.widgets if widget == name)
            values.append(node.values.get(name, options.get("default")))
        outer = {
            "id": 1,
            "type": self.unique("definition"),
            "pos": [0, TITLE],
            "size": SIZE,
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": inputs,
            "outputs": [{"name": "audio", "type": "AUDIO", "links": []}],
            "title": self.name,
            "properties": {"proxyWidgets": [["-1", name] for _, name in widgets]},
            "widgets_values": values,
        }
        return {
            "id": self.unique("workflow"),
            "revision": 0,
            "last_node_id": 1,
            "last_link_id": 0,
            "nodes": [outer],
            "links": [],
            "groups": [],
            "definitions": {"subgraphs": [self.definition()]},
            "config": {},
            "extra": {"BlueprintDescription": self.description, "BlueprintSearchAliases": self.aliases},
            "version": 0.4,
        }

    def type_of(self, node: Node, name: str) -> str:
        return next(kind for slot, kind, _ in node.slots({name}) if slot == name)

    def definition(self) -> dict:
        exposed: dict[int, set[str]] = {}
        for node, name in self.exposed:
            exposed.setdefault(node.id, set()).add(name)
        links = self.graph.links(exposed)
        inputs = []
        for slot, (node, name) in enumerate(self.exposed):
            target = [entry for entry, *_ in node.slots(exposed[node.id])].index(name)
            links.append([len(links) + 1, INPUT, slot, node.id, target, self.type_of(node, name)])
            inputs.append({"id": self.unique("input", name), "name": name, "type": links[-1][5],
                           "linkIds": [links[-1][0]], "pos": [-140, TITLE + 20 * slot]})  # fmt: skip
        links.append([len(links) + 1, self.result.node.id, self.result.slot, OUTPUT, 0, "AUDIO"])
        right = sum(self.graph.widths) + 400
        names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        output = {"id": self.unique("output"), "name": "audio", "type": "AUDIO", "linkIds": [links[-1][0]],
                  "pos": [right, TITLE]}  # fmt: skip
        return {
            "id": self.unique("definition"),
            "version": 1,
            "state": {"lastGroupId": 0, "lastNodeId": len(self.graph.nodes), "lastLinkId": len(links),
                      "lastRerouteId": 0},
            "revision": 0,
            "config": {},
            "name": self.name,
            "inputNode": {"id": INPUT, "bounding": [-260, 0, 120, 40 + 20 * len(inputs)]},
            "outputNode": {"id": OUTPUT, "bounding": [right, 0, 120, 60]},
            "inputs": inputs,
            "outputs": [output],
            "widgets": [],
            "nodes": self.graph.node_entries(links, exposed),
            "groups": [],
            "links": [dict(zip(names, link, strict=True)) for link in links],
            "extra": {},
        }  # fmt: skip


def text_to_song(info: dict) -> Blueprint:
    b = Builder("Text to Song (ACE-Step 1.5)", info, [300, 330, 300, 280])
    model = b.model()
    song = b.song(1, 450, POP, duration=30)
    sample = b.sample(3, model, b.encode(2, model, song.out).out, seed=SEED)
    decode = b.graph.add("Decode", 3, 106, vae=model["vae"], latent=sample.out)
    names = ["caption", "lyrics", "language", "duration", "bpm", "key"]
    return Blueprint(
        b.graph,
        "Generates a song from caption, lyrics and metadata with ACE-Step 1.5.",
        [*NAMES, "text to music", "generate music", "lyrics"],
        decode.out,
        [*((song, name) for name in names), (sample, "seed"), (sample, "steps"), (model, "model")],
    )


def edit_blueprint(info: dict, edit: str, description: str, aliases: list[str], widgets: list[str]) -> Blueprint:
    chosen = EDITS[edit]
    b = Builder(f"{chosen.task} (ACE-Step 1.5)", info, EDIT_COLUMNS)
    model, song = b.model(**chosen.model), b.song(1, 450, chosen.song["caption"], lyrics=INSTRUMENTAL)  # type: ignore[arg-type]
    task = b.graph.add(chosen.task, 2, chosen.height, vae=model["vae"], **chosen.values)  # type: ignore[arg-type]
    sample = b.sample(3, model, b.encode(2, model, song.out, task=task.out).out, seed=SEED)
    decode = b.graph.add("Decode", 4, 106, vae=model["vae"], latent=sample.out, normalize=chosen.normalize)
    exposed = [(task, "audio"), *((task, name) for name in widgets), (song, "caption"), (song, "lyrics"),
               (sample, "seed"), (sample, "steps"), (model, "model")]  # fmt: skip
    return Blueprint(b.graph, description, [*NAMES, *aliases], decode.out, exposed)


def blueprints(info: dict) -> list[Blueprint]:
    return [
        text_to_song(info),
        edit_blueprint(
            info, "cover", "Generates a cover: melody, chords and beat of the audio in another style.",
            ["remix", "style transfer", "audio to audio"], ["strength"],
        ),
        edit_blueprint(
            info, "repaint", "Regenerates a part of a song and keeps the rest.",
            ["inpaint audio", "edit music"], ["start", "end"],
        ),
        edit_blueprint(
            info, "extend", "Extends a song at its end or beginning.",
            ["outpaint audio", "continue song", "longer"], ["after", "before", "overlap"],
        ),
        edit_blueprint(
            info, "stems", "Extracts, adds or completes tracks of a song. Made for base and sft models.",
            ["stem separation", "extract vocals", "karaoke"], ["operation", "track", "more_tracks"],
        ),
    ]  # fmt: skip
