import pytest
import torch

from acestep_core.audio.restore import restore_source

RATE = 48_000
T = torch.arange(2 * RATE) / RATE
SOURCE = 0.2 * torch.stack([torch.sin(2000 * T), torch.cos(1000 * T)])[None]
REGION = [(0.5, 1.0)]
INSIDE = slice(RATE // 2, RATE)


def rms(waveform: torch.Tensor) -> float:
    return waveform.square().mean().sqrt().item()


@pytest.mark.parametrize("level", [0.8, 1.0, 1.25])
def test_generated_audio_gets_the_level_of_the_source(level):
    result = restore_source(level * SOURCE, SOURCE, REGION, 0.01)
    assert torch.allclose(result, SOURCE, atol=1e-6)
    outside = torch.cat([result[..., : int(0.49 * RATE)], result[..., int(1.01 * RATE) :]], -1)
    assert torch.equal(outside, torch.cat([SOURCE[..., : int(0.49 * RATE)], SOURCE[..., int(1.01 * RATE) :]], -1))


def test_levels_are_compared_outside_of_the_region():
    generated = SOURCE.clone()
    generated[..., INSIDE] *= 3
    assert rms(restore_source(generated, SOURCE, REGION, 0.0)[..., INSIDE]) == pytest.approx(
        3 * rms(SOURCE[..., INSIDE]), rel=1e-4
    )


def test_a_source_above_full_scale_stays_and_generated_audio_does_not_clip():
    loud, generated = 8 * SOURCE, 8 * SOURCE
    generated[..., INSIDE] *= 3
    result = restore_source(generated, loud, REGION, 0.0)
    assert torch.equal(result[..., : RATE // 2], loud[..., : RATE // 2])
    assert result[..., INSIDE].abs().max() == pytest.approx(1) and loud.abs().max() > 1.5


@pytest.mark.parametrize("rest", [0, 0.005, 0.02], ids=["silent", "faded", "nearly"])
def test_a_quiet_surrounding_does_not_change_the_gain(rest):
    """A VAE may return quiet parts much louder or softer."""
    quiet = SOURCE.clone()
    quiet[..., : RATE // 2], quiet[..., RATE:] = rest * quiet[..., : RATE // 2], rest * quiet[..., RATE:]
    for wrong in (0.1, 4):
        generated = quiet.clone()
        generated[..., : RATE // 2], generated[..., RATE:] = (
            wrong * generated[..., : RATE // 2],
            wrong * generated[..., RATE:],
        )
        assert torch.equal(restore_source(generated, quiet, REGION, 0.0)[..., INSIDE], SOURCE[..., INSIDE])


def test_the_loud_part_of_a_surrounding_sets_the_gain():
    """The song begins after a second of silence, which the VAE fills with noise, and fades out."""
    source = torch.cat([0 * SOURCE[..., :RATE], SOURCE, 0.004 * SOURCE], -1)
    generated = 0.8 * source + 0.008 * torch.randn(source.shape, generator=torch.Generator().manual_seed(0))
    inside = slice(2 * RATE, int(2.5 * RATE))
    result = restore_source(generated, source, [(2.0, 2.5)], 0.0)[..., inside]
    assert rms(result) == pytest.approx(rms(generated[..., inside]) / 0.8, rel=0.01)


def test_each_item_has_its_own_level():
    generated = torch.cat([0.8 * SOURCE, 1.25 * SOURCE, SOURCE])
    quiet = torch.cat([SOURCE, SOURCE, 0 * SOURCE])
    result = restore_source(generated, quiet, REGION, 0.0)[..., INSIDE]
    assert torch.allclose(result, SOURCE[..., INSIDE].expand(3, -1, -1), atol=1e-6)


@pytest.mark.parametrize("regions", [[(0, 2.5)], [(0, 2)], [(0, 1), (1, 2.01)]])
def test_without_a_kept_part_the_gain_is_one(regions):
    assert torch.equal(restore_source(0.3 * SOURCE, SOURCE, regions, 0.01), 0.3 * SOURCE)


@pytest.mark.parametrize("level", [0.04, 0.01, 0.002])
def test_a_source_below_40_dbfs_sets_the_level(level):
    """The VAE adds noise to quiet audio, and the generated part is as loud as any other song."""
    quiet = level * SOURCE
    generated = quiet + 0.002 * torch.randn(SOURCE.shape, generator=torch.Generator().manual_seed(0))
    generated[..., INSIDE] = SOURCE[..., INSIDE]
    both = restore_source(torch.cat([generated, SOURCE]), torch.cat([quiet, SOURCE]), REGION, 0.0)
    assert rms(both[:1, :, INSIDE]) == pytest.approx(rms(quiet[..., INSIDE]), rel=0.05)
    assert torch.equal(both[:1, :, : RATE // 2], quiet[..., : RATE // 2])
    assert torch.allclose(both[1:], SOURCE, atol=1e-6)


def test_a_quiet_source_without_a_kept_part_sets_no_level():
    assert torch.equal(restore_source(SOURCE, 0.01 * SOURCE, [(0, 2)], 0.01), SOURCE)
