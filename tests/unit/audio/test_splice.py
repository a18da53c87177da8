import torch

from acestep_core.audio.splice import soft_mask, splice

RATE = 48_000
SECONDS = 4
SOURCE = torch.rand(1, 2, SECONDS * RATE, generator=torch.Generator().manual_seed(0)) - 0.5
GENERATED = torch.rand(2, 2, SECONDS * RATE, generator=torch.Generator().manual_seed(1)) - 0.5


def test_ramps_equal_those_of_the_original():
    assert soft_mask(9, [(4, 6)], 3).tolist() == [0, 0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]
    assert soft_mask(4, [(1, 3)], 3).tolist() == [0.5, 1, 1, 0.5]  # shorter at the ends of the song
    assert soft_mask(4, [(0, 2)], 0).tolist() == [1, 1, 0, 0]
    assert soft_mask(6, [(0, 1), (3, 4)], 3).tolist() == [1, 0.75, 0.75, 1, *torch.linspace(0, 1, 4)[1:-1].flip(0)]


def test_outside_the_region_the_source_is_kept_bit_for_bit():
    result = splice(GENERATED, SOURCE, [(1.0, 2.5)], 0.05)
    fade = int(0.05 * RATE)
    start, end = RATE, int(2.5 * RATE)
    assert torch.equal(result[..., : start - fade], SOURCE[..., : start - fade].expand(2, -1, -1))
    assert torch.equal(result[..., end + fade :], SOURCE[..., end + fade :].expand(2, -1, -1))
    assert torch.equal(result[..., start:end], GENERATED[..., start:end])
    middle = result[..., start - fade // 2]
    assert torch.allclose(middle, (GENERATED + SOURCE)[..., start - fade // 2] / 2, atol=1e-3)


def test_several_regions_and_a_source_for_each_item():
    sources = torch.cat([SOURCE, -SOURCE])
    result = splice(GENERATED, sources, [(0.0, 1.0), (3.0, 4.0)], 0.0)
    assert torch.equal(result[..., RATE : 3 * RATE], sources[..., RATE : 3 * RATE])
    assert torch.equal(result[..., :RATE], GENERATED[..., :RATE])
    assert torch.equal(result[..., 3 * RATE :], GENERATED[..., 3 * RATE :])


def test_a_region_over_the_whole_song_returns_the_generated_audio():
    assert splice(GENERATED, SOURCE, [(0.0, 4.0)], 0.05) is GENERATED
    assert splice(GENERATED, SOURCE[..., :RATE], [(0.0, 1.5)], 0.05) is GENERATED


def test_a_frame_boundary_is_an_exact_sample():
    """29 frames of 40 ms are 1.16 s, exactly 55 680 samples; the float product is slightly less."""
    whole = 29 * 1920
    assert splice(GENERATED[..., :whole], SOURCE[..., :whole], [(0.0, 29 / 25)], 0.0).equal(GENERATED[..., :whole])
    result = splice(GENERATED, SOURCE, [(29 / 25, 2.0)], 0.0)
    assert torch.equal(result[..., :whole], SOURCE[..., :whole].expand(2, -1, -1))


def test_the_shorter_input_sets_the_length():
    short = SOURCE[..., : 3 * RATE]
    result = splice(GENERATED, short, [(1.0, 9.0)], 0.05)
    assert result.shape == (2, 2, 3 * RATE)
    assert torch.equal(result[..., RATE:], GENERATED[..., RATE : 3 * RATE])


def test_without_regions_the_result_is_the_source():
    assert torch.equal(splice(GENERATED, SOURCE, [], 0.05), SOURCE.expand(2, -1, -1))
