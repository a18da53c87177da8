"""Turn logits into a token: guidance, temperature, top-k, top-p and random numbers.

The order is that of ACE-Step's own engine: mask, guide, divide by the temperature, apply top-k, apply top-p. All of it
is float32, and no step waits for an accelerator.

A choice takes exponentially distributed numbers, and the candidate with the largest ratio of probability to number wins
(the Gumbel-max trick). First a group of consecutive tokens is chosen by its summed probability, then a token of that
group. For 64,000 tokens this takes 506 numbers. A row's result depends neither on other rows nor on the device, except
for rounding. A logit that is off by a millionth changes one choice in a million. One number per choice would be
cheaper, but rounding moves each of the 64,000 bounds between cumulative probabilities. In measurements, such rounding
changed songs now and then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import RequestError

GROUP = 256  # consecutive tokens that are chosen together first: about the root of the number of audio codes
TOP_SORTED = 1024  # tokens that a CPU sorts first: they nearly always cover top-p, and sorting all 64,000 is slow


@dataclass(frozen=True)
class TokenSampling:
    """Settings for choosing tokens. The defaults sample from the model's own distribution.

    temperature: values below 1 make unlikely tokens rarer; 0 takes the likeliest token.
    top_p: nucleus sampling keeps the likeliest tokens up to this summed probability; 1 keeps all.
    top_k: keeps the k likeliest tokens; 0 keeps all.
    guidance: classifier-free guidance scale; 1 or less is off, as in ACE-Step's own engine.

    Raises RequestError for a value out of range.
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
            if value == math.inf or (name == "top_k" and value != int(value)):
                raise RequestError(f"{name} must be a {'whole' if name == 'top_k' else 'finite'} number, got {value!r}")

    @property
    def guided(self) -> bool:
        return self.guidance > 1


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return unconditional + scale * (conditional - unconditional), float32, and -inf where either is not finite."""
    conditional, unconditional = conditional.float(), unconditional.float()
    finite = torch.isfinite(conditional) & torch.isfinite(unconditional)
    return torch.lerp(unconditional, conditional, scale).masked_fill(~finite, float("-inf"))


def probabilities(logits: Tensor, sampling: TokenSampling) -> Tensor:
    """Return the float32 probabilities to sample from, for logits [rows, n] and a temperature above 0."""
    scaled = logits.float() / sampling.temperature
    if 0 < sampling.top_k < scaled.shape[-1]:
        least = scaled.topk(int(sampling.top_k)).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, float("-inf"))
    shares = scaled.softmax(-1)
    if sampling.top_p < 1:
        shares = shares.masked_fill(shares < _least_in_nucleus(shares, sampling.top_p), 0)
    return shares


def _least_in_nucleus(shares: Tensor, top_p: float) -> Tensor:
    """Return the smallest probability [rows, 1] inside the nucleus.

    A token is inside while all likelier tokens sum to less than `top_p`. The likeliest token always is, and equal
    probabilities are inside or outside together.
    """
    ordered = None
    if shares.device.type == "cpu" and shares.shape[-1] > 4 * TOP_SORTED:
        ordered = shares.topk(TOP_SORTED).values
        if (ordered.sum(-1) < top_p + 1e-5).any():
            ordered = None
    if ordered is None:
        ordered = shares.sort(descending=True).values
    likelier = ordered.cumsum(-1) - ordered
    inside = likelier < top_p
    inside[:, 0] = True
    return ordered.masked_fill(~inside, 1).amin(-1, keepdim=True)


def numbers_per_choice(tokens: int) -> int:
    """Return how many random numbers a choice among `tokens` tokens takes."""
    return GROUP + -(-tokens // GROUP)


def choose_tokens(logits: Tensor, sampling: TokenSampling, noise: Tensor | None) -> Tensor:
    """Return one index per row, [rows], for guided logits [rows, n].

    noise: exponentially distributed numbers [rows, numbers_per_choice(n)]. Without them, or at temperature 0, the
    likeliest token is taken.
    """
    if noise is None or sampling.temperature == 0:
        return logits.argmax(-1)
    shares = probabilities(logits, sampling)
    groups = F.pad(shares, (0, -shares.shape[-1] % GROUP)).unflatten(-1, (-1, GROUP))
    within, between = noise[:, :GROUP], noise[:, GROUP:]
    group = (groups.sum(-1) / between).argmax(-1, keepdim=True)
    members = groups.take_along_dim(group[..., None], 1)[:, 0]
    return group[:, 0] * GROUP + (members / within).argmax(-1)
