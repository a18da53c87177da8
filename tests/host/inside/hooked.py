"""Weights that ComfyUI's callbacks patch for one conditioning, and change between the steps."""

from __future__ import annotations

import comfy.hooks
from pack_under_test.acestep_core.models.dit import DiT
from pack_under_test.nodes.comfy_runtime.model import SongCondition

from .odd_inputs import with_data
from .partial import weights_of_an_adapter
from .residence import remembered
from .world import World, difference


def hooked(world: World, *strengths: tuple[float, float]) -> list:
    """The conditioning with an adapter, and the strength that it has from each share of the steps on."""
    group = comfy.hooks.create_hook_lora(weights_of_an_adapter(world.model), 1.0, 0.0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    for start, strength in strengths:
        keyframes.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
    group.set_keyframes_on_hooks(keyframes)
    return with_data(world, callbacks=group)


def song(world: World, conditioning: list):
    usual, world.conditioning = world.conditioning, conditioning
    try:
        return world.ksample(world.model.clone())
    finally:
        world.conditioning = usual


def check_a_strength_that_changes_is_heard_at_once(world: World) -> None:
    late = hooked(world, (0.0, 0.0), (0.5, 1.0))
    made, prepared = song(world, late), SongCondition.prepared

    def afresh(self, *arguments):
        self._prepared.clear()
        return prepared(self, *arguments)

    SongCondition.prepared = afresh
    try:
        reference = song(world, late)
    finally:
        SongCondition.prepared = prepared
    assert difference(made, reference) == 0
    assert difference(made, song(world, hooked(world, (0.0, 1.0)))) > 1e-3
    assert difference(made, world.ksample()) > 1e-3


def check_only_the_latest_keys_and_values_are_kept(world: World) -> None:
    kept, prepared = [], SongCondition.prepared

    def noting(self, *arguments):
        result = prepared(self, *arguments)
        kept.append((len(self._prepared), sum(one() is not None for one in made)))
        return result

    SongCondition.prepared = noting
    try:
        with remembered(DiT, "prepare") as made:
            song(world, hooked(world, (0.0, 0.2), (0.2, 0.6), (0.6, 1.0)))
    finally:
        SongCondition.prepared = prepared
    assert len(made) == 3 and kept == 4 * [(1, 1)], (len(made), kept)
