"""Work that does not depend on the step is done once per song."""

from __future__ import annotations

from pack_under_test.acestep_core.checkpoints import reader
from pack_under_test.nodes.loaders import LoadModelNode

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


def check_each_header_is_parsed_once_per_queue(world: World) -> None:
    chosen = ("nano", "auto", "auto")
    reader._parse_header.cache_clear()
    assert LoadModelNode.validate_inputs(*chosen) is True
    LoadModelNode.fingerprint_inputs(*chosen, "auto", "auto")
    LoadModelNode.execute(*chosen, "auto", "auto")
    parsed = reader._parse_header.cache_info()
    assert parsed.misses == parsed.currsize > 0  # every file once
    assert parsed.hits > parsed.misses
