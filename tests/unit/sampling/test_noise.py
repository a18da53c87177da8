import pytest
import torch

from acestep_core.errors import RequestError
from acestep_core.sampling.noise import draw_noise, draw_step_noise, retake_noise
from acestep_core.song.seeds import batch_seeds, distinct_seeds


def test_batch_seeds_count_up_from_the_first_and_wrap_at_64_bits():
    assert batch_seeds(7, 3) == [7, 8, 9]
    assert batch_seeds(2**64 - 1, 2) == [2**64 - 1, 0]


def test_a_list_of_seeds_is_taken_as_it_is():
    assert batch_seeds([5, 5, 1], 3) == [5, 5, 1]


@pytest.mark.parametrize("seed, count", [([1, 2], 3), (-1, 1), (2**64, 1), (1.5, 1), (True, 1), ([1, -2], 2)])
def test_bad_seeds_are_refused(seed, count):
    with pytest.raises(RequestError):
        batch_seeds(seed, count)


def test_seeds_of_one_noise_are_refused_where_all_must_differ():
    assert torch.equal(draw_noise([5 + 2**32], 8), draw_noise([5], 8))  # as in KSampler
    assert distinct_seeds(2**32 - 1, 1) == [2**32 - 1] and distinct_seeds([3, 3], 2) == [3, 3]
    for seed, count in ((5 + 2**32, 1), (2**32 - 1, 2), ([5, 2**40], 2), (2**64 - 1, 1), (-1, 1)):
        with pytest.raises(RequestError, match="seed"):
            distinct_seeds(seed, count)
    with pytest.raises(RequestError, match="use 5"):
        distinct_seeds(5 + 2**32, 1)


def test_noise_is_what_comfyui_draws_for_one_item():
    expected = torch.randn(1, 64, 131, generator=torch.Generator().manual_seed(11)).transpose(1, 2)
    noise = draw_noise([11], 131)
    assert noise.dtype == torch.float32 and noise.device.type == "cpu"
    assert torch.equal(noise, expected)


def test_noise_depends_on_the_seed_alone_not_on_the_place_in_the_batch():
    batch = draw_noise([3, 4, 5], 40)
    for i, seed in enumerate([3, 4, 5]):
        assert torch.equal(batch[i : i + 1], draw_noise([seed], 40))
    assert not torch.equal(batch[0], batch[1])


def test_noise_does_not_touch_the_global_generator():
    state = torch.get_rng_state()
    draw_noise([1], 10)
    draw_step_noise([1], 0, 10)
    assert torch.equal(state, torch.get_rng_state())


def test_step_noise_is_reproducible_per_item_and_step_and_independent_of_the_batch():
    batch = draw_step_noise([8, 9], 3, 20)
    assert torch.equal(batch[1:], draw_step_noise([9], 3, 20))
    assert not torch.equal(batch[1:], draw_step_noise([9], 4, 20))


def test_step_noise_never_repeats_an_initial_noise_or_step_of_a_neighbour():
    seeds = batch_seeds(0, 4)
    drawn = [*draw_noise(seeds, 8), *(row for step in range(8) for row in draw_step_noise(seeds, step, 8))]
    assert len({tuple(row.flatten().tolist()) for row in drawn}) == len(drawn)


def test_step_seeds_are_splitmix64():
    # First outputs of SplitMix64 started at 1234567, as published with the generator's reference code.
    for step, seed in enumerate([6457827717110365317, 3203168211198807973, 9817491932198370423]):
        assert torch.equal(draw_step_noise([1234567], step, 4), draw_noise([seed], 4))


def test_noise_is_standard_normal():
    noise = torch.cat([draw_noise([1, 2], 4000), draw_step_noise([1, 2], 0, 4000)])
    assert abs(noise.mean().item()) < 5e-3 and abs(noise.std().item() - 1) < 5e-3


def test_a_retake_turns_the_noise_towards_that_of_another_seed():
    noise, other = draw_noise([1, 2], 4000), draw_noise([8, 9], 4000)
    assert retake_noise(noise, [8, 9], 0.0) is noise
    assert torch.equal(retake_noise(noise, [8, 9], 1.0), other)
    half = retake_noise(noise, [8, 9], 0.5)
    assert torch.allclose(half, (noise + other) / 2**0.5, atol=1e-6)
    assert abs(half.std().item() - 1) < 5e-3
    near, nearer = (torch.nn.functional.mse_loss(retake_noise(noise, [8, 9], v), noise) for v in (0.3, 0.1))
    assert 0 < nearer < near


def test_a_retake_depends_on_its_own_seeds_alone():
    both = retake_noise(draw_noise([1, 2], 10), [8, 9], 0.4)
    assert torch.equal(both[1:], retake_noise(draw_noise([2], 10), [9], 0.4))
