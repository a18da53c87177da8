import math

import pytest
import torch

from acestep_core.errors import RequestError
from acestep_core.planner.rng import to_exponential, uniform_numbers
from acestep_core.planner.token_sampling import (
    GROUP,
    TOP_SORTED,
    TokenSampling,
    choose_tokens,
    guide,
    numbers_per_choice,
    probabilities,
)
from tests.support.tiny import draw


def noise_for(choices: int, tokens: int, seed: int = 5) -> torch.Tensor:
    """Return the random numbers of independent choices."""
    count = numbers_per_choice(tokens)
    return to_exponential(uniform_numbers([seed], 0, choices, count, torch.device("cpu")))[:, 0]


def frequencies(logits: torch.Tensor, sampling: TokenSampling, count: int = 10_000) -> torch.Tensor:
    """Return how often each token is chosen."""
    size = logits.shape[-1]
    chosen = choose_tokens(logits.expand(count, -1), sampling, noise_for(count, size))
    return chosen.bincount(minlength=size) / count


def reference(logits: list[float], temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    """Apply temperature, top-k and top-p one token at a time, in float64."""
    shares = (torch.tensor(logits, dtype=torch.float64) / temperature).softmax(0)
    order = sorted(range(len(logits)), key=lambda i: -shares[i])
    if top_k:
        order = order[:top_k]
    total = sum(shares[i] for i in order)
    nucleus, likelier = [], 0.0
    for i in order:
        if nucleus and likelier / total >= top_p:
            break
        nucleus.append(i)
        likelier += shares[i]
    out = torch.zeros(len(logits), dtype=torch.float64)
    out[nucleus] = shares[nucleus]
    return out / out.sum()


@pytest.mark.parametrize("temperature", [0.3, 0.85, 1.0, 2.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (0, 0.9), (0, 0.2), (0, 0.0), (5, 1.0), (5, 0.6), (1, 1.0)])
def test_frequencies_equal_probabilities(temperature, top_k, top_p):
    logits = 2 * draw(1, 40, seed=3)
    expected = reference(logits[0].tolist(), temperature, top_k, top_p)
    got = frequencies(logits, TokenSampling(temperature, top_p, top_k))
    assert (got - expected).abs().max() < 0.016 and not got[expected == 0].any()


def test_groups_have_the_frequency_of_their_tokens():
    """The last group is shorter. One token has a third of the probability of its whole group."""
    size = 3 * GROUP + 7
    logits = torch.zeros(1, size)
    logits[0, GROUP + 3], logits[0, -1] = math.log(GROUP / 2), math.log(GROUP / 2)
    expected, got = logits[0].softmax(0), frequencies(logits, TokenSampling())
    assert (got[[GROUP + 3, -1]] - expected[[GROUP + 3, -1]]).abs().max() < 0.015
    for one, other in zip(got.split(GROUP), expected.split(GROUP), strict=True):
        assert abs(one.sum() - other.sum()) < 0.016
    assert (got > 0).sum() > 0.98 * size


def test_temperature_comes_before_top_p():
    """A temperature of 0.5 turns 0.6, 0.3, 0.1 into 0.78, 0.20, 0.02. The first two sum to 0.9."""
    logits = torch.tensor([[0.6, 0.3, 0.1]]).log()
    assert (probabilities(logits, TokenSampling(0.5, 0.9)) > 0).tolist() == [[True, True, False]]
    assert (probabilities(logits, TokenSampling(0.5, 0.75)) > 0).tolist() == [[True, False, False]]
    assert (probabilities(logits, TokenSampling(1.0, 0.75)) > 0).tolist() == [[True, True, False]]


@pytest.mark.parametrize("spread", [0.1, 8.0])
def test_partial_sort_gives_the_same_nucleus(spread):
    """With a spread of 0.1 the first sorted tokens do not cover top-p."""
    logits = spread * draw(2, 5 * TOP_SORTED, seed=1)
    got = probabilities(logits, TokenSampling(1.0, 0.9)) > 0
    for row, inside in zip(logits, got, strict=True):
        shares = row.softmax(0)
        order = shares.argsort(descending=True)
        expected = int((shares[order].cumsum(0) - shares[order] < 0.9).sum())
        assert (expected > TOP_SORTED) == (spread < 1)
        assert abs(int(inside.sum()) - expected) <= 1 and inside[order[: expected - 1]].all()


def test_equal_probabilities_stay_together():
    logits = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    assert (probabilities(logits, TokenSampling(1.0, 0.1)) > 0).tolist() == [[1, 1, 1, 0]]
    assert (probabilities(logits, TokenSampling(1.0, 1.0, 2)) > 0).tolist() == [[1, 1, 1, 0]]


def test_masked_tokens_are_never_chosen():
    logits = torch.full((1, 1000), float("-inf"))
    logits[0, [200, 201, 700]] = draw(3)
    assert set(frequencies(logits, TokenSampling(), 2000).nonzero().flatten().tolist()) == {200, 201, 700}


@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize("extreme", [2**-24, 1 - 2**-24])
def test_extreme_random_numbers_choose_no_masked_token(group, extreme):
    logits = torch.full((1, 2 * GROUP), float("-inf"))
    logits[0, group * GROUP + 5] = 0.0
    for position in (0, 5, GROUP, GROUP + 1):
        uniform = torch.full((1, GROUP + 2), 0.5)
        uniform[0, position] = extreme
        assert choose_tokens(logits, TokenSampling(), to_exponential(uniform)).item() == group * GROUP + 5


def test_temperature_zero_takes_the_likeliest():
    logits = draw(4, 50)
    assert torch.equal(choose_tokens(logits, TokenSampling(0.0), None), logits.argmax(-1))


def test_guidance():
    conditional, unconditional = draw(2, 30), draw(2, 30, seed=1)
    expected = unconditional + 2.5 * (conditional - unconditional)
    assert torch.allclose(guide(conditional, unconditional, 2.5), expected, atol=1e-5)
    assert torch.equal(guide(conditional, unconditional, 1.0), conditional)
    assert torch.equal(guide(conditional, unconditional, 0.0), unconditional)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_tokens_masked_on_either_side_stay_masked(scale):
    conditional, unconditional = draw(1, 4), draw(1, 4, seed=1)
    conditional[0, 0] = unconditional[0, 0] = unconditional[0, 1] = conditional[0, 2] = float("-inf")
    guided = guide(conditional, unconditional, scale)
    assert not guided.isnan().any() and guided.isinf().tolist() == [[True, True, True, False]]
    assert guide(conditional.half(), unconditional.half(), scale).dtype == torch.float32


def test_rounding_hardly_ever_changes_a_choice():
    """Logits differ in their last digits in a batch of another size."""
    logits = draw(1, 2000, seed=4).expand(2000, -1)
    noise = noise_for(2000, 2000, seed=1)
    rounded = logits * (1 + 2e-7 * draw(2000, 2000, seed=5))
    assert not torch.equal(logits, rounded)
    sampling = TokenSampling()
    assert torch.equal(choose_tokens(logits, sampling, noise), choose_tokens(rounded, sampling, noise))


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -0.1), ("top_p", 1.1), ("top_p", "0.9"), ("top_k", 2.5), ("top_k", -1), ("guidance", float("nan"))]
    + [("temperature", float("inf")), ("top_k", float("inf")), ("guidance", True)],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(RequestError, match=name):
        TokenSampling(**{name: value})
