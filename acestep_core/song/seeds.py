"""Seeds: one integer for each item of a batch."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from numbers import Integral

from ..errors import RequestError

SEED_RANGE = 2**64  # as in ComfyUI
NOISE_RANGE = 2**32  # torch's CPU generator uses only the lower 32 bits, in KSampler as well


def batch_seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """Return one seed per item: `seed`, `seed + 1`, … (modulo 2**64), or a given list of exactly `count` seeds.

    Raises RequestError for any other value.
    """
    if isinstance(seed, Sequence):
        if len(seed) != count:
            raise RequestError(f"seed: a list needs one seed per item, got {len(seed)} for a batch of {count}")
        return [_check_seed(value) for value in seed]
    first = _check_seed(seed)
    return [(first + i) % SEED_RANGE for i in range(count)]


def distinct_seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """Return `batch_seeds` that all give different songs: below 2**32. Raises RequestError for any other value."""
    seeds = batch_seeds(seed, count)
    for value in seeds:
        if value >= NOISE_RANGE:
            raise RequestError(
                f"seed must be a whole number from 0 to 2**32 − 1 for all songs, got {value}; noise depends on the "
                f"lower 32 bits alone, so use {value % NOISE_RANGE}"
            )
    return seeds


def _check_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < SEED_RANGE:
        raise RequestError(f"seed must be a whole number from 0 to 2**64 − 1, got {seed!r}")
    return int(seed)


def random_seed() -> int:
    """Return a random seed, short enough to write down, from which a batch can count up."""
    return secrets.randbelow(2**31)
