"""Seeds: one whole number for each item of a batch."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from numbers import Integral

from ..errors import RequestError

SEED_RANGE = 2**64  # as in ComfyUI. torch's CPU generator itself looks at the lower 32 bits only


def batch_seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """One seed per item: `seed`, `seed + 1`, ... (modulo 2**64), or the given list when it holds exactly `count`."""
    if isinstance(seed, Sequence):
        if len(seed) != count:
            raise RequestError(f"a list of seeds needs one seed per item: got {len(seed)} for a batch of {count}")
        return [_checked(value) for value in seed]
    first = _checked(seed)
    return [(first + i) % SEED_RANGE for i in range(count)]


def _checked(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < SEED_RANGE:
        raise RequestError(f"a seed is a whole number from 0 to 2**64 − 1, got {seed!r}")
    return int(seed)


def random_seed() -> int:
    """A seed that nobody chose, short enough to write down."""
    return secrets.randbelow(2**32)
