import pytest
import torch

from acestep_core.errors import RequestError
from acestep_core.planner.random_numbers import Dice
from acestep_core.planner.token_sampling import FIRST_BEST, Sampling, choose, guide, probabilities
from tests.support.tiny import draw


def shares(logits: torch.Tensor, sampling: Sampling, count: int = 10_000) -> torch.Tensor:
    """How often each token is chosen."""
    size = logits.shape[-1]
    chosen = choose(logits.expand(count, -1), sampling, Dice(5).roll(count * size).view(count, size))
    return chosen.bincount(minlength=size) / count


def reference(logits: list[float], temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    """Temperature, the best k, the nucleus, one token at a time, in float64."""
    chances = (torch.tensor(logits, dtype=torch.float64) / temperature).softmax(0)
    order = sorted(range(len(logits)), key=lambda i: -chances[i])
    if top_k:
        order = order[:top_k]
    total = sum(chances[i] for i in order)
    kept, sum_before = [], 0.0
    for i in order:
        if kept and sum_before / total >= top_p:
            break
        kept.append(i)
        sum_before += chances[i]
    out = torch.zeros(len(logits), dtype=torch.float64)
    out[kept] = chances[kept]
    return out / out.sum()


@pytest.mark.parametrize("temperature", [0.3, 0.85, 1.0, 2.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (0, 0.9), (0, 0.2), (0, 0.0), (5, 1.0), (5, 0.6), (1, 1.0)])
def test_tokens_come_as_often_as_they_should(temperature, top_k, top_p):
    logits = 2 * draw(1, 40, seed=3)
    wanted = reference(logits[0].tolist(), temperature, top_k, top_p)
    got = shares(logits, Sampling(temperature, top_p, top_k))
    assert (got - wanted).abs().max() < 0.016 and not got[wanted == 0].any()


def test_tempering_comes_before_the_nucleus():
    """Half the temperature makes 0.6, 0.3, 0.1 into 0.78, 0.20, 0.02, of which the first two hold 0.9."""
    logits = torch.tensor([[0.6, 0.3, 0.1]]).log()
    assert (probabilities(logits, Sampling(0.5, 0.9)) > 0).tolist() == [[True, True, False]]
    assert (probabilities(logits, Sampling(0.5, 0.75)) > 0).tolist() == [[True, False, False]]
    assert (probabilities(logits, Sampling(1.0, 0.75)) > 0).tolist() == [[True, True, False]]


@pytest.mark.parametrize("spread", [0.1, 8.0])
def test_the_short_way_to_the_nucleus_is_the_long_one(spread):
    """Of many tokens, only the best are sorted where they hold the nucleus; with a spread of 0.1 they do not."""
    logits = spread * draw(2, 5 * FIRST_BEST, seed=1)
    got = probabilities(logits, Sampling(1.0, 0.9)) > 0
    for row, kept in zip(logits, got, strict=True):
        chances = row.softmax(0)
        order = chances.argsort(descending=True)
        wanted = int((chances[order].cumsum(0) - chances[order] < 0.9).sum())
        assert (wanted > FIRST_BEST) == (spread < 1)
        assert abs(int(kept.sum()) - wanted) <= 1 and kept[order[: wanted - 1]].all()


def test_equals_stay_together():
    assert (probabilities(torch.tensor([[1.0, 1.0, 1.0, 0.0]]), Sampling(1.0, 0.1)) > 0).tolist() == [[1, 1, 1, 0]]
    assert (probabilities(torch.tensor([[1.0, 1.0, 1.0, 0.0]]), Sampling(1.0, 1.0, 2)) > 0).tolist() == [[1, 1, 1, 0]]


def test_what_is_ruled_out_is_never_chosen():
    logits = torch.full((1, 1000), float("-inf"))
    logits[0, [200, 201, 700]] = draw(3)
    assert set(shares(logits, Sampling(), 2000).nonzero().flatten().tolist()) == {200, 201, 700}


@pytest.mark.parametrize("extreme", [0.0, float("inf")])
def test_numbers_at_the_ends_of_their_range_do_no_harm(extreme):
    logits, noise = torch.tensor([[0.0, float("-inf"), 0.0]]), torch.ones(1, 3)
    noise[0, 0] = extreme
    assert choose(logits, Sampling(), noise).item() == (0 if extreme == 0 else 2)


def test_temperature_zero_takes_the_likeliest():
    logits = draw(4, 50)
    assert torch.equal(choose(logits, Sampling(0.0), None), logits.argmax(-1))


def test_guidance():
    given, negative = draw(2, 30), draw(2, 30, seed=1)
    assert torch.allclose(guide(given, negative, 2.5), negative + 2.5 * (given - negative), atol=1e-5)
    assert torch.equal(guide(given, negative, 1.0), given)
    assert torch.equal(guide(given, negative, 0.0), negative)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_what_is_ruled_out_on_either_side_stays_out_of_guidance(scale):
    given, negative = draw(1, 4), draw(1, 4, seed=1)
    given[0, 0] = negative[0, 0] = negative[0, 1] = given[0, 2] = float("-inf")
    guided = guide(given, negative, scale)
    assert not guided.isnan().any() and guided.isinf().tolist() == [[True, True, True, False]]
    assert guide(given.half(), negative.half(), scale).dtype == torch.float32


def test_rounding_hardly_ever_changes_a_choice():
    """Logits that differ in their last digits, as in a batch of another size: not one of 2000 choices differs."""
    logits = draw(1, 2000, seed=4).expand(2000, -1)
    noise = Dice(1).roll(2000 * 2000).view(2000, 2000)
    rounded = logits * (1 + 2e-7 * draw(2000, 2000, seed=5))
    assert not torch.equal(logits, rounded)
    assert torch.equal(choose(logits, Sampling(), noise), choose(rounded, Sampling(), noise))


@pytest.mark.parametrize(
    "values",
    [{"temperature": -0.1}, {"top_p": 1.1}, {"top_p": "0.9"}, {"top_k": 2.5}, {"top_k": -1}, {"guidance": float("nan")}]
    + [{"temperature": float("inf")}, {"guidance": True}],
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(RequestError):
        Sampling(**values)
