"""Guidance with its two halves on two devices."""

import threading
from dataclasses import replace

import pytest
import torch

from acestep_core.load import Model
from acestep_core.pipeline import encode, load_model, sample
from acestep_core.runtime.placement import Resident
from acestep_core.sampling.settings import SamplingSettings
from acestep_core.song.song import Song
from tests.support.simulated_cuda import simulated_cuda
from tests.support.tiny import relative_error

CPU = torch.device("cpu")
GUIDED = SamplingSettings(steps=2, guidance_scale=3.0)


def with_second(model: Model, device: torch.device = CPU) -> Model:
    second = load_model("nano", variant="base", device="cpu", dtype="float32")
    return replace(model, second=replace(second, placement=Resident(device)))


def song(model: Model, settings: SamplingSettings = GUIDED, **options: object) -> torch.Tensor:
    return sample(model, encode(model, Song("warm piano")), seconds=3.0, seeds=[1, 2], settings=settings, **options)


@pytest.fixture(scope="module")
def model():
    return load_model("nano", variant="base", device="cpu", dtype="float32")


def test_a_second_network_computes_the_unconditional_rows(model):
    split, calls = with_second(model), []
    split.second.network.register_forward_pre_hook(
        lambda _, inputs: calls.append((len(inputs[0]), threading.current_thread() is threading.main_thread()))
    )
    assert relative_error(song(split), song(model)) < 1e-5
    assert calls == [(2, False)] * 2
    assert torch.equal(
        song(split, SamplingSettings(steps=2, guidance_scale=1.0)),
        song(model, SamplingSettings(steps=2, guidance_scale=1.0)),
    )
    assert len(calls) == 2


def test_a_second_network_computes_the_negative_caption(model):
    negative = replace(GUIDED, negative_caption="noise")
    alone, split = song(model, negative), song(with_second(model), negative)
    assert relative_error(split, alone) < 1e-5 < 1e-3 < relative_error(song(model), alone)


def test_an_error_of_the_second_network_ends_the_sampling(model):
    split = with_second(model)

    def fail(*_: object) -> None:
        raise MemoryError("second device")

    split.second.network.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError, match="second device"):
        song(split)


def test_both_halves_lie_on_their_own_device(model):
    with simulated_cuda():
        first = replace(
            with_second(load_model("nano", variant="base", device="cpu", dtype="float32")),
            placement=Resident(torch.device("cuda:0")),
        )
        assert relative_error(song(first), song(model)) < 1e-5
