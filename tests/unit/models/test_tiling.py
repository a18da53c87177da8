import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.config import VAEConfig
from acestep_core.errors import Cancelled, RequestError
from acestep_core.models.layers import TORCH
from acestep_core.models.tiling import Tile, TileLayout, decode_tiled, decoder_reach, encode_tiled, encoder_reach
from benchmarks.meter import Meter
from tests.support import tiny
from tests.support.tiny import draw, relative_error


def strided(*ratios: int) -> VAEConfig:
    return VAEConfig(4, 2, 2, channel_multiples=(1,) * len(ratios), downsampling_ratios=ratios)


SMALL = strided(2, 4, 4, 6, 10)
ROUNDING = 2e-6


@pytest.fixture(autouse=True)
def no_slow_first_calls():
    """oneDNN of torch before 2.7 takes seconds for each new length of few channels."""
    with torch.backends.mkldnn.flags(enabled=TORCH >= (2, 7)):
        yield


@pytest.fixture(scope="module")
def vae():
    return tiny.vae(SMALL)


def test_layout():
    assert list(TileLayout(1000, 512, 64)) == [
        Tile(0, 384, 0, 448),
        Tile(384, 768, 320, 832),
        Tile(768, 1000, 704, 1000),
    ]


@pytest.mark.parametrize("size", [19, 20, 32, 100])
def test_layout_uses_each_frame_once_and_limits_tile_sizes(size):
    for frames in range(1, 130):
        layout = TileLayout(frames, size, 9)
        tiles = list(layout)
        assert len(tiles) == len(layout)
        assert [frame for tile in tiles for frame in range(tile.start, tile.end)] == list(range(frames))
        assert all(tile.last - tile.first <= size for tile in tiles)
        assert all(tile.start - tile.first in (9, tile.start) for tile in tiles)
        assert all(tile.last - tile.end in (9, frames - tile.end) for tile in tiles)


def test_reach_of_the_released_vae():
    assert (decoder_reach(VAEConfig()), encoder_reach(VAEConfig())) == (9, 7)


def dependencies(output, inputs):
    """Return the first and last position of `inputs` [1, c, n] that the sum of `output` depends on."""
    (gradient,) = torch.autograd.grad(output.sum(), inputs)
    where = gradient[0].abs().sum(0).nonzero()
    return where.min().item(), where.max().item()


@pytest.mark.parametrize("ratios", [(2, 4, 4, 6, 10), (2, 4, 4, 8, 8), (2, 4, 6), (2, 2), (4,)])
def test_reach_equals_that_of_gradients(ratios):
    config = strided(*ratios)
    vae, hop = tiny.vae(config).double(), config.hop
    reach, here = decoder_reach(config), decoder_reach(config) + 3
    latents = draw(1, 2, 2 * here + 1).double().requires_grad_()
    first, last = dependencies(vae.decoder(latents)[..., here * hop : (here + 1) * hop], latents)
    assert max(here - first, last - here) == reach
    reach, here = encoder_reach(config), encoder_reach(config) + 3
    waveform = draw(1, 2, (2 * here + 1) * hop).double().requires_grad_()
    first, last = dependencies(vae.encoder(waveform)[..., here], waveform)
    assert max(here - first // hop, last // hop - here) == reach


def test_tiled_equals_untiled_near_tile_borders(vae):
    latents = draw(1, 60, 2)
    for frames in (1, 2, 9, 10, 22, 23, 32, 33, 39, 40, 41, 44, 45, 60):
        waveform = vae.decode(latents[:, :frames])
        assert relative_error(decode_tiled(vae, latents[:, :frames], 40, 9), waveform) <= ROUNDING, frames
        waveform = waveform[..., 7 * (frames % 3) :]  # some end inside a frame
        assert relative_error(encode_tiled(vae, waveform, 32, 7), vae.encode(waveform)) <= ROUNDING, frames


@pytest.mark.parametrize(("frames", "extra"), [(1, 1), (59, 1), (60, 2), (1000, 30), (1001, 1000), (15_000, 500)])
def test_tiled_equals_untiled_up_to_ten_minutes(frames, extra):
    """With frames of 48 samples, for which the reach is longer."""
    config = strided(2, 4, 6)
    vae, latents = tiny.vae(config), draw(1, frames, 2)
    decoded, encoded = decoder_reach(config), encoder_reach(config)
    waveform = vae.decode(latents)
    assert relative_error(decode_tiled(vae, latents, 2 * decoded + extra, decoded), waveform) <= ROUNDING
    assert relative_error(encode_tiled(vae, waveform, 2 * encoded + extra, encoded), vae.encode(waveform)) <= ROUNDING


def test_a_batch_equals_its_items(vae):
    latents = draw(3, 50, 2)
    waveform = decode_tiled(vae, latents, 24, 9)
    encoded = encode_tiled(vae, waveform, 24, 7)
    for i in range(3):
        assert torch.equal(waveform[i : i + 1], decode_tiled(vae, latents[i : i + 1], 24, 9))
        assert torch.equal(encoded[i : i + 1], encode_tiled(vae, waveform[i : i + 1], 24, 7))


def test_a_smaller_overlap_changes_the_result():
    """In float64, as one frame less changes little."""
    vae, latents = tiny.vae(SMALL).double(), draw(1, 40, 2).double()
    whole = vae.decoder(latents.transpose(1, 2))[..., 20 * 1920 :]
    for overlap, differs in ((8, True), (9, False)):
        piece = vae.decoder(latents[:, 20 - overlap :].transpose(1, 2))[..., overlap * 1920 :]
        assert (relative_error(piece, whole) > 1e-14) == differs


def test_a_sample_does_not_depend_on_the_tile_size(vae):
    waveform = draw(1, 2, 40 * 1920)
    small, large = (
        encode_tiled(vae, waveform, size, 7, generator=torch.Generator().manual_seed(3)) for size in (20, 512)
    )
    assert relative_error(small, large) <= ROUNDING
    assert relative_error(small, vae.encode(waveform)) > 0.01


def test_too_small_overlaps_and_tiles_raise(vae):
    with pytest.raises(RequestError, match="overlap_frames.*at least 9"):
        decode_tiled(vae, draw(1, 40, 2), 32, 8)
    with pytest.raises(RequestError, match="overlap_frames.*at least 7"):
        encode_tiled(vae, draw(1, 2, 9600), 32, 6)
    with pytest.raises(RequestError, match="tile_frames.*at least 19"):
        decode_tiled(vae, draw(1, 40, 2), 18, 9)


def test_progress_and_cancel(vae):
    steps = []
    decode_tiled(vae, draw(2, 40, 2), 24, 9, Callbacks(progress=steps.append))
    assert [(p.stage, p.step, p.total) for p in steps] == [("decode", i, 14) for i in range(1, 15)]
    steps.clear()
    with pytest.raises(Cancelled):
        encode_tiled(vae, draw(1, 2, 76_800), 24, 7, Callbacks(steps.append, cancelled=lambda: len(steps) == 2))
    assert len(steps) == 2


def test_results_are_float32_on_the_cpu(vae):
    half = tiny.vae(SMALL).bfloat16()
    waveform = decode_tiled(half, draw(1, 5, 2))
    latents = encode_tiled(half, waveform)
    assert (waveform.dtype, latents.dtype) == (torch.float32, torch.float32)
    assert waveform.device == latents.device == torch.device("cpu")


def test_memory_does_not_grow_with_the_length(vae):
    """Except for latents and result."""

    def rest(frames: int) -> int:
        latents = torch.zeros(1, frames, vae.config.decoder_input_channels)
        with torch.no_grad(), Meter() as meter:
            result = decode_tiled(vae, latents, 64, 16)
            peak = meter.peak
        return peak - result.untyped_storage().nbytes() - latents.untyped_storage().nbytes()

    assert rest(200) == rest(1000)


@pytest.mark.parametrize("work", ["decode", "encode"])
def test_an_overflow_of_float16_is_remembered_for_the_song(work, monkeypatch):
    """One tile overflows. It and all later ones are computed in float32, in halves, with weights cast once."""
    vae, reach = tiny.vae(SMALL), decoder_reach(SMALL)
    part, run, source = {
        "decode": (vae.decoder, decode_tiled, draw(1, 100, 2)),
        "encode": (vae.encoder, encode_tiled, draw(1, 2, 100 * 1920)),
    }[work]
    vae.half().float()  # weights that float16 holds exactly
    plain = run(vae, source, 40, reach)
    part.conv1.weight.mul_(2**17).clamp_(-6e4, 6e4)
    vae.half().float()
    expected = run(vae, source, 40, reach)
    assert not torch.allclose(plain, expected)
    calls, casts = [], []
    forward, cast = type(part).forward, torch.Tensor.float
    monkeypatch.setattr(type(part), "forward", lambda self, x: calls.append((x.dtype, x.shape[2])) or forward(self, x))
    weight = part.conv1.weight
    monkeypatch.setattr(torch.Tensor, "float", lambda self: casts.append(self is weight) or cast(self))
    vae.half()
    assert relative_error(run(vae, source, 40, reach), expected) < 1e-3
    tiles, hop = len(TileLayout(100, 40, reach)), 1 if work == "decode" else 1920
    assert [dtype for dtype, _ in calls] == [torch.float16] + [torch.float32] * 2 * tiles
    assert max(length for dtype, length in calls if dtype == torch.float32) <= (20 + reach + 1) * hop
    assert sum(casts) == 1
