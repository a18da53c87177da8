"""Weights kept in one byte a value: how near to float32 the layers, the velocity and a song stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from acestep_core.checkpoints.build import load_network
from acestep_core.models import ops
from acestep_core.models.layers import weight_and_bias
from acestep_core.models.ops import StoredLinear, stored, stored_ops
from acestep_core.pipeline import Model, sample
from acestep_core.sampling.settings import SamplingSettings
from acestep_core.text.encoder import TextCondition
from tests.support import layouts, tiny
from tests.support.tiny import cosine, draw, relative_error

FP8 = torch.float8_e4m3fn
KINDS = pytest.mark.parametrize("storage", [torch.int8, FP8], ids=["int8", "fp8"])
# Rounded to 8 bits in the largest of a row, and to 3 bits of mantissa: cosines of a velocity, at least.
NEAR = {torch.int8: 0.9999, FP8: 0.998}


def layer(storage, bias=False) -> StoredLinear:
    made = stored_ops(storage).layers.Linear(64, 32, bias=bias)
    made.store(draw(32, 64))
    return made


@KINDS
def test_a_stored_matrix_is_near_in_every_row(storage):
    weight = draw(32, 64) * torch.logspace(-6, 3, 32)[:, None]  # rows of very different size
    values, scale = stored(weight, storage)
    assert (values.dtype, values.element_size(), scale.shape) == (storage, 1, (32, 1))
    restored = values.float() * scale
    step = weight.abs().amax(1, keepdim=True) / 254 if storage == torch.int8 else weight.abs() / 16 + 1e-4 * scale * 448
    assert ((restored - weight).abs() <= 1.001 * step).all()


@KINDS
def test_a_row_of_zeros_stays_zero(storage):
    values, scale = stored(torch.zeros(2, 8), storage)
    assert torch.equal(values.float() * scale, torch.zeros(2, 8))


@KINDS
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_broken_weight_is_not_made_whole(storage, broken):
    weight = draw(4, 8)
    weight[2, 3] = broken
    values, scale = stored(weight, storage)
    assert (values.float() * scale).isfinite().all(1).tolist() == [True, True, False, True]


def test_what_was_fp8_stays_as_it_is():
    weight = (draw(16, 64) * torch.logspace(-3, 2, 16)[:, None]).to(FP8)
    values, scale = stored(weight.to(torch.bfloat16), FP8)
    assert torch.equal(values.float() * scale, weight.float())


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_layer_computes_in_the_dtype_of_its_input(storage, dtype):
    linear, x = layer(storage, bias=True), draw(3, 64, seed=1).to(dtype)
    weight = (linear.weight.float() * linear.scale).to(dtype)
    assert torch.equal(linear(x), ops.linear(x, weight, linear.bias.to(dtype)))
    assert torch.equal(weight_and_bias(linear, x)[0], weight)
    assert linear.weight.dtype == storage  # not restored for good


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_fp8_number_is_restored_as_torch_does(dtype):
    values = torch.arange(256, dtype=torch.uint8).view(FP8)[None]
    values = values.view(torch.uint8)[~values.float().isnan()].view(FP8)[None]  # torch 2.5 selects no fp8
    scale, like = torch.tensor([[0.5]]), torch.zeros(1, dtype=dtype)
    assert torch.equal(ops._restored(values, scale, like), values.to(dtype) * 0.5)
    assert (ops._256th(values).float() * 256 == values.float()).all()


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_for_few_rows_a_weight_is_restored_piece_by_piece(storage, dtype, monkeypatch):
    whole, x = layer(storage, bias=True), draw(2, 3, 64, seed=1).to(dtype)
    wanted, sizes, restored = whole(x), [], ops._restored

    def watched(values, scale, like):
        sizes.append(len(values))
        return restored(values, scale, like)

    monkeypatch.setattr(ops, "PIECE", 5 * 64)
    monkeypatch.setattr(ops, "_restored", watched)
    torch.testing.assert_close(whole(x), wanted, atol=1e-4 if dtype == torch.float32 else 0.2, rtol=0)
    assert sizes == [5] * 6 + [2]
    whole(draw(ops.FEW_ROWS + 1, 64, seed=1).to(dtype))
    assert sizes[7:] == [32]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return layouts.save(tmp_path_factory.mktemp("stored") / "turbo.safetensors", tiny.model().state_dict())


@KINDS
def test_the_velocity_stays_near(file, storage):
    whole, _ = load_network(file)
    network, _ = load_network(file, ops=stored_ops(storage))
    x, context, condition = draw(2, 101, 64, seed=1), draw(2, 101, 128, seed=2), draw(2, 9, 48, seed=3)
    t = torch.tensor([0.9, 0.3])
    wanted, got = (each.decoder(x, t, each.decoder.prepare(context, condition)) for each in (whole, network))
    assert NEAR[storage] < cosine(got, wanted) < 1


@KINDS
def test_only_the_layers_of_the_transformer_are_stored(file, storage):
    network, report = load_network(file, dtype=torch.bfloat16, ops=stored_ops(storage))
    names = {name for name, module in network.named_modules() if isinstance(module, StoredLinear)}
    wanted = {
        name for name, m in network.decoder.layers.named_modules(prefix="decoder.layers") if isinstance(m, nn.Linear)
    }
    assert names == wanted != set()
    assert all(network.get_submodule(name).weight.dtype == storage for name in names)
    assert {p.dtype for n, p in network.named_parameters() if n.rpartition(".")[0] not in names} == {torch.bfloat16}
    assert network.decoder.dtype == torch.bfloat16 and report.matched == len(network.state_dict())


@KINDS
def test_a_song_differs_little(file, storage):
    songs = []
    for kind in (nn, stored_ops(storage)):
        network, _ = load_network(file, ops=kind)
        network.silence_latent = draw(1, 60, 64, seed=1)
        condition = TextCondition(draw(1, 5, 24, seed=2), draw(1, 7, 24, seed=3), "", "")
        settings = SamplingSettings(steps=4, shift=1.0)
        songs.append(sample(Model(network=network), condition, seconds=6, seeds=[7], settings=settings))
    assert relative_error(*songs) > 0
    assert cosine(*songs) > NEAR[storage]


def test_a_matrix_takes_a_byte_a_value():
    linear = layer(torch.int8)
    assert sum(tensor.nbytes for tensor in (*linear.parameters(), *linear.buffers())) == 32 * 64 + 4 * 32
