"""Quantised layers: their distance from float32 in weights, velocity and latents."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from acestep_core.checkpoints.build import load_network
from acestep_core.models.cpu import products
from acestep_core.models.cpu.plugins import install_cpu_plugins
from acestep_core.models.layers import weight_and_bias
from acestep_core.models.ops import QuantizedLinear, dequantize, quantize_rows, quantized_ops
from acestep_core.pipeline import Model, sample
from acestep_core.sampling.settings import SamplingSettings
from acestep_core.text.encoder import TextCondition
from tests.support import layouts, tiny
from tests.support.tiny import cosine, draw, relative_error

CPU = torch.device("cpu")
FP8 = torch.float8_e4m3fn
STORAGE = pytest.mark.parametrize("storage", [torch.int8, FP8], ids=["int8", "fp8"])
# int8 has 8 bits for the largest value of a row, fp8 a mantissa of 3 bits. Lower limits of a velocity's cosine.
MIN_COSINE = {torch.int8: 0.9999, FP8: 0.998}


def quantized_layer(storage: torch.dtype, bias: bool = False) -> QuantizedLinear:
    layer = quantized_ops(storage).layers.Linear(64, 32, bias=bias)
    layer.store(draw(32, 64))
    return layer


@STORAGE
def test_every_row_is_near_its_weight(storage):
    weight = draw(32, 64) * torch.logspace(-6, 3, 32)[:, None]  # rows of very different size
    values, scale = quantize_rows(weight, storage)
    assert (values.dtype, values.element_size(), scale.shape) == (storage, 1, (32, 1))
    step = weight.abs().amax(1, keepdim=True) / 254 if storage == torch.int8 else weight.abs() / 16 + 1e-4 * scale * 448
    assert ((values.float() * scale - weight).abs() <= 1.001 * step).all()


@STORAGE
def test_a_row_of_zeros_stays_zero(storage):
    values, scale = quantize_rows(torch.zeros(2, 8), storage)
    assert torch.equal(values.float() * scale, torch.zeros(2, 8))


@STORAGE
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_non_finite_weights_stay_non_finite(storage, broken):
    weight = draw(4, 8)
    weight[2, 3] = broken
    values, scale = quantize_rows(weight, storage)
    assert (values.float() * scale).isfinite().all(1).tolist() == [True, True, False, True]


def test_fp8_weights_keep_their_values():
    weight = (draw(16, 64) * torch.logspace(-3, 2, 16)[:, None]).to(FP8)
    values, scale = quantize_rows(weight.to(torch.bfloat16), FP8)
    assert torch.equal(values.float() * scale, weight.float())


@STORAGE
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_layer_computes_in_the_dtype_of_its_input(storage, dtype):
    layer, x = quantized_layer(storage, bias=True), draw(3, 64, seed=1).to(dtype)
    weight = (layer.weight.float() * layer.scale).to(dtype)
    assert torch.equal(layer(x), F.linear(x, weight, layer.bias.to(dtype)))
    assert torch.equal(weight_and_bias(layer, x)[0], weight)
    assert layer.weight.dtype == storage
    install_cpu_plugins(layer, CPU)
    assert torch.equal(layer(x), products.product(x, weight, layer.bias.to(dtype)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_fp8_number_is_dequantised_as_by_torch(dtype):
    values = torch.arange(256, dtype=torch.uint8).view(FP8)[None]
    values = values.view(torch.uint8)[~values.float().isnan()].view(FP8)[None]  # torch 2.5 cannot index fp8
    scale, like = torch.tensor([[0.5]]), torch.zeros(1, dtype=dtype)
    for function in (dequantize, products.cpu_dequantize):
        assert torch.equal(function(values, scale, like), values.to(dtype) * 0.5)
    assert (products._fp8_over_256(values).float() * 256 == values.float()).all()


@STORAGE
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_rows_dequantise_a_weight_piece_by_piece(storage, dtype, monkeypatch):
    layer, x = quantized_layer(storage, bias=True), draw(2, 3, 64, seed=1).to(dtype)
    expected, sizes, original = layer(x), [], products.cpu_dequantize

    def recording(values, scale, like):
        sizes.append(len(values))
        return original(values, scale, like)

    install_cpu_plugins(layer, CPU)
    monkeypatch.setattr(products, "PIECE", 5 * 64)
    monkeypatch.setattr(products, "cpu_dequantize", recording)
    torch.testing.assert_close(layer(x), expected, atol=1e-4 if dtype == torch.float32 else 0.2, rtol=0)
    assert sizes == [5] * 6 + [2]
    layer(draw(products.FEW_ROWS + 1, 64, seed=1).to(dtype))
    assert sizes[7:] == [32]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return layouts.save(tmp_path_factory.mktemp("quantized") / "turbo.safetensors", tiny.model().state_dict())


@STORAGE
def test_velocity_stays_near(file, storage):
    plain, _ = load_network(file)
    quantized, _ = load_network(file, ops=quantized_ops(storage))
    x, context, condition = draw(2, 101, 64, seed=1), draw(2, 101, 128, seed=2), draw(2, 9, 48, seed=3)
    t = torch.tensor([0.9, 0.3])
    expected, got = (each.decoder(x, t, each.decoder.prepare(context, condition)) for each in (plain, quantized))
    assert MIN_COSINE[storage] < cosine(got, expected) < 1


@STORAGE
def test_only_the_transformer_layers_are_quantised(file, storage):
    network, report = load_network(file, dtype=torch.bfloat16, ops=quantized_ops(storage))
    names = {name for name, module in network.named_modules() if isinstance(module, QuantizedLinear)}
    layers = network.decoder.layers.named_modules(prefix="decoder.layers")
    assert names == {name for name, module in layers if isinstance(module, nn.Linear)} != set()
    assert all(network.get_submodule(name).weight.dtype == storage for name in names)
    assert {p.dtype for n, p in network.named_parameters() if n.rpartition(".")[0] not in names} == {torch.bfloat16}
    assert network.decoder.dtype == torch.bfloat16 and report.matched == len(network.state_dict())


@STORAGE
def test_latents_stay_near(file, storage):
    latents = []
    for ops in (nn, quantized_ops(storage)):
        network, _ = load_network(file, ops=ops)
        network.silence_latent = draw(1, 60, 64, seed=1)
        condition = TextCondition(draw(1, 5, 24, seed=2), draw(1, 7, 24, seed=3), "", "")
        settings = SamplingSettings(steps=4, shift=1.0)
        latents.append(sample(Model(network=network), condition, seconds=6, seeds=[7], settings=settings))
    assert relative_error(*latents) > 0
    assert cosine(*latents) > MIN_COSINE[storage]


def test_a_matrix_takes_a_byte_a_value():
    layer = quantized_layer(torch.int8)
    assert sum(tensor.nbytes for tensor in (*layer.parameters(), *layer.buffers())) == 32 * 64 + 4 * 32
