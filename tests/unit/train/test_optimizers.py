"""Dropout, the average of the factors, and AdamW in 8 bits, in one process and across the end of one."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from acestep_core.callbacks import Callbacks
from acestep_core.errors import RequestError
from acestep_core.train.features import Features
from acestep_core.train.optimizers import AveragedFactors, check_optimizer, make_optimizer
from acestep_core.train.train_adapter import train_adapter
from acestep_core.train.train_loop import TrainingRun
from acestep_core.train.train_settings import TrainSettings
from acestep_core.train.train_state import STATE, TrainState
from acestep_core.train.trainable import InputDropout, make_trainable
from tests.support import tiny
from tests.support.tiny import draw

WIDTH = tiny.STANDARD.encoder_hidden_size
CPU = torch.device("cpu")


class Rounded(torch.optim.Optimizer):
    """A stand-in for the optimiser of bitsandbytes, with a state like its own: a number, and tensors of few bits."""

    def __init__(self, parameters, lr: float, weight_decay: float):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state |= {
                        "step": 0,
                        "state1": torch.zeros_like(parameter, dtype=torch.uint8),
                        "absmax1": torch.ones(1),
                    }
                mean = state["absmax1"] * (state["state1"].float() / 127 - 1) * 0.9 + parameter.grad * 0.1
                state["step"] += 1
                state["absmax1"] = mean.abs().max().reshape(1)
                state["state1"] = ((mean / state["absmax1"] + 1) * 127).round().to(torch.uint8)
                parameter.sub_(group["lr"] * mean / state["step"])


@pytest.fixture
def bitsandbytes(monkeypatch):
    module = ModuleType("bitsandbytes")
    module.optim = ModuleType("bitsandbytes.optim")
    module.optim.AdamW8bit = Rounded
    monkeypatch.setitem(sys.modules, "bitsandbytes", module)


def run_in(folder, visit=None, recompute=False, **settings) -> TrainState:
    folder.mkdir(exist_ok=True)
    network = tiny.model(replace(tiny.STANDARD, is_turbo=False, model_version="base"))
    features = [Features(draw(140 + i, 64, seed=i), draw(1, 5 + i, WIDTH, seed=10 + i)) for i in range(2)]
    values = {"rank": 2, "steps": 7, "crop": 5.2, "accumulation": 2, "learning_rate": 1e-2}
    run = TrainingRun(
        network, features, TrainSettings(**values | settings), folder, CPU, {}, save_every=2, recompute=recompute,
        held_out=features[:1],
    )  # fmt: skip
    return run.train(Callbacks(), 1, visit)[0]


class Killed(BaseException):
    """The end of the process."""


@pytest.mark.parametrize(
    "settings",
    [{"dropout": 0.3, "kind": "dora"}, {"ema": 0.9, "held_out": 1, "held_out_every": 3}, {"optimizer": "adamw8bit"},
     {"dropout": 0.2, "ema": 0.5, "optimizer": "adamw8bit", "kind": "lokr"}],
    ids=["dropout", "ema", "8 bit", "all"],
)  # fmt: skip
def test_a_killed_run_continues_as_an_unbroken_one(tmp_path, bitsandbytes, settings):
    run_in(tmp_path / "whole", **settings)

    def kill(step, trainable):
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        run_in(tmp_path / "broken", kill, **settings)
    run_in(tmp_path / "broken", **settings)
    whole, broken = (load_file(tmp_path / name / STATE) for name in ("whole", "broken"))
    assert whole.keys() == broken.keys() and all(torch.equal(value, broken[name]) for name, value in whole.items())


# --- dropout ----------------------------------------------------------------------------------------------------------


def test_dropout_scales_what_it_keeps():
    x = torch.ones(2, 50, 100)
    dropped = InputDropout(0.25, seed=1)("a", x)
    assert dropped.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_a_mask_depends_on_seed_batch_and_layer():
    x, dropout = torch.ones(1, 8, 64), InputDropout(0.5, seed=1)
    first = dropout("a", x)
    assert torch.equal(dropout("a", x), first)
    assert not torch.equal(dropout("b", x), first) and not torch.equal(InputDropout(0.5, seed=2)("a", x), first)
    dropout.batch = 1
    assert not torch.equal(dropout("a", x), first)


def test_dropout_changes_the_training_but_not_the_result_of_given_factors(tmp_path):
    plain, dropped = run_in(tmp_path / "a").trainable.copied(), run_in(tmp_path / "b", dropout=0.5).trainable.copied()
    assert not all(torch.equal(value, dropped[name]) for name, value in plain.items())


def test_recomputed_layers_have_the_masks_of_the_first_time(tmp_path):
    plain = run_in(tmp_path / "a", dropout=0.5, steps=2).trainable.copied()
    again = run_in(tmp_path / "b", dropout=0.5, steps=2, recompute=True).trainable.copied()
    assert all(torch.equal(value, again[name]) for name, value in plain.items())


# --- EMA --------------------------------------------------------------------------------------------------------------


def test_the_average_follows_the_factors_and_is_the_result(tmp_path):
    seen = {}
    state = run_in(tmp_path / "a", lambda step, trainable: seen.update({step: trainable.copied()}), ema=0.5)
    own, plain = state.trainable.copied(), run_in(tmp_path / "b").trainable.copied()
    assert all(torch.equal(value, plain[name]) for name, value in own.items()), (
        "the average does not change the training"
    )
    with state.result():
        result = state.trainable.copied()
    assert all(torch.equal(value, seen[7][name]) for name, value in result.items())
    assert not all(torch.equal(value, own[name]) for name, value in result.items())
    assert all(torch.equal(value, own[name]) for name, value in state.trainable.copied().items())


def test_the_average_is_a_moving_one():
    trainable = make_trainable(tiny.model(), TrainSettings(rank=2))
    average = AveragedFactors(trainable, 0.9)
    name, parameter = next(trainable.named_parameters())
    expected = parameter.detach().clone()
    for step in range(1, 200):
        with torch.no_grad():
            parameter.add_(0.01)
        average.update(trainable, step)
        expected = torch.lerp(expected, parameter.detach(), 1 - min(0.9, (1 + step) / (10 + step)))
    assert torch.allclose(average.values[name], expected, atol=1e-5)
    assert (parameter - average.values[name]).mean().item() == pytest.approx(0.09, abs=0.01)


# --- AdamW in 8 bits --------------------------------------------------------------------------------------------------


def test_the_optimiser_of_bitsandbytes_gets_the_settings(bitsandbytes):
    settings = TrainSettings(optimizer="adamw8bit", learning_rate=0.5, weight_decay=0.25)
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(2))], settings)
    assert isinstance(optimizer, Rounded)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.5, 0.25)


def test_without_bitsandbytes_one_sentence_comes_before_the_songs_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(RequestError, match="optimizer.*bitsandbytes.*adamw"):
        train_adapter(tmp_path, tmp_path / "a.safetensors", settings=TrainSettings(optimizer="adamw8bit"))
    check_optimizer(TrainSettings())


def test_a_bitsandbytes_that_fails_is_named(monkeypatch):
    class Broken(ModuleType):
        @property
        def optim(self):
            raise RuntimeError("no CUDA library\nand more lines")

    monkeypatch.setitem(sys.modules, "bitsandbytes", Broken("bitsandbytes"))
    with pytest.raises(RequestError, match="no CUDA library") as caught:
        check_optimizer(TrainSettings(optimizer="adamw8bit"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"dropout": 1.0}, {"dropout": -0.1}, {"ema": 1}, {"optimizer": "sgd"}])
def test_settings_out_of_range(settings):
    with pytest.raises(RequestError, match=next(iter(settings))):
        TrainSettings(**settings)
