"""Work that does not depend on the step is done once per song."""

from __future__ import annotations

from .edits import CoverNode, task
from .residence import weak_references
from .world import World, counted, network_of


def check_text_and_source_are_encoded_once(world: World) -> None:
    network = network_of(world.model)
    usual, world.conditioning = world.conditioning, world.encode(task(world, CoverNode))
    try:
        # KSampler's negative condition has no text, but a source. It takes steps only with guidance.
        for work, sources, conditions in (
            (world.sample, 1, 1),
            (world.ksample, 2, 1),
            (lambda: world.ksample(cfg=3.0), 2, 2),
        ):
            with (
                counted(network.encoder) as encoded,
                counted(network.tokenizer) as tokenized,
                counted(network.decoder) as steps,
                weak_references(type(network.decoder), "prepare") as prepared,
            ):
                work()
            assert steps[0] == 4 * conditions
            assert (encoded[0], tokenized[0]) == (1, sources)
            assert len(prepared) == conditions
    finally:
        world.conditioning = usual
