"""The VAE in tiles: by choice, or because memory runs out."""

from __future__ import annotations

import comfy.model_management as mm
import torch
from pack_under_test.acestep_core.errors import RequestError

from .world import World, difference, shown

FRAMES = 700
# In float32 with AVX2, the sums of a convolution depend slightly on the tile size.
ROUNDING = 3e-5


class SmallGpu:
    """A VAE that runs out of memory above that many frames at once."""

    def __init__(self, world: World, frames: int):
        self.network, self.frames, self.sizes = world.vae.first_stage_model, frames, []

    def __enter__(self) -> SmallGpu:
        decode, posterior = self.network.decode, self.network.posterior
        self.network.decode = lambda latents, wide=None: decode(self._room(latents, latents.shape[1]), wide)
        self.network.posterior = lambda wave, wide=None: posterior(self._room(wave, wave.shape[-1] // 1920), wide)
        return self

    def __exit__(self, *_: object) -> None:
        del self.network.decode, self.network.posterior

    def _room(self, tensor: torch.Tensor, frames: int) -> torch.Tensor:
        self.sizes.append(frames)
        if frames > self.frames:
            raise mm.OOM_EXCEPTION("no room")
        return tensor


def latents() -> torch.Tensor:
    return torch.randn(1, 64, FRAMES, generator=torch.Generator().manual_seed(0))


def sound() -> torch.Tensor:
    return torch.randn(1, 2, FRAMES * 1920, generator=torch.Generator().manual_seed(0)) * 0.1


def check_out_of_memory_continues_in_smaller_tiles(world: World) -> None:
    whole, encoded = world.decode(latents()), world.encode_audio(sound())
    with SmallGpu(world, 130) as gpu:
        assert difference(world.decode(latents()), whole) <= 1e-5
        assert gpu.sizes[0] > 300 and gpu.sizes[-1] <= 130, gpu.sizes
        assert difference(world.encode_audio(sound()), encoded) <= ROUNDING
    notes = [line for line in world.log.lines if "out of memory" in line]
    assert len(notes) == 4 and "5.12 s" in notes[-1], notes
    assert world.vae.patcher.model.network is world.vae.first_stage_model


def check_later_kinds_of_out_of_memory_count(world: World) -> None:
    class Other(RuntimeError):
        pass

    def fails(model, size: int) -> int:
        if size > 130:
            raise Other("a kind that OOM_EXCEPTION is not")
        return size

    usual = getattr(mm, "is_oom", None)
    try:
        mm.is_oom = lambda error: isinstance(error, Other)
        assert world.vae._in_tiles(fails, 512, FRAMES) <= 130
        mm.is_oom = lambda error: False
        try:
            world.vae._in_tiles(fails, 512, FRAMES)
        except Other:
            pass
        else:
            raise AssertionError("another error counted as out of memory")
    finally:
        if usual is None:
            del mm.is_oom
        else:
            mm.is_oom = usual


def check_smaller_tiles_are_noted(world: World) -> None:
    with SmallGpu(world, 300), shown() as texts:
        world.decode(latents())
    (text,) = texts
    assert "10.24 s" in text


def check_no_room_at_all_raises_one_sentence(world: World) -> None:
    with SmallGpu(world, 10), world.without_silence() as encode_silence:
        for work in (lambda: world.decode(latents()), lambda: world.encode_audio(sound()), encode_silence):
            try:
                work()
            except RequestError as error:
                assert "out of memory" in str(error) and "--cpu-vae" in str(error)
                assert error.__context__ is None
            else:
                raise AssertionError("no RequestError")


def check_tiles_of_comfyuis_tiled_nodes(world: World) -> None:
    """Tiles are in latent frames for decoding, in samples for encoding."""
    decoded, encoded = world.vae.decode(latents()), world.vae.encode(sound().movedim(1, -1))
    with SmallGpu(world, 1000) as gpu:
        tiled = world.vae.decode_tiled(latents(), tile_y=100, overlap=5)
        assert difference(tiled, decoded) <= 1e-5 and max(gpu.sizes) == 100
        assert difference(world.vae.decode_tiled(latents(), tile_x=1, overlap=0), decoded) <= 1e-5
        gpu.sizes.clear()
        again = world.vae.encode_tiled(sound().movedim(1, -1), tile_x=100 * 1920, overlap=64)
        assert difference(again, encoded) <= ROUNDING and max(gpu.sizes) == 100
    assert decoded.shape == (1, FRAMES * 1920, 2) and encoded.shape == (1, 64, FRAMES)
