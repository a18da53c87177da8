"""From logits to a token: guidance, temperature, top-k, top-p, and one random number a token.

Order is the official engine's: masked logits are guided, then tempered, cut to the best k, cut to the nucleus. All of
it is float32 and has no step that waits for an accelerator.

Randomness: every row has its own generator, on the CPU, and every choice takes one number for each token it is among:
the token whose probability is largest beside its number wins. So a row's result depends neither on its neighbours nor
on the device, but for rounding, and on that hardly ever: a logit that is off by a millionth changes one choice in a
million. (A single number, looked up among the summed probabilities, would be cheaper, but each of the 64 000 bounds
between tokens could slip past it: measured, that was a different song now and then.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RequestError

FIRST_BEST = 1024  # on a CPU sorting all 64 000 codes takes as long as two layers; these hold the nucleus nearly always


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Defaults choose freely. Raises RequestError for values out of range.

    temperature: below 1 bolder choices are rarer; 0 always takes the likeliest.
    top_p: only the likeliest tokens that together have this probability; 1 means all.
    top_k: only the k likeliest tokens; 0 means all.
    guidance: how far to go from what the negative prompt says beyond the prompt; 1 or less means no guidance, as in the
        official engine.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        for name, highest in (("temperature", math.inf), ("top_p", 1), ("guidance", math.inf), ("top_k", math.inf)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= highest:
                allowed = "0 or more" if highest == math.inf else f"from 0 to {highest}"
                raise RequestError(f"{name} must be a number {allowed}, got {value!r}")
        if math.inf in (self.temperature, self.guidance) or self.top_k != int(self.top_k):
            raise RequestError(f"sampling needs finite numbers and a whole top_k, got {self}")

    @property
    def guided(self) -> bool:
        return self.guidance > 1


def guide(given: Tensor, negative: Tensor, scale: float) -> Tensor:
    """negative + scale * (given - negative), float32; where either is not finite (ruled out) the result is -inf."""
    given, negative = given.float(), negative.float()
    possible = torch.isfinite(given) & torch.isfinite(negative)
    return torch.lerp(negative, given, scale).masked_fill(~possible, float("-inf"))


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits [B, n] to the probabilities to sample from, float32; a temperature of 0 is for `choose`."""
    tempered = logits.float() / sampling.temperature
    if 0 < sampling.top_k < tempered.shape[-1]:
        least = tempered.topk(int(sampling.top_k)).values[:, -1:]
        tempered = tempered.masked_fill(tempered < least, float("-inf"))
    chances = tempered.softmax(-1)
    if sampling.top_p < 1:
        chances = chances.masked_fill(chances < _least_in_nucleus(chances, sampling.top_p), 0)
    return chances


def _least_in_nucleus(chances: Tensor, top_p: float) -> Tensor:
    """The smallest probability kept, [B, 1]: a token stays while the likelier ones have less than `top_p` together.

    Equals stay together, and the likeliest always stays.
    """
    best = None
    if chances.device.type == "cpu" and chances.shape[-1] > 4 * FIRST_BEST:
        best = chances.topk(FIRST_BEST).values
        if (best.sum(-1) < top_p + 1e-5).any():
            best = None
    if best is None:
        best = chances.sort(descending=True).values
    likelier = best.cumsum(-1) - best
    kept = likelier < top_p
    kept[:, 0] = True
    return best.masked_fill(~kept, 1).amin(-1, keepdim=True)


def choose(logits: Tensor, sampling: Sampling, noise: Tensor | None) -> Tensor:
    """One index [B] for each row of guided logits [B, n]; `noise` [B, n] comes from each row's Dice.

    At temperature 0 it is the likeliest, and no noise is needed.
    """
    if noise is None or sampling.temperature == 0:
        return logits.argmax(-1)
    return (probabilities(logits, sampling) / noise).argmax(-1)
