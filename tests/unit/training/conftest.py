"""Two short pieces, and what the first stages of training make of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from acestep_core.planner.vocabulary import Vocabulary
from tests.support.tiny_training import MODEL, TEXT, VAE, new_folder
from training import dit, fsq, nano_config, vae
from training.conditioning import nano_tokenizer
from training.flow import Mixture
from training.latents import LatentPool, encode_pool
from training.pool import Pool, make_shard


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A pool of two short pieces, their latents, and an autoencoder and audio codes after a few steps."""
    root = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.pool.PIECES_PER_SHARD", 2)
        make_shard(new_folder(root / "pool"), 0, 118)  # both of 10 s
    recipe = vae.VAERecipe(batch=1, frames=8)
    trainer = vae.VAETrainer(VAE, recipe, Pool(root / "pool"), new_folder(root / "vae"), compiled=False)
    trainer.train_step()
    trainer.save()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.latents.load_trained", lambda folder: vae.load_trained(folder, VAE))
        encode_pool(Pool(root / "pool"), root / "vae", root / "latents", compiled=False)
    tokenizer = fsq.FSQTrainer(MODEL, LatentPool(root / "latents"), new_folder(root / "fsq"))
    for _ in range(3):
        tokenizer.train_step()
    tokenizer.save()
    nano_tokenizer(root / "tokenizer", pieces=40)
    return {name: root / name for name in ("pool", "vae", "latents", "fsq", "tokenizer")}


@pytest.fixture
def trainer(folders, tmp_path, monkeypatch) -> dit.DiTTrainer:
    monkeypatch.setattr("training.dit.load_trained", lambda folder: vae.load_trained(folder, VAE))
    monkeypatch.setattr("training.dit.nano_tokenizer", lambda folder: nano_tokenizer(folders["tokenizer"]))
    pool = LatentPool(folders["latents"])
    recipe = dit.DiTRecipe(frames=500, warmup=5, rate=3e-3, mixture=Mixture(cover=0.3, repaint=0.3, drop=0.4))
    return dit.DiTTrainer(recipe, pool, pool, folders["vae"], folders["fsq"], tmp_path, config=MODEL, text=TEXT)


@pytest.fixture
def vocabulary(folders) -> Vocabulary:
    return Vocabulary.of(nano_tokenizer(folders["tokenizer"]), codes=nano_config.CODES)
