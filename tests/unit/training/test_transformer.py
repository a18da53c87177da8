"""The stages of the transformer on tiny networks: flow matching, distillation and lyric heads."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.tiny import draw
from tests.support.tiny_training import new_folder
from training import alignment, distill
from training.composer import compose
from training.flow import draw_times
from training.latents import LatentPool
from training.loop import mixed
from training.pool import sung_seeds
from training.rhythm_pretraining import pretrain_rhythm, rhythm_loss
from training.styles import TEMPI, nearest_tempo


def test_flow_matching_learns_and_saves(trainer):
    first = np.mean([trainer.train_step()["loss"] for _ in range(3)])
    touched = set()
    for _ in range(12):
        last = trainer.train_step()["loss"]
        touched |= {name for name, p in trainer.networks.model.named_parameters() if p.grad is not None}
    assert last < first
    result = trainer.evaluate()
    assert all(np.isfinite(list(result.values())))
    assert (trainer.out / "samples" / "latest.wav").stat().st_size > 100_000
    trainer.save()
    untouched = [n for n, _ in trainer.networks.model.named_parameters() if n not in touched and "tokenizer" not in n]
    assert len(untouched) <= 1, f"only the timbre encoder's special token has no gradient: {untouched}"


def test_rhythm_pretraining_reaches_the_text_encoder(trainer):
    assert np.isfinite(pretrain_rhythm(trainer, minutes=0.02, batch=4))  # the head starts at zero
    error, metadata = rhythm_loss(trainer, np.random.default_rng(0), 4)
    assert 0.1 < error.item() < 3 and metadata > 0
    trainer.networks.zero_grad()
    error.backward()
    for part in (trainer.networks.tower.qwen, trainer.networks.model.decoder.layers[0], trainer.heads["score"]):
        assert sum(p.grad.abs().sum() for p in part.parameters() if p.grad is not None) > 0


def test_a_student_is_distilled_from_a_saved_teacher(trainer, folders, tmp_path):
    trainer.train_step()
    trainer.save()
    plan = distill.Distillation(steps=4, substeps=1)
    student = distill.Distiller(trainer.out, plan, trainer)
    assert np.isfinite(student.train_step()["loss"])


LEARNING = ("model.decoder", "model.encoder.lyric_encoder", "model.encoder.text_projector", "tower.qwen.layers")


def test_heads_learn_to_follow_the_lyrics(trainer, tmp_path):
    plan = alignment.Alignment(heads=((1, (0,)),), layers=(0, 1), weight=1.0, foreign=0.2, rate=1.0)
    learner = alignment.AlignmentTrainer(plan, copy.deepcopy(trainer.networks), trainer)
    alignment.freeze_for_alignment(learner)
    learner.pool = learner.held = _sung_latents(new_folder(tmp_path / "sung"))
    before = {name: value.clone() for name, value in learner.networks.state_dict().items()}
    first = np.mean([learner.train_step()["align"] for _ in range(3)])
    for _ in range(10):
        last = learner.train_step()["align"]
    assert last < 0.9 * first
    moved = {name for name, value in learner.networks.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith(LEARNING) for name in moved)
    assert all(torch.equal(value, before[name]) for name, value in learner.teacher.state_dict().items())
    assert all(np.isfinite(list(learner.evaluate().values())))


def _sung_latents(folder: Path) -> LatentPool:
    """Return a pool of two sung pieces whose latents are noise."""
    seeds = [seed for seed in sung_seeds(0, 40) if compose(seed).seconds == 12][:2]
    frames = 12 * 25
    np.save(folder / "shard_0000.npy", draw(2 * frames, 64).numpy().astype(np.float16))
    (folder / "shard_0000.json").write_text(json.dumps([(seed, i * frames, frames) for i, seed in enumerate(seeds)]))
    return LatentPool(folder)


def test_times_cover_the_whole_range():
    t = draw_times(1000, np.random.default_rng(0))
    assert t.min() < 0.1 and t.max() > 0.95 and 0.6 < t.median() < 0.75


def test_every_tempo_is_near_a_tempo_of_the_composer():
    for bpm in range(60, 181):
        assert abs(60 * 25 / TEMPI[nearest_tempo(bpm)] / bpm - 1) < 0.04


@pytest.mark.parametrize("fast", [True, False])
def test_a_cpu_trains_in_bfloat16_only_if_it_has_it(monkeypatch, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast}, raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert mixed("cpu")._enabled is fast
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not mixed("cpu")._enabled
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast, raising=False)
    assert mixed("cpu")._enabled is fast
