"""LayerStack that visit the device in turn. The CPU stands in for it: a copy there is a copy too, and can be told apart."""

from __future__ import annotations

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
from acestep_core.runtime.streaming import Stream, visits
from acestep_core.sampling.settings import SamplingSettings
from acestep_core.text.encoder import TextCondition
from tests.support import tiny
from tests.support.tiny import draw

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def a_device_of_its_own(monkeypatch):
    monkeypatch.setattr(placement, "_copy_to", lambda tensor, device: tensor.clone())


def places(module: nn.Module) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors_of(module)]


class Watch:
    """Counts, whenever a layer of a stack runs, how many of all layers and how many rooms are on the device."""

    def __init__(self, module: nn.Module):
        self.layers = [layer for stack in module.modules() if isinstance(stack, LayerStack) for layer in stack]
        self.homes = [places(layer) for layer in self.layers]
        self.away: list[int] = []
        self.rooms: set[int] = set()
        for layer in self.layers:
            layer.register_forward_pre_hook(self.look)

    def look(self, layer: nn.Module, _: object) -> None:
        self.away.append(sum(places(each) != home for each, home in zip(self.layers, self.homes, strict=True)))
        assert not set(places(layer)) & {place for home in self.homes for place in home}
        self.rooms.add(places(layer)[0])


def song(network, placement) -> torch.Tensor:
    condition = TextCondition(draw(1, 5, 24, seed=2), draw(1, 7, 24, seed=3), "", "")
    settings = SamplingSettings(steps=3, shift=1.0, guidance_scale=2.0)
    return sample(Model(network=network, placement=placement), condition, seconds=6, seeds=[7], settings=settings)


@pytest.mark.parametrize("stored", [None, torch.int8, torch.float8_e4m3fn], ids=str)
def test_a_song_is_the_same_and_one_layer_runs_at_a_time(stored):
    network = tiny.model() if stored is None else in_one_byte(stored)
    wanted, watch = song(network, placement.Resident(CPU)), Watch(network)
    assert torch.equal(song(network, Stream(CPU)), wanted)
    assert set(watch.away) == {1}
    depth = len(watch.layers) - 4  # tokenizer and detokenizer have two each, and rest
    assert len(watch.away) == 3 * 4 + (depth - 4)  # three steps of both halves together, and the condition encoder once


def in_one_byte(storage: torch.dtype) -> AceStepModel:
    network = AceStepModel(tiny.STANDARD, ops=quantized_ops(storage), encoder_ops=nn)
    tiny.randomise(network)
    for module in network.modules():
        if isinstance(module, QuantizedLinear):
            module.store(module.weight)
    network.silence_latent = draw(1, 60, 64, seed=1)
    return network


def test_two_rooms_serve_all_layers():
    layers = LayerStack(nn.Linear(8, 8) for _ in range(7))
    homes, seen = [places(layer) for layer in layers], []
    for layer in visits(layers, CPU):
        seen.append(layer.weight.data_ptr())
        assert sum(places(each) != home for each, home in zip(layers, homes, strict=True)) == 1
    assert len(set(seen)) == 2 and seen[:5:2] == [seen[0]] * 3
    assert [places(layer) for layer in layers] == homes


def test_the_next_layer_is_sent_while_one_runs(monkeypatch):

    layers, events = LayerStack(nn.Linear(2, 2) for _ in range(3)), []
    send = streaming._Courier.send

    def noted(self, layer):
        events.append(f"send {[*layers].index(layer)}")
        return send(self, layer)

    monkeypatch.setattr(streaming._Courier, "send", noted)
    for index, _ in enumerate(visits(layers, CPU)):
        events.append(f"run {index}")
    assert events == ["send 0", "send 1", "run 0", "send 2", "run 1", "run 2"]


def test_layers_of_different_shapes():
    layers = LayerStack([nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 6), nn.Linear(4, 6)])
    wanted, x = [layer.weight.clone() for layer in layers], torch.ones(1, 4)
    for layer, weight in zip(visits(layers, CPU), wanted, strict=True):
        assert torch.equal(layer.weight, weight) and layer(x).isfinite().all()


def test_an_error_brings_everything_home():
    network = tiny.model()
    homes = places(network)
    with pytest.raises(KeyError), torch.inference_mode(), Stream(CPU).use(network):
        for _ in network.decoder.layers.iterate():
            assert places(network) != homes
            raise KeyError
    assert places(network) == homes
    assert not any(stack.stream for stack in network.modules() if isinstance(stack, LayerStack))
    assert not any(tensor.is_inference() for tensor in tensors_of(network))


def test_what_is_no_layer_visits_as_a_whole():
    network = tiny.model()
    waiting = {id(tensor) for stack in network.modules() if isinstance(stack, LayerStack) for tensor in tensors_of(stack)}
    before = {name: parameter.data_ptr() for name, parameter in network.named_parameters()}
    with Stream(CPU).use(network) as device:
        assert device == CPU
        for name, parameter in network.named_parameters():
            assert (parameter.data_ptr() == before[name]) == (id(parameter) in waiting), name
    vae = tiny.vae()
    homes = places(vae)
    with Stream(CPU).use(vae):
        assert not set(places(vae)) & set(homes)


def test_streaming_is_for_devices_with_their_own_memory():
    cuda, mps = torch.device("cuda:0"), torch.device("mps")
    assert default_placement(cuda, stream=True) == default_placement(cuda, offload=True, stream=True) == Stream(cuda)
    assert isinstance(Stream(cuda), Offload)  # networks are loaded into main memory
    assert default_placement(mps, stream=True) == placement.Resident(mps)
