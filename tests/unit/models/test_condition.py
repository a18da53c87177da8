import torch

from acestep_core.models.condition import stack_conditions
from acestep_core.models.model import AceStepModel
from acestep_core.models.ops import CastOps
from tests.support import tiny
from tests.support.tiny import draw, relative_error


def encoder_inputs(batch=1, lyric_tokens=20):
    return draw(batch, 5, 24, seed=1), draw(batch, lyric_tokens, 24, seed=2), draw(batch, 1, 30, 64, seed=3)


def test_rows_are_lyrics_then_references_then_text():
    encoder = tiny.model().encoder
    text, lyrics, timbre = draw(1, 5, 24, seed=1), draw(1, 7, 24, seed=2), draw(1, 2, 30, 64, seed=3)
    rows = encoder(text, lyrics, timbre)
    assert torch.equal(rows[:, :7], encoder.lyric_encoder(lyrics))
    assert torch.allclose(rows[:, 7:9], encoder.timbre_encoder(timbre[0])[None], atol=1e-6)
    assert torch.equal(rows[:, 9:], encoder.text_projector(text))


def test_equal_lengths_need_no_mask():
    items = [draw(1, 4, 8, seed=i) for i in range(3)]
    stacked, mask = stack_conditions(items)
    assert torch.equal(stacked, torch.cat(items)) and mask is None


def test_shorter_conditions_are_padded_and_masked():
    items = [draw(1, 2, 8, seed=1), draw(1, 5, 8, seed=2)]
    stacked, mask = stack_conditions(items)
    assert mask.tolist() == [[True, True, False, False, False], [True] * 5]
    assert torch.equal(stacked[mask], torch.cat(items, dim=1)[0])


def test_only_xl_uses_the_learned_timbre_row():
    for config, uses in ((tiny.STANDARD, False), (tiny.XL, True)):
        encoder = tiny.model(config).encoder
        before = encoder(*encoder_inputs())
        encoder.timbre_encoder.special_token.add_(1)
        assert torch.equal(encoder(*encoder_inputs()), before) != uses


def test_float16_weights_compute_in_float32():
    """The lyric encoder's last MLP overflows float16."""
    model = tiny.model()
    model.encoder.lyric_encoder.layers[-1].mlp.down_proj.weight.mul_(30_000)
    weights = {name: tensor.half() for name, tensor in model.state_dict().items()}
    stored = AceStepModel(tiny.STANDARD, dtype=torch.float16, encoder_ops=CastOps)
    stored.load_state_dict(weights)
    assert stored.decoder.dtype == torch.float16
    assert stored.encoder.dtype == stored.tokenizer.dtype == stored.detokenizer.dtype == torch.float32
    got = stored.encoder(*encoder_inputs())
    assert got.dtype == torch.float32 and got.isfinite().all()
    model.load_state_dict(weights)
    assert relative_error(got, model.encoder(*encoder_inputs())) < 1e-6
    assert not model.half().encoder(*encoder_inputs()).isfinite().all()


def test_all_weights_have_gradients():
    encoder = tiny.model(tiny.XL).encoder.requires_grad_()
    encoder(*encoder_inputs()).square().mean().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
