import pytest
import torch

from acestep_core.sampling.conditions import encode_conditions, fit_reference, text_only_conditions
from acestep_core.text.encoder import TextCondition
from tests.support import tiny
from tests.support.tiny import draw

TEXT = TextCondition(draw(1, 3, 24), draw(1, 4, 24, seed=1), "", "", text_only=draw(1, 5, 24, seed=2))


@pytest.fixture(scope="module")
def network():
    return tiny.model()  # its references are 30 frames long


def test_every_reference_is_a_row_of_its_own(network):
    first, second = draw(1, 30, 64, seed=3), draw(1, 30, 64, seed=4)
    (none,) = encode_conditions(network, [TEXT], "cpu")
    (one,) = encode_conditions(network, [TEXT], "cpu", [first])
    (two,) = encode_conditions(network, [TEXT], "cpu", [first, second])
    assert [rows.shape[1] for rows in (none, one, two)] == [8, 8, 9]
    assert torch.allclose(two[:, 4], one[:, 4], atol=1e-6) and not torch.allclose(two[:, 5], one[:, 4], atol=1e-3)
    (silent,) = encode_conditions(network, [TEXT], "cpu", [network.silence(30)])
    assert torch.equal(none, silent)


def test_references_of_any_length():
    latents = torch.arange(100.0)[None, :, None].expand(1, -1, 64)
    assert fit_reference(latents, 30)[0, :, 0].tolist() == [*range(10), *range(33, 43), *range(90, 100)]
    assert fit_reference(latents[:, :12], 30)[0, :, 0].tolist() == [*range(12), *range(12), *range(6)]
    assert fit_reference(latents[:, :30], 30) is not None and fit_reference(latents, 32).shape[1] == 32


def test_text_only_conditions():
    first, second = text_only_conditions([TEXT, TEXT])
    assert first is second and first.caption is TEXT.text_only and first.lyrics is TEXT.lyrics
