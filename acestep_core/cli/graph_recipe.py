"""The recipe of a song that ComfyUI saved: its graph, if this command can make the same song."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any

from ..errors import RequestError, shown
from ..files import parse_json
from ..lyrics.check import estimate_duration

log = logging.getLogger("acestep")

LOAD, SONG, EDIT_SONG, ENCODE, SAMPLE, DECODE, FINISH = (
    f"AS15_{name}" for name in ("LoadModel", "Song", "EditSong", "Encode", "Sample", "Decode", "FinishSong")
)
SAVERS = ("AS15_SaveSong", "SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "SaveAudioAdvanced", "PreviewAudio")
AUTO = (None, "auto", 0)
SEEDS = 2**32  # ComfyUI's seeds are longer, and their lower half selects the noise
STORAGE = {"fp8_e4m3fn": "fp8"}


def graph_settings(prompt: str, path: str) -> dict[str, Any]:
    """Return the settings of a song, as in `Recipe.to_dict`, from the prompt in a file's tags.

    Raises RequestError that names the first node which this command cannot run.
    """
    graph = _Graph(path, _parse(prompt, path))
    ends = {graph.source(saver, "audio", DECODE, FINISH) for saver in graph.nodes_of(*SAVERS)}
    if len(ends) != 1:
        raise RequestError(
            f"{path}: its graph saves {len(ends) or 'no'} songs; the command line makes one of one graph"
        )
    end = ends.pop()
    finish = end if end in graph.nodes_of(FINISH) else None
    decode = end if finish is None else graph.source(finish, "audio", DECODE)
    sample = graph.source(decode, "latent", SAMPLE)
    encode = graph.source(sample, "conditioning", ENCODE)
    song = graph.source(encode, "song", SONG, EDIT_SONG)
    loads = {graph.source(*link, LOAD) for link in ((decode, "vae"), (sample, "model"), (encode, "text_encoder"))}
    if len(loads) > 1:
        raise RequestError(f"{path}: its graph loads {len(loads)} models, and the command line loads one")
    unrecorded = ((sample, name) for name in ("sigmas", "latent", "negative"))
    for node, name in ((encode, "task"), (encode, "codes"), (song, "song"), *unrecorded):
        graph.refuse_link(node, name)
    if graph.value(sample, "retake_variance"):
        raise RequestError(f"{path}: {graph.name(sample)} makes a retake, which the command line cannot")
    takes = graph.value(sample, "batch_size") or 1
    if takes != 1:
        log.warning("%s: its graph makes %s takes; --from makes the first of them", path, shown(takes))
    settings = {
        **{name: graph.value(song, name) for name in ("caption", "lyrics")},
        **{name: graph.value(song, name) for name in ("language", "duration", "bpm", "key", "time_signature")},
        **{name: graph.value(sample, name) for name in ("steps", "shift", "solver", "guidance_method", "dcw")},
        "guidance_scale": graph.value(sample, "guidance"),
        **_model_settings(graph, loads.pop()),
    }
    settings = {name: value for name, value in settings.items() if value not in AUTO}
    shares = {name: graph.value(sample, name) for name in ("guidance_start", "guidance_end")}
    settings |= {name: value for name, value in shares.items() if value is not None}  # 0 is a value of theirs
    if "duration" not in settings and isinstance(settings.get("lyrics", ""), str):
        settings["duration"] = estimate_duration(settings.get("lyrics", ""))  # as Encode Song does
    if finish is not None:
        settings |= _finish_settings(graph, finish, settings.get("duration"))
    seed, normalize = graph.value(sample, "seed"), graph.value(decode, "normalize")
    return {**settings, "seed": seed % SEEDS if isinstance(seed, int) else seed, "normalize": normalize}


def _finish_settings(graph: _Graph, node: str, duration: object) -> dict[str, Any]:
    """Return the finish of a song, and its duration without the seconds that --ending adds."""
    from ..text.prompts import DEFAULT_SECONDS

    names = ("loudness", "true_peak", "fade_in", "fade_out", "trim", "ending")
    finish = {name: graph.value(node, name) for name in names}
    if isinstance(finish["loudness"], str):
        finish["loudness"] = finish["loudness"].partition(" (")[0]
    if finish["loudness"] == "number":
        finish["loudness"] = graph.value(node, "lufs")
    ending, seconds = finish["ending"], DEFAULT_SECONDS if duration is None else duration
    if not ending or not isinstance(ending, (int, float)) or not isinstance(seconds, (int, float)):
        return {"finish": finish}
    if seconds <= ending:
        raise RequestError(f"{graph.path}: the ending of {graph.name(node)} is as long as its song")
    return {"finish": finish, "duration": seconds - ending}


def _model_settings(graph: _Graph, load: str) -> dict[str, Any]:
    parts = {name: graph.value(load, name) for name in ("model", "vae", "text_encoder")}
    # An entry of the node's list may have a category or a folder in front.
    names = {name: PureWindowsPath(part).name if isinstance(part, str) else part for name, part in parts.items()}
    dtype = graph.value(load, "dtype")
    weights = {"storage": STORAGE[dtype]} if isinstance(dtype, str) and dtype in STORAGE else {"dtype": dtype}
    return {**names, **weights, "variant": graph.value(load, "variant")}


@dataclass(frozen=True)
class _Graph:
    """A graph in ComfyUI's API format: class and inputs of each node by its id."""

    path: str
    nodes: Mapping[str, Any]

    def nodes_of(self, *classes: str) -> list[str]:
        return [node for node in self.nodes if self._class(node) in classes]

    def source(self, node: str, name: str, *classes: str) -> str:
        """Return the node that gives an input, if it is of one of these classes."""
        link = self._input(node, name)
        if not _is_link(link):
            raise RequestError(
                f"{self.path}: {self.name(node)} has no {name} connected, so its song cannot be made again"
            )
        if self._class(link[0]) not in classes:
            raise self._unknown(link[0])
        return link[0]

    def value(self, node: str, name: str) -> Any:
        """Return the value of a widget, None if it is missing."""
        self.refuse_link(node, name)
        return self._input(node, name)

    def refuse_link(self, node: str, name: str) -> None:
        """Raise RequestError if another node gives this input."""
        if _is_link(link := self._input(node, name)):
            raise self._unknown(link[0])

    def name(self, node: str) -> str:
        """Return class and id of a node, for messages."""
        return f"{shown(self._class(node))} (node {node:.20})"

    def _class(self, node: str) -> object:
        content = self.nodes.get(node)
        return content.get("class_type") if isinstance(content, dict) else None

    def _input(self, node: str, name: str) -> Any:
        inputs = self.nodes[node].get("inputs")
        return inputs.get(name) if isinstance(inputs, dict) else None

    def _unknown(self, node: str) -> RequestError:
        return RequestError(
            f"{self.path}: its graph has {self.name(node)}, which the command line cannot run; open the file in ComfyUI"
        )


def _is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _parse(prompt: str, path: str) -> dict[str, Any]:
    try:
        nodes = parse_json(prompt)
    except ValueError as error:
        raise RequestError(f"{path}: the graph in its tags is not valid JSON: {error}") from error
    if not isinstance(nodes, dict):
        raise RequestError(f"{path}: the graph in its tags is not an object of nodes")
    return nodes
