import pytest
import torch

from acestep_core.planner.rng import CHOICES, WORD, ChoiceNoise, philox, to_exponential, uniform_numbers
from tests.support.simulated_cuda import simulated_cuda

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([WORD] * 4, [WORD] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, words):
    """The known answers of Random123 for philox4x32-10."""
    assert philox(torch.tensor(counter)[:, None], torch.tensor(key)[:, None]).flatten().tolist() == words


def test_philox_equals_a_reference_in_unbounded_integers():
    def reference(c: list[int], k: list[int]) -> list[int]:
        for _ in range(10):
            first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [second >> 32 ^ c[1] ^ k[0], second & WORD, first >> 32 ^ c[3] ^ k[1], first & WORD]
            k = [k[0] + 0x9E3779B9 & WORD, k[1] + 0xBB67AE85 & WORD]
        return c

    generator = torch.Generator().manual_seed(1)
    counters, keys = (torch.randint(0, 2**32, (n, 50), generator=generator) for n in (4, 2))
    got = philox(counters, keys)
    for i in range(50):
        assert got[:, i].tolist() == reference(counters[:, i].tolist(), keys[:, i].tolist())


def test_a_number_depends_on_seed_choice_and_position_alone():
    numbers = uniform_numbers([5, 2**64 - 1, 5], 0, 6, 30, CPU)
    assert (*numbers.shape,) == (6, 3, 30) and numbers.dtype == torch.float32
    assert torch.equal(numbers[:, 0], numbers[:, 2])
    assert torch.equal(uniform_numbers([2**64 - 1], 4, 2, 23, CPU), numbers[4:, 1:2, :23])
    distinct = uniform_numbers([0, 1, 2**32, 2**63], 0, 50, 50, CPU)
    assert len(distinct.unique()) > 0.999 * distinct.numel()
    assert uniform_numbers([], 0, 2, 9, CPU).numel() == 0


def test_numbers_are_uniform_and_their_logarithms_finite():
    numbers = uniform_numbers([7], 0, 1, 100_000, CPU)
    assert abs(numbers.mean() - 0.5) < 0.003 and abs(numbers.var() - 1 / 12) < 0.001
    exponential = to_exponential(numbers)
    assert abs(exponential.mean() - 1) < 0.01 and abs(exponential.var() - 1) < 0.03
    extremes = torch.tensor([0, WORD]).bitwise_right_shift(9).float().add(0.5).mul(2**-23)
    assert 0 < numbers.min() and numbers.max() < 1 and extremes.tolist() == [2**-24, 1 - 2**-24]


@pytest.mark.parametrize("chosen", [0, 1, CHOICES - 1, CHOICES, 2 * CHOICES + 3])
def test_blocks_join_without_a_seam(chosen):
    noise = ChoiceNoise([1, 2], 10, CPU)
    for choice in range(chosen + 1):
        noise.prepare(choice)
    expected = to_exponential(uniform_numbers([1, 2], chosen, 1, 10, CPU))[0]
    assert torch.equal(noise.numbers(torch.tensor([chosen])), expected)


def test_numbers_are_drawn_on_the_device():
    expected = ChoiceNoise([1, 2], 10, CPU)
    expected.prepare(0)
    with simulated_cuda() as device:
        noise = ChoiceNoise([1, 2], 10, device)
        noise.prepare(0)
        numbers = noise.numbers(torch.tensor([3], device=device))
        assert numbers.device.type == "cuda"
        assert numbers.cpu().tolist() == expected.numbers(torch.tensor([3])).tolist()
