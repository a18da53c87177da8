"""Installing the CPU plug-ins, and the DiT layers that compute in chunks."""

import copy

import pytest
import torch
from torch import nn

from acestep_core.models.condition import stack_conditions
from acestep_core.models.cpu import chunked_layer, plugins, products
from acestep_core.models.cpu.fast_oobleck import DirectConvTranspose1d, FastOobleckDecoder, FastOobleckEncoder
from acestep_core.models.cpu.plugins import install_cpu_plugins
from acestep_core.models.dit import DiT
from acestep_core.models.ops import CastLinear, quantized_ops
from tests.support import tiny
from tests.support.tiny import draw, relative_error

CPU = torch.device("cpu")
WIDTH = tiny.STANDARD.encoder_hidden_size


def count_mlp_rows(decoder: DiT) -> list[int]:
    """The rows of each call of an MLP."""
    rows: list[int] = []
    for layer in decoder.layers:
        layer.mlp.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[1]))
    return rows


def velocity_of(decoder: DiT) -> torch.Tensor:
    x, context = draw(2, 41, 64, seed=1), draw(2, 41, 128, seed=2)
    conditions = [draw(1, 11, WIDTH, seed=5), draw(1, 4, WIDTH, seed=6)]
    prepared = decoder.prepare(context, *stack_conditions(conditions), null=draw(1, 1, WIDTH, seed=4))
    return decoder(torch.cat((x, x)), torch.tensor([0.8, 0.3]), prepared)


def test_chunks_give_the_result_of_the_whole(monkeypatch):
    decoder = tiny.model().decoder
    expected = velocity_of(decoder)
    install_cpu_plugins(decoder, CPU)
    monkeypatch.setattr(chunked_layer, "chunk_rows", lambda width: width // 6)
    rows = count_mlp_rows(decoder)
    assert relative_error(velocity_of(decoder), expected) < 1e-6
    assert rows == [7, 7, 7] * len(decoder.layers)  # equal chunks rather than 8, 8 and 5


def test_chunks_are_longer_for_onednn_and_for_wide_layers(monkeypatch):
    for onednn, rows in ((torch.nn.functional.linear, [2048, 2048, 2048]), (None, [512, 512, 1024])):
        monkeypatch.setattr(products, "ONEDNN", onednn)
        assert [chunked_layer.chunk_rows(width) for width in (48, 512, 2048)] == rows


def test_layers_that_cast_their_weights_do_not_chunk(monkeypatch):
    class Ops:
        Linear, Conv1d, ConvTranspose1d = CastLinear, nn.Conv1d, nn.ConvTranspose1d

    decoder = tiny.randomise(DiT(tiny.STANDARD, ops=Ops)).half()
    decoder.compute_dtype = torch.float32
    decoder.proj_in.float(), decoder.proj_out.float()
    install_cpu_plugins(decoder, CPU)
    monkeypatch.setattr(chunked_layer, "chunk_rows", lambda _: 8)
    rows = count_mlp_rows(decoder)
    assert velocity_of(decoder).isfinite().all()
    assert rows == [21] * len(decoder.layers)


def test_plugins_change_classes_but_no_names_and_weights(monkeypatch):
    monkeypatch.setattr(plugins, "PLUGINS", (*plugins.PLUGINS, DirectConvTranspose1d))
    vae, network = tiny.vae(), tiny.model()
    for each in (vae, network):
        before = each.state_dict()
        install_cpu_plugins(each, CPU)
        assert list(each.state_dict()) == list(before)
        assert all(torch.equal(tensor, before[name]) for name, tensor in each.state_dict().items())
    assert type(vae.encoder) is FastOobleckEncoder and type(vae.decoder) is FastOobleckDecoder
    assert type(vae.decoder.block[0].conv_t1) is DirectConvTranspose1d
    assert {type(layer) for layer in network.decoder.layers} == {chunked_layer.ChunkedDiTLayer}
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert {type(module) for module in linears} == {products.CpuLinear}


def test_plugins_are_for_cpus():
    network = tiny.model()
    install_cpu_plugins(network, torch.device("cuda"))
    assert type(network.decoder.layers[0].mlp.up_proj) is nn.Linear


@pytest.mark.parametrize("layer", [CastLinear, quantized_ops(torch.int8).layers.Linear], ids=["cast", "quantized"])
def test_layers_of_other_classes_keep_them(layer):
    class Ops:
        Linear, Conv1d, ConvTranspose1d = nn.Linear, nn.Conv1d, nn.ConvTranspose1d

        class layers:
            Linear = layer

    decoder = DiT(tiny.STANDARD, ops=Ops)
    before = type(decoder.layers[0].mlp.up_proj)
    for _ in range(2):
        install_cpu_plugins(decoder, CPU)
        linear = decoder.layers[0].mlp.up_proj
        assert isinstance(linear, before) and isinstance(linear, products.CpuLinear | products.CpuQuantizedLinear)
        assert type(copy.deepcopy(linear)) is type(linear)
