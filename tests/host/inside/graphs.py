"""CUDA graphs: the nodes' switch, and ComfyUI's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import comfy.cli_args
from pack_under_test.acestep_core.planner import planning

from .planner import codes
from .world import World, notes_of


@contextmanager
def without_graphs() -> Iterator[None]:
    """Run as ComfyUI with --disable-cuda-graphs, an option of later versions."""
    with mock.patch.object(comfy.cli_args.args, "disable_cuda_graphs", True, create=True):
        yield


def check_sample_song_captures_if_it_is_asked_to(world: World) -> None:
    assert notes_of(lambda: world.sample(steps=2)) == notes_of(lambda: world.sample(steps=2, graphs=False)) == []
    (note,) = notes_of(lambda: world.sample(steps=2, graphs=True))
    assert "CUDA graphs are not used: cpu" in note
    with without_graphs():
        (note,) = notes_of(lambda: world.sample(steps=2, graphs=True))
        assert "--disable-cuda-graphs" in note
        assert notes_of(lambda: world.sample(steps=2, graphs=False)) == []


def check_plan_song_captures_unless_it_is_asked_not_to(world: World) -> None:
    generate, received = planning.generate_tokens, []

    def receive(planner, rows, *arguments):
        if rows:
            received.append(planner.graphs)
        return generate(planner, rows, *arguments)

    with mock.patch.object(planning, "generate_tokens", receive):
        for graphs in (True, False):
            codes(graphs=graphs)
        codes()
        with without_graphs():
            codes(graphs=True)
    assert received == [True, False, True, False]
