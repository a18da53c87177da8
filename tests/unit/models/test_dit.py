from dataclasses import replace

import pytest
import torch

from acestep_core.models.condition import stack_conditions
from acestep_core.models.dit import DiT
from acestep_core.models.ops import CastLinear
from tests.support import tiny
from tests.support.tiny import draw, relative_error

WIDTH = tiny.STANDARD.encoder_hidden_size


def inputs(batch=2, frames=31, rows=9):
    return draw(batch, frames, 64, seed=1), draw(batch, frames, 128, seed=2), draw(batch, rows, WIDTH, seed=3)


def test_one_preparation_serves_all_steps():
    decoder = tiny.model().decoder
    x, context, condition = inputs()
    shared = decoder.prepare(context, condition)
    for time in (1.0, 0.5, 0.1):
        t = torch.full((2,), time)
        assert torch.equal(decoder(x, t, shared), decoder(x, t, decoder.prepare(context, condition)))


def test_batched_songs_equal_single_songs():
    decoder = tiny.model().decoder
    x, context, _ = inputs()
    t, conditions = torch.tensor([0.8, 0.3]), [draw(1, 11, WIDTH, seed=5), draw(1, 4, WIDTH, seed=6)]
    together = decoder(x, t, decoder.prepare(context, *stack_conditions(conditions)))
    for i, condition in enumerate(conditions):
        item = slice(i, i + 1)
        alone = decoder(x[item], t[item], decoder.prepare(context[item], condition))
        assert relative_error(together[item], alone) < 1e-5


def test_one_condition_is_shared_by_a_batch():
    decoder = tiny.model().decoder
    x, context, condition = inputs()
    t, null = torch.tensor([0.8, 0.3]), draw(1, 1, WIDTH, seed=4)
    one = decoder.prepare(context, condition[:1], null=null)
    each = decoder.prepare(context, condition[:1].expand(2, -1, -1), null=null)
    assert torch.allclose(decoder(x, t, one), decoder(x, t, each), atol=1e-5)
    twice = torch.cat((x, x))
    assert torch.allclose(decoder(twice, t, one), decoder(twice, t, each), atol=1e-5)


def test_one_time_is_shared_by_all_rows():
    decoder = tiny.model().decoder
    x, context, condition = inputs()
    prepared = decoder.prepare(context, condition)
    one, each = (decoder(x, torch.tensor(t), prepared) for t in ([0.4], [0.4, 0.4]))
    assert torch.allclose(one, each, atol=1e-5)


def test_float16_holds_large_activations():
    """Their squares, which the norms sum, exceed float16 by far."""
    decoder = tiny.model().decoder
    decoder.proj_in[1].weight.mul_(4000)
    largest = []
    for layer in decoder.layers:
        layer.register_forward_hook(lambda layer, inputs, x: largest.append(x.abs().max().item()))
    x, context, condition = inputs()
    t, null = torch.tensor([0.8, 0.3]), draw(1, 1, WIDTH, seed=4)

    def step():
        return decoder(torch.cat((x, x)), t, decoder.prepare(context, condition, null=null))

    expected = step()
    assert 11_500 < min(largest) < 50_000  # 11 500 is the largest that is known of the released models
    decoder.half()
    assert relative_error(step(), expected) < 0.01


def test_time_features_are_computed_in_float32():
    """In bfloat16, 1000 t is the same for these two times."""
    embed = tiny.model().decoder.time_embed.bfloat16()
    early, late = (embed(torch.tensor([t]), torch.bfloat16).state for t in (0.9545, 0.9530))
    assert not torch.equal(early, late)


def test_the_second_time_embedder_counts_at_zero():
    decoder = tiny.model().decoder
    x, context, condition = inputs()
    t = torch.tensor([0.5, 0.5])
    before = decoder(x, t, decoder.prepare(context, condition))
    decoder.time_embed_r.time_proj.bias.add_(0.5)
    assert relative_error(decoder(x, t, decoder.prepare(context, condition)), before) > 0.01


@pytest.mark.parametrize("frames", [1, 250, 251])
def test_odd_frame_counts_are_padded_and_cropped(frames):
    decoder = tiny.model().decoder
    x, context, condition = inputs(frames=frames)
    prepared = decoder.prepare(context, condition)
    assert prepared.patches.shape[1] == -(-frames // 2)
    assert decoder(x, torch.tensor([0.5, 0.5]), prepared).shape == x.shape


def test_compute_dtype_differs_from_weight_dtype():
    class Ops:
        Linear, Conv1d, ConvTranspose1d = CastLinear, torch.nn.Conv1d, torch.nn.ConvTranspose1d

    weights = {name: tensor.half() for name, tensor in tiny.model().decoder.state_dict().items()}
    stored = DiT(tiny.STANDARD, Ops, dtype=torch.float16)
    stored.load_state_dict(weights)
    assert stored.dtype == torch.float16
    stored.compute_dtype = torch.float32
    plain = DiT(tiny.STANDARD)
    plain.load_state_dict(weights)
    x, context, condition = inputs()
    t = torch.tensor([0.8, 0.3])
    got, expected = (net(x, t, net.prepare(context, condition)) for net in (stored, plain))
    assert torch.equal(got, expected)


def test_all_weights_have_gradients():
    decoder = tiny.model().decoder.requires_grad_()
    x, context, condition = inputs()
    null = draw(1, 1, WIDTH, seed=4)
    prepared = decoder.prepare(context, condition, null=null)
    decoder(torch.cat((x, x)), torch.tensor([0.8, 0.3]), prepared).square().mean().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_a_probe_gets_the_queries_of_its_layer():
    decoder = tiny.model().decoder
    x, context, condition = inputs()
    t = torch.full((2,), 0.5)
    whole = decoder.prepare(context, condition)
    part = decoder.prepare(context, condition, depth=3)
    assert len(part.cross) == 3

    queries = []
    cross = [replace(part.cross[0], probe=queries.append), *part.cross[1:]]
    decoder(x, t, replace(part, cross=cross))
    assert [tuple(q.shape) for q in queries] == [(2, 2, 2, 16, 16)]

    # The attention of these queries is the layer's.
    attended = []
    attend = decoder.layers[0].cross_attn.cross
    decoder.layers[0].cross_attn.cross = lambda *inputs: attended.append(attend(*inputs)) or attended[0]
    expected = decoder(x, t, whole)
    weights = (queries[0] @ whole.cross[0].keys[:, :, None].transpose(-1, -2) / 4).softmax(-1)
    merged = decoder.layers[0].cross_attn.merge(weights @ whole.cross[0].values[:, :, None])
    assert tiny.relative_error(merged, attended[0]) < 1e-5

    # A probe on every layer changes no velocity.
    probed = replace(whole, cross=[replace(state, probe=queries.append) for state in whole.cross])
    assert torch.equal(decoder(x, t, probed), expected)
