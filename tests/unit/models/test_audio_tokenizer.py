import pytest
import torch

from acestep_core.models.audio_tokenizer import codes_of, values_of
from tests.support import tiny
from tests.support.tiny import draw

LEVELS = (8, 8, 8, 5, 5, 5)


@pytest.mark.parametrize(
    ("code", "values"),
    [
        (0, [-1, -1, -1, -1, -1, -1]),
        (63999, [1, 1, 1, 1, 1, 1]),
        (35847, [1, -1, -1, -1, 1, 0]),
        (3939, [-1 / 7, 1 / 7, 3 / 7, 0, -0.5, -1]),
    ],
)
def test_values_of_a_code(code, values):
    assert torch.allclose(values_of(torch.tensor(code), LEVELS), torch.tensor(values, dtype=torch.float32))
    assert codes_of(torch.tensor(values), LEVELS) == code


def test_zero_is_rounded_up_among_eight_levels():
    code = codes_of(torch.zeros(6), LEVELS)
    assert torch.allclose(values_of(code, LEVELS), torch.tensor([1 / 7] * 3 + [0.0] * 3))


def test_all_codes_survive_a_round_trip():
    codes = torch.arange(64_000)
    assert torch.equal(codes_of(values_of(codes, LEVELS), LEVELS), codes)


def test_values_beyond_one_take_the_outer_level():
    assert codes_of(torch.full((6,), 1.2), LEVELS) == 63_999
    assert codes_of(torch.full((6,), -1.2), LEVELS) == 0


def test_large_inputs_reach_the_outer_levels():
    """A plain tanh would never round to the last of eight levels."""
    quantizer = tiny.model().tokenizer.quantizer
    quantizer.project_in.weight.zero_()
    quantizer.project_in.bias.fill_(3.0)
    assert quantizer(torch.zeros(1, 48))[0] == 63_999


def test_the_last_group_is_padded_with_silence():
    tokenizer, silence = tiny.model().tokenizer, draw(1, 10, 64, seed=5)
    latents = draw(2, 13, 64, seed=1)
    codes, embeddings = tokenizer(latents, silence)
    padded = torch.cat((latents, silence[:, :2].expand(2, -1, -1)), dim=1)
    assert codes.shape == (2, 3) and embeddings.shape == (2, 3, 48)
    assert torch.equal(codes, tokenizer(padded, silence)[0])


def test_embeddings_belong_to_the_codes():
    tokenizer, silence = tiny.model().tokenizer, draw(1, 10, 64, seed=5)
    codes, embeddings = tokenizer(draw(2, 20, 64, seed=1), silence)
    assert torch.equal(tokenizer.embed(codes), embeddings)


def test_the_quantiser_computes_in_float32():
    model = tiny.model().bfloat16()
    codes = torch.arange(0, 64_000, 997)[None]
    quantizer = model.tokenizer.quantizer
    weight, bias = quantizer.project_out.weight.float(), quantizer.project_out.bias.float()
    assert torch.equal(quantizer.embed(codes), torch.nn.functional.linear(values_of(codes, LEVELS), weight, bias))
    assert model.tokenizer.embed(codes).dtype == torch.bfloat16


def test_a_code_becomes_five_frames():
    assert tiny.model().detokenize(torch.tensor([[1, 2, 3]])).shape == (1, 15, 64)
