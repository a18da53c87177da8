"""How long a song becomes, with conditioning that does not say it."""

from __future__ import annotations

import torch
from pack_under_test.acestep_core.errors import RequestError
from pack_under_test.nodes.conditioning import LYRICS, SONG

from .world import FRAMES, World, difference


def check_a_latent_sets_the_length(world: World) -> None:
    native = [[caption, {LYRICS: data[LYRICS]}] for caption, data in world.conditioning]
    try:
        world.sample(conditioning=native)
    except RequestError as error:
        assert "how long" in str(error) and "latent" in str(error)
    else:
        raise AssertionError("nobody said how long")
    latent = {"samples": torch.randn(3, 64, FRAMES)}
    assert difference(world.sample(conditioning=native, latent=latent), world.sample()) == 0
    assert SONG in world.conditioning[0][1]
    assert world.sample(steps=1, batch=2, latent={"samples": torch.zeros(1, 64, 200)}).shape == (2, 64, 200)
    assert world.sample(steps=1, latent={"samples": torch.zeros(1, 64, 7)}).shape == (1, 64, 7)
