"""What no step changes is done once for a song, however many steps it takes."""

from __future__ import annotations

from .edits import CoverNode, task
from .residence import remembered
from .world import World, counted, network_of


def check_words_and_source_are_read_once(world: World) -> None:
    network = network_of(world.model)
    usual, world.conditioning = world.conditioning, world.encode(task(world, CoverNode))
    try:
        # KSampler's second condition has no words to read, but a source; it takes steps with guidance alone.
        for work, sources, conditions in (
            (world.sample, 1, 1),
            (world.ksample, 2, 1),
            (lambda: world.ksample(cfg=3.0), 2, 2),
        ):
            with (
                counted(network.encoder) as read,
                counted(network.tokenizer) as heard,
                counted(network.decoder) as steps,
                remembered(type(network.decoder), "prepare") as prepared,
            ):
                work()
            assert steps[0] == 4 * conditions
            assert (read[0], heard[0]) == (1, sources)
            assert len(prepared) == conditions
    finally:
        world.conditioning = usual
