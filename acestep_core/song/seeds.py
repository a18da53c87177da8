"""Seeds: one integer for each item of a batch."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from numbers import Integral

from ..errors import RequestError

SEED_RANGE = 2**64  # as in ComfyUI; torch's CPU generator uses only the lower 32 bits


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


def _check_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < SEED_RANGE:
        raise RequestError(f"seed must be a whole number from 0 to 2**64 − 1, got {seed!r}")
    return int(seed)


def random_seed() -> int:
    """Return a random seed below 2**32, short enough to write down."""
    return secrets.randbelow(2**32)
