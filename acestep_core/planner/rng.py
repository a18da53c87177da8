"""Random numbers for sampling tokens: Philox4x32-10 in tensor operations, so that every device draws the same numbers.

Philox is a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). A number
depends on a key and on a counter, not on numbers before it. Here the key is the seed of a row, and the counter is the
choice and the position of the number in that choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
WORD = 2**32 - 1
CHOICES = 64  # choices that one block of numbers serves: drawing takes some 80 kernels, however many numbers it yields


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """Return Philox4x32-10 of counters [4, ...] and keys [2, ...]: four words [4, ...], all int64 from 0 to 2³² - 1."""
    even, odd = counter[::2], counter[1::2]
    shape = (2,) + (1,) * (even.dim() - 1)
    # A multiplier less 2³² keeps each product below 2⁶³. `high` adds the missing product with 2³² again.
    factors = torch.tensor([factor - 2**32 for factor in MULTIPLIERS], device=counter.device).view(shape)
    swapped = factors.flip(0)
    increments = torch.tensor(KEY_INCREMENTS, device=counter.device).view(shape)
    for round_ in range(ROUNDS):
        # Each round swaps the two halves. The state stays as the round leaves it, and every second round the constants
        # are swapped instead.
        mixed = key.flip(0) if round_ % 2 == 0 else key
        low = even * (factors if round_ % 2 == 0 else swapped)
        high = (low >> 32).add_(even)
        even, odd = high.bitwise_xor_(odd.flip(0)).bitwise_xor_(mixed).bitwise_and_(WORD), low
        key = (key + increments).bitwise_and_(WORD)
    return torch.stack((even[0], odd[0], even[1], odd[1])).bitwise_and_(WORD)


def uniform_numbers(seeds: Sequence[int], first: int, choices: int, count: int, device: torch.device) -> Tensor:
    """Return uniform numbers between 0 and 1, both excluded, float32 [choices, rows, count].

    seeds: the seed of each row, 0 to 2⁶⁴ - 1.
    first: the number of the first choice. Later choices, or more numbers per choice, leave the other numbers as they
    are.
    """
    halves = [[seed & WORD for seed in seeds], [seed >> 32 & WORD for seed in seeds]]
    key = torch.tensor(halves, dtype=torch.long, device=device)
    quarter = -(-count // 4)
    counter = torch.zeros(4, choices, len(seeds), quarter, dtype=torch.long, device=device)
    counter[0] += torch.arange(quarter, device=device)
    counter[1] += torch.arange(first, first + choices, device=device)[:, None, None]
    words = philox(counter, key[:, None, :, None])
    # 23 bits and a half: exact in float32, and neither 0 nor 1.
    numbers = (words >> 9).float().add_(0.5).mul_(2**-23)
    return numbers.permute(1, 2, 3, 0).flatten(2)[..., :count]


def to_exponential(uniform: Tensor) -> Tensor:
    """Turn uniform numbers into exponentially distributed ones."""
    return uniform.log().neg_()


class ChoiceNoise:
    """Exponentially distributed numbers for the choices of all rows, drawn on the device for CHOICES choices at once.

    count: numbers per row and choice.
    """

    def __init__(self, seeds: Sequence[int], count: int, device: torch.device):
        self._seeds = seeds
        self._numbers = torch.empty(CHOICES, len(seeds), count, device=device)

    def prepare(self, choice: int) -> None:
        """Draw the numbers from `choice` on, if the block starts with it. Call it for every choice, in order."""
        if choice % CHOICES == 0:
            choices, _, count = self._numbers.shape
            drawn = uniform_numbers(self._seeds, choice, choices, count, self._numbers.device)
            self._numbers.copy_(to_exponential(drawn))

    def numbers(self, choice: int | Tensor) -> Tensor:
        """Return the numbers of a prepared choice, [rows, count].

        choice: its number, either on the host or as int64 [1] on the device, which a CUDA graph reads at each replay.
        """
        if isinstance(choice, int):
            return self._numbers[choice % CHOICES]
        return self._numbers.index_select(0, choice % CHOICES)[0]
