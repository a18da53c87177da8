"""Weight hooks of one conditioning, whose strength changes between steps."""

from __future__ import annotations

import comfy.hooks
from pack_under_test.acestep_core.models.dit import DiT
from pack_under_test.nodes.comfy_runtime.conds import SongCond

from .odd_inputs import with_data
from .partial import weights_of_an_adapter
from .residence import weak_references
from .world import World, difference


def hooked(world: World, *strengths: tuple[float, float]) -> list:
    """Return the conditioning with an adapter whose strengths are (share of the steps, strength)."""
    group = comfy.hooks.create_hook_lora(weights_of_an_adapter(world.model), 1.0, 0.0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    for start, strength in strengths:
        keyframes.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
    group.set_keyframes_on_hooks(keyframes)
    return with_data(world, hooks=group)


def song(world: World, conditioning: list):
    return world.ksample(world.model.clone(), conditioning=conditioning)


def check_a_new_strength_applies_from_its_step_on(world: World) -> None:
    late = hooked(world, (0.0, 0.0), (0.5, 1.0))
    hooked_song, prepared = song(world, late), SongCond.prepared

    def uncached(self, *arguments):
        self._prepared.clear()
        return prepared(self, *arguments)

    SongCond.prepared = uncached
    try:
        reference = song(world, late)
    finally:
        SongCond.prepared = prepared
    assert difference(hooked_song, reference) == 0
    assert difference(hooked_song, song(world, hooked(world, (0.0, 1.0)))) > 1e-3
    assert difference(hooked_song, world.ksample()) > 1e-3


def check_only_the_latest_keys_and_values_stay_in_memory(world: World) -> None:
    counts, prepared = [], SongCond.prepared

    def counting(self, *arguments):
        result = prepared(self, *arguments)
        counts.append((len(self._prepared), sum(one() is not None for one in states)))
        return result

    SongCond.prepared = counting
    try:
        with weak_references(DiT, "prepare") as states:
            song(world, hooked(world, (0.0, 0.2), (0.2, 0.6), (0.6, 1.0)))
    finally:
        SongCond.prepared = prepared
    assert len(states) == 3 and counts == 4 * [(1, 1)], (len(states), counts)
