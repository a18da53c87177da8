"""The duration of a song whose conditioning has none."""

from __future__ import annotations

import torch
from pack_under_test.nodes.comfy_runtime.conditioning import LYRICS_KEY, SONG_KEY

from .odd_inputs import refusal
from .world import FRAMES, World, difference


def check_a_latent_sets_the_length(world: World) -> None:
    native = [[caption, {LYRICS_KEY: data[LYRICS_KEY]}] for caption, data in world.conditioning]
    sentence = refusal(lambda: world.sample(conditioning=native))
    assert "duration" in sentence and "latent" in sentence
    latent = {"samples": torch.randn(3, 64, FRAMES)}
    assert difference(world.sample(conditioning=native, latent=latent), world.sample()) == 0
    assert SONG_KEY in world.conditioning[0][1]
    assert world.sample(steps=1, batch=2, latent={"samples": torch.zeros(1, 64, 200)}).shape == (2, 64, 200)
    assert world.sample(steps=1, latent={"samples": torch.zeros(1, 64, 7)}).shape == (1, 64, 7)
