import pytest
import torch

from acestep_core.models import dit
from acestep_core.models.condition import stack_conditions
from acestep_core.models.dit import DiT
from acestep_core.models.ops import CastLinear
from tests.support import tiny
from tests.support.tiny import draw, relative_error

WIDTH = tiny.STANDARD.encoder_hidden_size


def inputs(batch=2, frames=31, rows=9):
    return draw(batch, frames, 64, seed=1), draw(batch, frames, 128, seed=2), draw(batch, rows, WIDTH, seed=3)


def test_one_preparation_serves_every_step():
    decoder = tiny.model().decoder
    x, context, condition = inputs()
    shared = decoder.prepare(context, condition)
    for time in (1.0, 0.5, 0.1):
        t = torch.full((2,), time)
        assert torch.equal(decoder(x, t, shared), decoder(x, t, decoder.prepare(context, condition)))


def test_an_item_of_a_batch_is_the_item_alone():
    decoder = tiny.model().decoder
    x, context, _ = inputs()
    t, conditions = torch.tensor([0.8, 0.3]), [draw(1, 11, WIDTH, seed=5), draw(1, 4, WIDTH, seed=6)]
    together = decoder(x, t, decoder.prepare(context, *stack_conditions(conditions)))
    for i, condition in enumerate(conditions):
        item = slice(i, i + 1)
        alone = decoder(x[item], t[item], decoder.prepare(context[item], condition))
        assert relative_error(together[item], alone) < 1e-5


def test_one_condition_serves_a_batch_of_songs():
    decoder = tiny.model().decoder
    x, context, condition = inputs()
    t, null = torch.tensor([0.8, 0.3]), draw(1, 1, WIDTH, seed=4)
    one = decoder.prepare(context, condition[:1], null=null)
    each = decoder.prepare(context, condition[:1].expand(2, -1, -1), null=null)
    assert torch.allclose(decoder(x, t, one), decoder(x, t, each), atol=1e-5)
    twice = torch.cat((x, x))
    assert torch.allclose(decoder(twice, t, one), decoder(twice, t, each), atol=1e-5)


def test_one_time_serves_all_rows():
    decoder = tiny.model().decoder
    x, context, condition = inputs()
    prepared = decoder.prepare(context, condition)
    one, each = (decoder(x, torch.tensor(t), prepared) for t in ([0.4], [0.4, 0.4]))
    assert torch.allclose(one, each, atol=1e-5)


def test_time_features_are_computed_in_float32():
    """1000 t rounded to bfloat16 would be the same for these two times."""
    embed = tiny.model().decoder.time_embed.bfloat16()
    early, late = (embed(torch.tensor([t]), torch.bfloat16).state for t in (0.9545, 0.9530))
    assert not torch.equal(early, late)


def test_the_zero_of_the_second_time_is_not_nothing():
    decoder = tiny.model().decoder
    x, context, condition = inputs()
    t = torch.tensor([0.5, 0.5])
    before = decoder(x, t, decoder.prepare(context, condition))
    decoder.time_embed_r.time_proj.bias.add_(0.5)
    assert relative_error(decoder(x, t, decoder.prepare(context, condition)), before) > 0.01


@pytest.mark.parametrize("frames", [1, 250, 251])
def test_an_odd_frame_count_is_filled_up_and_cropped(frames):
    decoder = tiny.model().decoder
    x, context, condition = inputs(frames=frames)
    prepared = decoder.prepare(context, condition)
    assert prepared.patches.shape[1] == -(-frames // 2)
    assert decoder(x, torch.tensor([0.5, 0.5]), prepared).shape == x.shape


def test_computes_in_another_dtype_than_its_weights():
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
    got, wanted = (net(x, t, net.prepare(context, condition)) for net in (stored, plain))
    assert torch.equal(got, wanted)


def test_every_weight_learns():
    decoder = tiny.model().decoder.requires_grad_()
    x, context, condition = inputs()
    null = draw(1, 1, WIDTH, seed=4)
    prepared = decoder.prepare(context, condition, null=null)
    decoder(torch.cat((x, x)), torch.tensor([0.8, 0.3]), prepared).square().mean().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


# --- rows at a time, on a CPU -----------------------------------------------------------------------------------------


class Calls:
    """How many rows the MLPs saw, call by call."""

    def __init__(self, decoder):
        self.rows: list[int] = []
        for layer in decoder.layers:
            layer.mlp.register_forward_pre_hook(lambda _, inputs: self.rows.append(inputs[0].shape[1]))


def velocity_of(decoder):
    x, context, _ = inputs(frames=41)
    conditions = [draw(1, 11, WIDTH, seed=5), draw(1, 4, WIDTH, seed=6)]
    prepared = decoder.prepare(context, *stack_conditions(conditions), null=draw(1, 1, WIDTH, seed=4))
    return decoder(torch.cat((x, x)), torch.tensor([0.8, 0.3]), prepared)


def test_rows_at_a_time_are_all_rows(monkeypatch):
    decoder = tiny.model().decoder
    wanted, calls = velocity_of(decoder), Calls(decoder)
    for fast, rows in ((True, [2048, 2048, 2048]), (False, [512, 512, 1024])):
        monkeypatch.setattr(dit, "fast_products", lambda fast=fast: fast)
        assert [dit.rows_at_a_time(width) for width in (48, 512, 2048)] == rows
    monkeypatch.setattr(dit, "rows_at_a_time", lambda width: width // 6)
    assert relative_error(velocity_of(decoder), wanted) < 1e-6
    assert calls.rows == [7, 7, 7] * len(decoder.layers)  # rather than 8, 8 and 5


def test_weights_that_are_restored_at_each_use_are_restored_once(monkeypatch):
    class Cast:
        Linear, Conv1d, ConvTranspose1d = CastLinear, torch.nn.Conv1d, torch.nn.ConvTranspose1d

    decoder = tiny.randomise(DiT(tiny.STANDARD, ops=Cast)).half()
    decoder.compute_dtype, calls = torch.float32, Calls(decoder)
    decoder.proj_in.float(), decoder.proj_out.float()
    monkeypatch.setattr(dit, "rows_at_a_time", lambda _: 8)
    assert velocity_of(decoder).isfinite().all()
    assert calls.rows == [21] * len(decoder.layers)
