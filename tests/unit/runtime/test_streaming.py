"""Streamed layers. The CPU stands in for the device; a copy has another address."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from acestep_core.models.layers import LayerStack
from acestep_core.models.model import AceStepModel
from acestep_core.models.ops import QuantizedLinear, quantized_ops
from acestep_core.pipeline import Model, sample
from acestep_core.runtime import placement, streaming
from acestep_core.runtime.options import default_placement
from acestep_core.runtime.placement import Offload, tensors_of
from acestep_core.runtime.streaming import Stream, stream_layers
from acestep_core.sampling.settings import SamplingSettings
from acestep_core.text.encoder import TextCondition
from tests.support import tiny
from tests.support.tiny import draw

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def copies_on_the_cpu(monkeypatch):
    monkeypatch.setattr(placement, "_copy_to", lambda tensor, device: tensor.clone())


def pointers(module: nn.Module) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors_of(module)]


class LayerRecorder:
    """Records, whenever a layer runs, the number of layers on the device and the buffers in use."""

    def __init__(self, module: nn.Module):
        self.layers = [layer for stack in module.modules() if isinstance(stack, LayerStack) for layer in stack]
        self.stored = [pointers(layer) for layer in self.layers]
        self.on_device: list[int] = []
        for layer in self.layers:
            layer.register_forward_pre_hook(self.record)

    def record(self, layer: nn.Module, _: object) -> None:
        self.on_device.append(sum(pointers(each) != s for each, s in zip(self.layers, self.stored, strict=True)))
        assert not set(pointers(layer)) & {pointer for stored in self.stored for pointer in stored}


def song(network, placement) -> torch.Tensor:
    condition = TextCondition(draw(1, 5, 24, seed=2), draw(1, 7, 24, seed=3), "", "")
    settings = SamplingSettings(steps=3, shift=1.0, guidance_scale=2.0)
    return sample(Model(network=network, placement=placement), condition, seconds=6, seeds=[7], settings=settings)


@pytest.mark.parametrize("storage", [None, torch.int8, torch.float8_e4m3fn], ids=str)
def test_streaming_keeps_the_result_with_one_layer_at_a_time(storage):
    network = tiny.model() if storage is None else quantized_model(storage)
    expected, recorder = song(network, placement.Resident(CPU)), LayerRecorder(network)
    assert torch.equal(song(network, Stream(CPU)), expected)
    assert set(recorder.on_device) == {1}
    depth = len(recorder.layers) - 4  # without the tokenizer and detokenizer, which are not in use
    assert len(recorder.on_device) == 3 * 4 + (depth - 4)  # three guided steps, and the condition encoder once


def quantized_model(storage: torch.dtype) -> AceStepModel:
    network = AceStepModel(tiny.STANDARD, ops=quantized_ops(storage), encoder_ops=nn)
    tiny.randomise(network)
    for module in network.modules():
        if isinstance(module, QuantizedLinear):
            module.store(module.weight)
    network.silence_latent = draw(1, 60, 64, seed=1)
    return network


def test_two_buffers_serve_all_layers():
    layers = LayerStack(nn.Linear(8, 8) for _ in range(7))
    stored, copies = [pointers(layer) for layer in layers], []
    for layer in stream_layers(layers, CPU):
        copies.append(layer.weight.data_ptr())
        assert sum(pointers(each) != s for each, s in zip(layers, stored, strict=True)) == 1
    assert len(set(copies)) == 2 and copies[:5:2] == [copies[0]] * 3
    assert [pointers(layer) for layer in layers] == stored


def test_the_next_layer_is_copied_while_one_runs(monkeypatch):
    layers, events = LayerStack(nn.Linear(2, 2) for _ in range(3)), []
    send = streaming._LayerCopier.send

    def recording(self, layer):
        events.append(f"send {[*layers].index(layer)}")
        return send(self, layer)

    monkeypatch.setattr(streaming._LayerCopier, "send", recording)
    for index, _ in enumerate(stream_layers(layers, CPU)):
        events.append(f"run {index}")
    assert events == ["send 0", "send 1", "run 0", "send 2", "run 1", "run 2"]


@pytest.fixture
def locked(monkeypatch):
    """Page-locked memory by address: the bytes of each block."""
    blocks: dict[int, int] = {}
    runtime = SimpleNamespace(
        cudaHostRegister=lambda address, size, flags: blocks.update({address: size}) or 0,
        cudaHostUnregister=lambda address: blocks.pop(address) and 0,
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(
        torch.Tensor,
        "is_pinned",
        lambda self: any(start <= self.data_ptr() < start + size for start, size in blocks.items()),
    )
    return blocks


def test_each_layer_is_one_block_of_page_locked_memory(locked, monkeypatch):
    network = quantized_model(torch.int8)
    layers, expected = network.decoder.layers, [tensor.clone() for tensor in tensors_of(network)]
    streaming._pin_layers(layers)
    assert len(locked) == len(layers)
    padding = 256 * max(len(tensors_of(layer)) for layer in layers)
    for layer, size in zip(layers, locked.values(), strict=True):
        assert 0 <= size - sum(tensor.nbytes for tensor in tensors_of(layer)) < padding
    assert all(torch.equal(x, y) for x, y in zip(tensors_of(network), expected, strict=True))
    before = dict(locked)
    streaming._pin_layers(layers)
    assert locked == before, "only once"
    layers[1].mlp_norm.weight.data = torch.ones(48)  # as a merged adapter does
    streaming._pin_layers(layers)
    assert len(locked) == len(layers) and len(locked.keys() & before.keys()) == len(layers) - 1
    monkeypatch.setattr(torch.cuda, "cudart", None)  # unlocking must not start the driver
    del network, layers, layer
    gc.collect()
    assert not locked, "unlocked with the model"


def test_layers_stay_usable_if_there_is_too_little_page_locked_memory(locked, monkeypatch, caplog):
    network = tiny.model()
    monkeypatch.setattr(torch.cuda.cudart(), "cudaHostRegister", lambda *_: 2)
    expected = [tensor.clone() for tensor in tensors_of(network)]
    streaming._pin_layers(network.decoder.layers)
    assert all(torch.equal(x, y) for x, y in zip(tensors_of(network), expected, strict=True))
    assert "page-locked" in caplog.text


def test_layers_of_different_shapes():
    layers = LayerStack([nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 6), nn.Linear(4, 6)])
    expected, x = [layer.weight.clone() for layer in layers], torch.ones(1, 4)
    for layer, weight in zip(stream_layers(layers, CPU), expected, strict=True):
        assert torch.equal(layer.weight, weight) and layer(x).isfinite().all()


def test_an_error_restores_all_tensors():
    network = tiny.model()
    stored = pointers(network)
    with pytest.raises(KeyError) as kept, torch.inference_mode(), Stream(CPU).use(network):
        iteration = network.decoder.layers.iterate()  # alive after the error, as in the frames of a traceback
        for _ in iteration:
            assert pointers(network) != stored
            raise KeyError
    assert kept and next(iteration, None) is None
    assert pointers(network) == stored
    assert not any(stack.stream for stack in network.modules() if isinstance(stack, LayerStack))
    assert not any(tensor.is_inference() for tensor in tensors_of(network))


def test_other_tensors_are_copied_as_a_whole():
    network = tiny.model()
    stacks = [module for module in network.modules() if isinstance(module, LayerStack)]
    streamed = {id(tensor) for stack in stacks for tensor in tensors_of(stack)}
    before = {name: parameter.data_ptr() for name, parameter in network.named_parameters()}
    with Stream(CPU).use(network) as device:
        assert device == CPU
        for name, parameter in network.named_parameters():
            assert (parameter.data_ptr() == before[name]) == (id(parameter) in streamed), name
    vae = tiny.vae()
    stored = pointers(vae)
    with Stream(CPU).use(vae):
        assert not set(pointers(vae)) & set(stored)


def test_streaming_needs_a_device_with_memory_of_its_own():
    cuda, mps = torch.device("cuda:0"), torch.device("mps")
    assert default_placement(cuda, stream=True) == default_placement(cuda, offload=True, stream=True) == Stream(cuda)
    assert isinstance(Stream(cuda), Offload)  # networks are loaded to host memory
    assert default_placement(mps, stream=True) == placement.Resident(mps)
