"""Held-out songs: their choice, their loss, the best factors, and the early end of a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from acestep_core import read_adapter
from acestep_core.callbacks import Callbacks
from acestep_core.errors import RequestError
from acestep_core.sampling.schedule import make_schedule
from acestep_core.train.features import Features
from acestep_core.train.held_out import HeldOutSongs, choose_held_out, measured_times
from acestep_core.train.train_adapter import train_adapter
from acestep_core.train.train_loop import TrainingRun
from acestep_core.train.train_settings import TrainSettings
from acestep_core.train.train_state import TrainState, read_losses
from tests.support import tiny
from tests.support.tiny import draw

NAMES = ["a.flac", "b.flac", "b.wav", "c.d.ogg"]
WIDTH = tiny.STANDARD.encoder_hidden_size
CPU = torch.device("cpu")


def song(length: int, seed: int) -> Features:
    return Features(draw(length, 64, seed=seed), draw(1, 5, WIDTH, seed=10 + seed))


def run_in(folder: Path, callbacks: Callbacks | None = None, visit=None, **settings) -> tuple[TrainState, list]:
    """Train on two songs with a third held out, measured every third step."""
    folder.mkdir(exist_ok=True)
    network = tiny.model(replace(tiny.STANDARD, is_turbo=False, model_version="base"))
    values = {"rank": 2, "steps": 10, "crop": 5.2, "accumulation": 1, "learning_rate": 3e-2, "held_out": 1}
    chosen = TrainSettings(**values | {"held_out_every": 3} | settings)
    run = TrainingRun(
        network, [song(140, 0), song(150, 1)], chosen, folder, CPU, {}, save_every=2, held_out=[song(170, 2)]
    )
    return run.train(callbacks or Callbacks(), 1 if visit else 0, visit)


def test_a_number_of_songs_depends_on_the_seed():
    chosen = choose_held_out(NAMES, TrainSettings(held_out=2))
    assert chosen == choose_held_out(NAMES, TrainSettings(held_out=2)) and len(set(chosen)) == 2
    assert len({tuple(choose_held_out(NAMES, TrainSettings(held_out=2, seed=seed))) for seed in range(20)}) > 1
    assert choose_held_out(NAMES, TrainSettings()) == []


def test_songs_are_named_with_or_without_their_suffix():
    assert choose_held_out(NAMES, TrainSettings(held_out=("c.d", "b.wav", "c.d.ogg"))) == [2, 3]


@pytest.mark.parametrize(
    ("held_out", "word"), [(4, "leave"), (9, "leave"), (("z",), "z"), (("b",), "several"), (tuple(NAMES), "leave")]
)
def test_songs_that_cannot_be_held_out(held_out, word):
    with pytest.raises(RequestError, match=f"held_out.*{word}"):
        choose_held_out(NAMES, TrainSettings(held_out=held_out))


@pytest.mark.parametrize(
    "settings",
    [{"held_out": -1}, {"held_out": 1.5}, {"held_out": ("",)}, {"held_out_every": 0}, {"patience": -1, "held_out": 1},
     {"patience": 2}, {"held_out": "a.flac"}],
)  # fmt: skip
def test_settings_out_of_range(settings):
    with pytest.raises(RequestError, match=next(iter(settings))):
        TrainSettings(**settings)


def test_names_survive_json():
    settings = TrainSettings(held_out=("a", "b"))
    assert settings.to_dict()["held_out"] == ["a", "b"] and TrainSettings.from_dict(settings.to_dict()) == settings


def test_the_times_are_the_choices_or_quantiles():
    eight = tuple(make_schedule(8, 3.0)[:-1].tolist())
    assert measured_times(eight) == list(eight)
    times = torch.tensor(measured_times(None))
    assert (times.diff() > 0).all() and times.logit().mean().item() == pytest.approx(-0.4, abs=1e-4)


@pytest.mark.parametrize("crop", [0.0, 5.2])
def test_the_loss_is_the_same_each_time_and_depends_on_every_song(crop):
    network, settings = tiny.model(), TrainSettings(crop=crop)
    losses = [HeldOutSongs(network, songs, settings, CPU).loss() for songs in ([song(140, 0)], [song(140, 1)])]
    assert losses[0] == HeldOutSongs(network, [song(140, 0)], settings, CPU).loss() != losses[1]
    both = HeldOutSongs(network, [song(140, 0), song(140, 1)], settings, CPU).loss()
    assert min(losses) < both < max(losses) or both == pytest.approx(sum(losses) / 2, rel=0.1)


def test_the_best_factors_are_those_of_the_lowest_loss(tmp_path):
    visited = {}
    state, losses = run_in(tmp_path / "a", visit=lambda step, trainable: visited.update({step: trainable.copied()}))
    measured = {row.step: row.held_out for row in losses if row.held_out is not None}
    assert list(measured) == [3, 6, 9, 10]
    assert state.best.loss == min(measured.values()) and measured[state.best.step] == state.best.loss
    assert all(torch.equal(value, visited[state.best.step][name]) for name, value in state.best.factors.items())
    assert [row.held_out for row in read_losses(tmp_path / "a" / "loss.csv")] == [
        None if row.held_out is None else pytest.approx(row.held_out, abs=1e-6) for row in losses
    ]


def test_measuring_does_not_change_the_training(tmp_path):
    often, _ = run_in(tmp_path / "a", held_out_every=1)
    never, _ = run_in(tmp_path / "b", held_out_every=1000)
    assert all(torch.equal(value, never.trainable.copied()[name]) for name, value in often.trainable.copied().items())


class Killed(BaseException):
    """The end of the process."""


@pytest.mark.parametrize("last", [1, 4, 6, 9])
def test_a_killed_run_continues_with_the_same_best_factors(tmp_path, last):
    expected, losses = run_in(tmp_path / "whole")

    def kill(step, trainable):
        if step == last:
            raise Killed

    with pytest.raises(Killed):
        run_in(tmp_path / "broken", visit=kill)
    found, found_losses = run_in(tmp_path / "broken")
    assert (found.best.step, found.best.loss) == (expected.best.step, expected.best.loss)
    assert all(torch.equal(value, found.best.factors[name]) for name, value in expected.best.factors.items())
    assert all(torch.equal(value, found.trainable.copied()[n]) for n, value in expected.trainable.copied().items())
    assert [row.held_out for row in found_losses if row.step >= 8] == [row.held_out for row in losses if row.step >= 8]


def test_an_interrupt_in_a_measurement_measures_again(tmp_path, monkeypatch):
    expected, _ = run_in(tmp_path / "whole")

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HeldOutSongs, "loss", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_in(tmp_path / "broken")
    found, losses = run_in(tmp_path / "broken")
    assert [row.step for row in losses if row.held_out is not None] == [3, 6, 9, 10]
    assert (found.best.step, found.best.loss) == (expected.best.step, expected.best.loss)


def test_patience_ends_the_training_and_more_of_it_continues(tmp_path, monkeypatch):
    values = iter([3.0, 1.0, 2.0, 1.0, 0.5, 0.7, 0.8, 0.9])
    monkeypatch.setattr(HeldOutSongs, "loss", lambda _: next(values))
    notes: list[str] = []
    callbacks = Callbacks(warning=notes.append)
    usual = {"steps": 100, "held_out_every": 2, "callbacks": callbacks}
    state, losses = run_in(tmp_path / "a", patience=2, **usual)
    assert (state.step, state.best.step, state.best.loss, len(losses)) == (8, 4, 1.0, 8)
    assert len(notes) == 1 and "8" in notes[0] and "held-out" in notes[0]
    assert run_in(tmp_path / "a", patience=2, **usual)[0].step == 8, "nothing is trained again"
    state, losses = run_in(tmp_path / "a", patience=3, **usual)
    assert (state.step, state.best.step, state.best.loss) == (16, 10, 0.5) and len(losses) == 16


def test_the_best_adapter_lies_beside_the_last(band, tiny_models, tmp_path):
    settings = TrainSettings(
        rank=2, steps=4, crop=5.2, accumulation=1, learning_rate=1e-2, held_out=("1",), held_out_every=1
    )
    options = {"model": tiny_models, "device": "cpu", "dtype": "float32", "save_every": 2}
    result = train_adapter(band, tmp_path / "my.safetensors", settings=settings, **options)
    assert result.best == tmp_path / "my-best.safetensors"
    best, last = read_adapter(result.best), read_adapter(result.path)
    assert best.modules.keys() == last.modules.keys()
    measured = [row.held_out for row in result.losses]
    lowest = measured.index(min(measured)) + 1
    with safe_open(result.best, "pt") as file:
        assert file.metadata()["acestep.steps"] == str(lowest)
    card = result.card.read_text()
    assert "2 songs" in card and "1 song;" in card and f"step {lowest}" in card and "my-best.safetensors" in card
    with pytest.raises(RequestError, match="nothing.flac"):
        train_adapter(
            band, tmp_path / "b.safetensors", settings=replace(settings, held_out=("nothing.flac",)), **options
        )
    assert (
        train_adapter(band, tmp_path / "c.safetensors", settings=TrainSettings(rank=2, steps=1), **options).best is None
    )
