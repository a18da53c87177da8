"""The files of training: its states, the exported checkpoint, and a start from one."""

from __future__ import annotations

import json

import pytest
import torch

from acestep_core.checkpoints.build import load_network
from acestep_core.checkpoints.catalog import NANO
from acestep_core.config import SAMPLE_RATE
from acestep_core.lyrics.capture import lyric_heads
from acestep_core.models.model import AceStepModel
from acestep_core.pipeline import generate, load_model
from acestep_core.planner.load_planner import load_planner
from acestep_core.planner.vocabulary import Vocabulary
from acestep_core.song.song import Metadata, Song
from tests.support import tiny
from tests.support.tiny_training import MODEL, TEXT, VAE, new_folder
from training import dit, finish, nano_config, planner, vae
from training.conditioning import nano_tokenizer
from training.export import write_network
from training.latents import LatentPool
from training.pool import Pool
from training.state import load_state, save_state
from training.warm_start import load_planner_into


def test_state_is_split_and_damage_is_detected(tmp_path, monkeypatch):
    monkeypatch.setattr("training.state.PIECE", 1000)
    save_state(tmp_path, "x", {"step": 3, "rows": torch.arange(1000)})
    save_state(tmp_path, "x", {"step": 4, "rows": torch.arange(1000)})
    pieces = json.loads((tmp_path / "x.json").read_text())["pieces"]
    assert len(pieces) > 5 and len(list(tmp_path.glob("x-*"))) == len(pieces)
    assert load_state(tmp_path, "x")["step"] == 4
    (tmp_path / pieces[2]).write_bytes(b"?")
    with pytest.raises(ValueError, match="damaged"):
        load_state(tmp_path, "x")
    assert load_state(tmp_path, "y") is None


def test_a_trained_nano_loads_like_any_checkpoint(trainer, folders, tmp_path, monkeypatch):
    trainer.train_step()
    trainer.save()
    nano_tokenizer(tmp_path / "tokenizer", pieces=40)
    monkeypatch.setattr("training.finish.nano_config.MODEL", MODEL)
    monkeypatch.setattr("training.finish.nano_config.TEXT", TEXT)
    monkeypatch.setattr("training.finish.load_trained", lambda folder: vae.load_trained(folder, VAE))
    heads = [finish.head(text) for text in ("1.0", "0.1", "1.1")]
    size = finish.finish(trainer.out, folders["vae"], tmp_path / "nano", heads=heads)
    assert 100_000 < size < 10_000_000
    model = load_model(tmp_path / "nano", device="cpu", dtype="float32")
    assert lyric_heads(model.network.config) == {0: (1,), 1: (0, 1)}
    result = generate(model, Song("a calm piano", metadata=Metadata(duration=3)), seed=1)
    assert result.waveform.shape == (1, 2, 3 * SAMPLE_RATE) and result.waveform.isfinite().all()


def test_large_checkpoint_files_are_split(tmp_path, monkeypatch):
    monkeypatch.setattr("training.export.FILE_LIMIT", 400_000)
    network = tiny.randomise(AceStepModel(MODEL))
    write_network(tmp_path, network, torch.zeros(1, 64, 64), note="")
    files = list((tmp_path / "acestep-v15-nano").glob("*.safetensors"))
    assert len(files) > 2 and max(path.stat().st_size for path in files) < 400_000
    loaded, _ = load_network(tmp_path / "acestep-v15-nano", device="cpu", dtype=torch.bfloat16)
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.bfloat16()), name


def test_every_stage_can_start_from_a_checkpoint(folders, tmp_path):
    shipped = load_model("nano", device="cpu", dtype="float32")
    recipe = vae.VAERecipe(batch=1, frames=4)
    autoencoder = vae.VAETrainer(
        nano_config.VAE, recipe, Pool(folders["pool"]), new_folder(tmp_path / "vae"), compiled=False, start=NANO
    )
    vae.remove_weight_norm(autoencoder.vae)
    for name, value in shipped.vae.state_dict().items():
        assert torch.allclose(autoencoder.vae.state_dict()[name], value, atol=1e-6), name

    pool = LatentPool(folders["latents"])
    trainer = dit.DiTTrainer(dit.DiTRecipe(), pool, pool, NANO / "vae", None, new_folder(tmp_path / "dit"), start=NANO)
    assert _same(trainer.networks.model, shipped.network)
    assert _same(trainer.networks.tower.qwen, shipped.text_encoder.module)
    assert torch.equal(trainer.vae.decoder.conv1.weight, shipped.vae.decoder.conv1.weight)

    vocabulary = Vocabulary.of(nano_tokenizer(tmp_path / "dit" / "tokenizer"), codes=nano_config.CODES)
    pieces = planner.codes_of_pool(pool, planner.load_audio_tokenizer(None, NANO / "vae", NANO))
    assert max(max(codes) for _, codes in pieces) < nano_config.CODES
    recipe = planner.PlannerRecipe()
    learner = planner.PlannerTrainer(recipe, pieces, pieces, vocabulary, tmp_path / "planner", start=NANO)
    planner.merge_levels(learner.network)
    reference = load_planner("nano", device="cpu", dtype="float32").network
    with torch.no_grad():  # codes start from the shared rows of their levels
        codes = slice(vocabulary.audio_base, None)
        reference.embed_tokens.weight[codes] = learner.network.model.embed_tokens.weight[codes]
    assert _same(learner.network.model, reference)

    with pytest.raises(ValueError, match="tensors"):
        load_planner_into(torch.nn.Module(), NANO)


def _same(module: torch.nn.Module, reference: torch.nn.Module) -> bool:
    return all(torch.equal(module.state_dict()[name], value) for name, value in reference.state_dict().items())
