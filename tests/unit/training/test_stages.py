"""Every stage, on networks of a few thousand parameters: it learns, it resumes exactly, the next stage can use it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from acestep_core.checkpoints.build import load_network
from acestep_core.checkpoints.catalog import NANO
from acestep_core.config import SAMPLE_RATE, ModelConfig, TextEncoderConfig, VAEConfig
from acestep_core.models.model import AceStepModel
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.pipeline import generate, load_model
from acestep_core.planner import chat_prompts as prompts
from acestep_core.planner.load_planner import load_planner
from acestep_core.planner.metadata_text import read_block
from acestep_core.planner.vocabulary import Vocabulary
from acestep_core.song.song import Metadata, Song
from tests.support import tiny
from tests.support.tiny import draw
from training import distill, dit, finish, fsq, nano_config, planner, random_nano, vae
from training.adversary import Adversary
from training.composer import Wish, compose
from training.conditioning import nano_tokenizer, piece_of
from training.examples import texts
from training.export import silence_of, write_network
from training.flow import Mixture, draw_times
from training.latents import LatentPool, encode_pool
from training.linear_start import lapped_basis, start_linear
from training.losses import mel_distance, si_sdr
from training.pool import Pool, make_shard
from training.rhythm import learn_to_keep_time, rhythm_loss
from training.start import take_planner
from training.state import load_state, save_state
from training.styles import BEAT_FRAMES, TEMPI, nearest_tempo
from training.synth import render

VAE = VAEConfig(
    encoder_hidden_size=8, decoder_channels=8, decoder_input_channels=64, channel_multiples=(1, 2, 4, 8, 16)
)
TEXT = TextEncoderConfig(
    vocab_size=2048, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, head_dim=16, rope_theta=10_000.0, max_position_embeddings=4096,
)  # fmt: skip
MODEL: ModelConfig = replace(tiny.STANDARD, text_hidden_dim=32, num_hidden_layers=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A pool of two short pieces, an autoencoder after two steps, and latents."""
    root = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.pool.PIECES_PER_SHARD", 2)
        make_shard(_made(root / "pool"), 0, 118)  # both of 10 s
    recipe = vae.Recipe(batch=1, frames=8)
    trainer = vae.Trainer(VAE, recipe, Pool(root / "pool"), _made(root / "vae"), compiled=False)
    trainer.train_step()
    trainer.save()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.latents.trained", lambda folder: vae.trained(folder, VAE))
        encode_pool(Pool(root / "pool"), root / "vae", root / "latents", compiled=False)
    quantiser = fsq.FSQTrainer(MODEL, LatentPool(root / "latents"), _made(root / "fsq"))
    for _ in range(3):
        quantiser.train_step()
    quantiser.save()
    nano_tokenizer(root / "tokenizer", pieces=40)
    return {name: root / name for name in ("pool", "vae", "latents", "fsq", "tokenizer")}


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def test_the_lapped_transform_is_orthonormal():
    for bands in (2, 4, 6, 10):
        basis = lapped_basis(bands)
        assert torch.allclose(basis @ basis.T, torch.eye(bands), atol=1e-5)
        assert torch.allclose(basis[:, :bands] @ basis[:, bands:].T, torch.zeros(bands, bands), atol=1e-5)


def test_the_autoencoder_starts_as_a_codec():
    music = torch.stack([torch.from_numpy(render(compose(seed, Wish(seconds=10)))) for seed in range(4)])
    network = OobleckVAE(VAE)
    start_linear(network, music, torch.Generator().manual_seed(0))
    wave = torch.from_numpy(render(compose(99, Wish(seconds=10))))[:, : 3 * SAMPLE_RATE]
    with torch.no_grad():
        made = network.decode(network.encode(wave[None]))[0]
        untrained = tiny.randomise(OobleckVAE(VAE), gain=0.5)
        other = untrained.decode(untrained.encode(wave[None]))[0]
    assert si_sdr(made, wave) > 2
    assert mel_distance(made, wave) < mel_distance(other, wave)


def test_the_autoencoder_resumes_exactly(folders, tmp_path):
    def trainer() -> vae.Trainer:
        return vae.Trainer(VAE, vae.Recipe(batch=1, frames=4), Pool(folders["pool"]), tmp_path, compiled=False)

    straight = trainer()
    for _ in range(2):
        straight.train_step()
    straight.save()
    third = straight.train_step()
    again = trainer()
    assert again.step == 2
    assert again.train_step() == pytest.approx(third, rel=1e-4)


def test_a_frozen_encoder_keeps_the_latents(folders, tmp_path):
    recipe = vae.Recipe(batch=1, frames=4, freeze_encoder=True)
    trainer = vae.Trainer(VAE, recipe, Pool(folders["pool"]), tmp_path, compiled=False)
    before = [p.clone() for p in trainer.vae.encoder.parameters()]
    trainer.train_step()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.vae.encoder.parameters(), strict=True))


def test_the_adversary_learns_to_tell_and_the_autoencoder_hears_of_it(folders, tmp_path):
    torch.manual_seed(0)
    adversary = Adversary(rate=3e-3, sizes=(256,), width=8)
    real, blurred = torch.randn(2, 2, 4096) * 0.1, torch.randn(2, 2, 4096).cumsum(-1) * 0.01
    first = adversary.learn(blurred, real)
    for _ in range(15):
        last = adversary.learn(blurred, real)
    assert last < 0.6 * first
    found, distance = adversary.losses(blurred, real)
    same_found, same = adversary.losses(real, real)
    assert found > same_found and distance > same == 0

    recipe = vae.Recipe(batch=1, frames=4, adversarial=0.1)
    trainer = vae.Trainer(VAE, recipe, Pool(folders["pool"]), tmp_path, compiled=False)
    before = [p.clone() for p in trainer.adversary.parameters()]
    result = trainer.train_step()
    assert {"adversary", "adversarial", "features"} <= result.keys() and all(np.isfinite(list(result.values())))
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.adversary.parameters(), strict=True))
    trainer.save()
    again = vae.Trainer(VAE, recipe, Pool(folders["pool"]), tmp_path, compiled=False)
    assert all(
        torch.equal(a, b) for a, b in zip(trainer.adversary.parameters(), again.adversary.parameters(), strict=True)
    )


def test_state_is_in_pieces_and_damage_is_noticed(tmp_path, monkeypatch):
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


def test_codes_come_back_as_latents_like_those_they_were_made_of(folders):
    trainer = fsq.FSQTrainer(MODEL, LatentPool(folders["latents"]), folders["fsq"])
    assert trainer.step == 3
    first = trainer.train_step()["loss"]
    for _ in range(15):
        last = trainer.train_step()["loss"]
    assert last < first
    latents = torch.randn(2, 20, 64)
    made, codes, _ = fsq.round_trip(trainer.model, latents)
    trainer.model.silence_latent = torch.zeros(1, 5, 64)
    assert torch.equal(codes, trainer.model.tokenize(latents))
    assert torch.allclose(made, trainer.model.detokenize(codes), atol=1e-4)


@pytest.fixture
def trainer(folders, tmp_path, monkeypatch) -> dit.DiTTrainer:
    monkeypatch.setattr("training.dit.trained", lambda folder: vae.trained(folder, VAE))
    monkeypatch.setattr("training.dit.nano_tokenizer", lambda folder: nano_tokenizer(folders["tokenizer"]))
    pool = LatentPool(folders["latents"])
    recipe = dit.Recipe(frames=500, warmup=5, rate=3e-3, mixture=Mixture(cover=0.3, repaint=0.3, drop=0.4))
    return dit.DiTTrainer(recipe, pool, pool, folders["vae"], folders["fsq"], tmp_path, config=MODEL, text=TEXT)


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
    assert len(untouched) <= 1, f"only the timbre encoder's special token has nothing to learn: {untouched}"


def test_a_lesson_in_rhythm_reaches_the_words(trainer):
    assert np.isfinite(learn_to_keep_time(trainer, minutes=0.02, batch=4))  # the reader begins with zeros
    error, facts = rhythm_loss(trainer, np.random.default_rng(0), 4)
    assert 0.1 < error.item() < 3 and facts > 0
    trainer.networks.zero_grad()
    error.backward()
    for part in (trainer.networks.tower.qwen, trainer.networks.model.decoder.layers[0], trainer.readers["score"]):
        assert sum(p.grad.abs().sum() for p in part.parameters() if p.grad is not None) > 0


def test_a_student_is_distilled_from_a_saved_teacher(trainer, folders, tmp_path):
    trainer.train_step()
    trainer.save()
    plan = distill.Distillation(steps=4, substeps=1)
    student = distill.Distiller(trainer.out, plan, trainer)
    assert np.isfinite(student.train_step()["loss"])


def test_times_cover_the_whole_range():
    t = draw_times(1000, np.random.default_rng(0))
    assert t.min() < 0.1 and t.max() > 0.95 and 0.6 < t.median() < 0.75


def test_silence_carries_a_clock_for_every_tempo(folders):
    silence = silence_of(vae.trained(folders["vae"], VAE), frames=200)
    assert silence.shape == (1, 200, 64)
    for pair, frames in enumerate(BEAT_FRAMES):
        clock = silence[0, :, 2 * pair]
        beats = torch.arange(0, 200, int(2 * frames))
        torch.testing.assert_close(clock[beats], clock[:1].expand(len(beats)), atol=1e-4, rtol=0)
        assert clock[0] - clock[round(frames / 2)] > 0.9


def test_every_tempo_is_close_to_one_that_is_played():
    for bpm in range(60, 181):
        assert abs(60 * 25 / TEMPI[nearest_tempo(bpm)] / bpm - 1) < 0.04


def test_a_trained_nano_loads_like_any_checkpoint(trainer, folders, tmp_path, monkeypatch):
    trainer.train_step()
    trainer.save()
    nano_tokenizer(tmp_path / "tokenizer", pieces=40)
    monkeypatch.setattr("training.finish.nano_config.MODEL", MODEL)
    monkeypatch.setattr("training.finish.nano_config.TEXT", TEXT)
    monkeypatch.setattr("training.finish.trained", lambda folder: vae.trained(folder, VAE))
    size = finish.finish(trainer.out, folders["vae"], tmp_path / "nano")
    assert 100_000 < size < 10_000_000
    model = load_model(tmp_path / "nano", device="cpu", dtype="float32")
    result = generate(model, Song("a calm piano", metadata=Metadata(duration=3)), seed=1)
    assert result.waveform.shape == (1, 2, 3 * SAMPLE_RATE) and result.waveform.isfinite().all()


def test_the_random_nano_is_small_and_makes_a_sound(tmp_path, monkeypatch):
    monkeypatch.setattr("training.random_nano.texts", lambda pieces: texts(40))
    random_nano.write(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 6_000_000
    result = generate(load_model(tmp_path, device="cpu"), Song("a calm piano", metadata=Metadata(duration=3)), seed=1)
    assert 0.01 < float(result.waveform.square().mean().sqrt()) < 0.5


def test_files_of_a_checkpoint_are_split_where_they_grow_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("training.export.FILE_LIMIT", 400_000)
    network = tiny.randomise(AceStepModel(MODEL))
    write_network(tmp_path, network, torch.zeros(1, 64, 64), note="")
    files = list((tmp_path / "acestep-v15-nano").glob("*.safetensors"))
    assert len(files) > 2 and max(path.stat().st_size for path in files) < 400_000
    loaded, _ = load_network(tmp_path / "acestep-v15-nano", device="cpu", dtype=torch.bfloat16)
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.bfloat16()), name


@pytest.fixture
def words(folders) -> Vocabulary:
    return Vocabulary.of(nano_tokenizer(folders["tokenizer"]), codes=nano_config.CODES)


def test_the_planner_learns_and_is_read_by_the_core(folders, words, tmp_path, monkeypatch):
    small = replace(nano_config.PLANNER, hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    monkeypatch.setattr("training.nano_config.PLANNER", small)
    pieces = [(60, list(range(50))), (61, list(range(50, 100)))]
    trainer = planner.PlannerTrainer(planner.Recipe(rows=2, warmup=5), pieces, pieces, words, tmp_path / "planner")
    first = np.mean([trainer.train_step()["loss"] for _ in range(3)])
    for _ in range(15):
        last = trainer.train_step()["loss"]
    assert last < 0.9 * first
    trainer.save()
    again = planner.PlannerTrainer(trainer.recipe, pieces, pieces, words, tmp_path / "planner")
    assert again.step == 18 and again.train_step() == pytest.approx(trainer.train_step(), rel=1e-3)

    finish.write_planner_of(tmp_path / "planner", tmp_path, folders["tokenizer"])
    read = load_planner(tmp_path / "acestep-5Hz-lm-nano", device="cpu", dtype="float32")
    assert read.vocabulary.audio_base == words.audio_base and read.vocabulary.codes == nano_config.CODES
    trainer.average.load(load_state(tmp_path / "planner", "planner")["average"])
    trainer.average.swap()
    planner.settle_levels(trainer.network)
    weights = trainer.network.model.state_dict()
    for name, value in read.network.state_dict().items():
        assert torch.allclose(value, weights[name], rtol=0.01, atol=1e-6), name


def test_codes_share_what_their_levels_learn():
    first, width = 3, 4
    table = torch.nn.Embedding(first + nano_config.CODES, width)
    network = SimpleNamespace(model=SimpleNamespace(embed_tokens=table))
    by_level = [draw(count, width, seed=count + axis) for axis, count in enumerate(nano_config.LEVELS)]
    levels = [
        [code // math.prod(nano_config.LEVELS[:axis]) % nano_config.LEVELS[axis] for axis in range(4)]
        for code in range(nano_config.CODES)
    ]
    rows = torch.stack([sum(by_level[axis][level] for axis, level in enumerate(each)) for each in levels])
    with torch.no_grad():
        table.weight[first:] = rows
    before = table.weight.detach().clone()
    planner.share_levels(network, first)
    assert torch.allclose(table.weight, before, atol=1e-5), "a table that is sums of levels stays what it is"
    table.weight[first].sum().backward()  # code 0 has the lowest level of each axis
    shared = table.parametrizations.weight[0].shared
    with torch.no_grad():
        shared -= shared.grad
    moved = (table.weight.detach() - before)[first:].mean(dim=1).round()
    assert moved.tolist() == [-float(each.count(0)) for each in levels]
    wanted = table.weight.detach().clone()
    planner.settle_levels(network)
    assert torch.equal(table.weight, wanted) and list(table.state_dict()) == ["weight"]


def test_the_same_piece_has_other_codes_a_frame_later(folders):
    model = planner.quantiser(None, NANO / "vae", NANO)
    pool = LatentPool(folders["latents"])
    pieces = planner.codes_of_pool(pool, model, 5)
    assert pieces[::5] == planner.codes_of_pool(pool, model)
    for index in range(0, len(pieces), 5):
        seeds, codes = zip(*pieces[index : index + 5], strict=True)
        assert len(set(seeds)) == 1 and len({tuple(each) for each in codes}) == 5


def test_every_task_of_the_planner_is_taught_in_its_own_prompt(words):
    piece, codes = piece_of(61), list(range(40))
    alone = {"inspire": planner.Recipe(inspire=1, polish=0), "polish": planner.Recipe(inspire=0, polish=1)}
    ask = {
        "understand": planner.Recipe(understand=1, inspire=0, polish=0),
        "plan": planner.Recipe(understand=0, unconditional=0),
        "nothing": planner.Recipe(understand=0, unconditional=1),
    }
    made = {
        name: planner.code_example(words, piece, codes, recipe, np.random.default_rng(3))
        for name, recipe in ask.items()
    } | {name: planner.song_example(words, piece, recipe, np.random.default_rng(3)) for name, recipe in alone.items()}
    assert made["inspire"][0] != made["polish"][0]
    assert all(answer[-1] == words.turn_end for _, answer in made.values())
    assert made["understand"][0] == prompts.understand_prompt(words, codes)
    assert made["nothing"] == (prompts.unconditional_prompt(words), [*words.code_ids(codes), words.turn_end])
    for name in ("plan", "understand", "inspire", "polish"):
        answer = made[name][1]
        assert answer[0] == words.think
        block = read_block(words.decode(answer[1 : answer.index(words.think_end)]))
        assert (block["bpm"], block["keyscale"], block["duration"]) == (piece.bpm, piece.key, piece.seconds)
        assert ("genres" in block) == (name != "plan")
    assert words.codes_among(made["plan"][1]) == codes


def test_every_stage_can_begin_with_a_checkpoint(folders, tmp_path, monkeypatch):
    """What a fresh trainer holds is what is shipped, to the digit."""
    shipped = load_model("nano", device="cpu", dtype="float32")
    recipe = vae.Recipe(batch=1, frames=4)
    autoencoder = vae.Trainer(
        nano_config.VAE, recipe, Pool(folders["pool"]), _made(tmp_path / "vae"), compiled=False, start=NANO
    )
    vae.fold_weights(autoencoder.vae)
    for name, value in shipped.vae.state_dict().items():
        assert torch.allclose(autoencoder.vae.state_dict()[name], value, atol=1e-6), name

    pool = LatentPool(folders["latents"])
    trainer = dit.DiTTrainer(dit.Recipe(), pool, pool, NANO / "vae", None, _made(tmp_path / "dit"), start=NANO)
    assert _same(trainer.networks.model, shipped.network)
    assert _same(trainer.networks.tower.qwen, shipped.text_encoder.module)
    assert torch.equal(trainer.vae.decoder.conv1.weight, shipped.vae.decoder.conv1.weight)

    words = Vocabulary.of(nano_tokenizer(tmp_path / "dit" / "tokenizer"), codes=nano_config.CODES)
    pieces = planner.codes_of_pool(pool, planner.quantiser(None, NANO / "vae", NANO))
    assert max(max(codes) for _, codes in pieces) < nano_config.CODES
    learner = planner.PlannerTrainer(planner.Recipe(), pieces, pieces, words, tmp_path / "planner", start=NANO)
    planner.settle_levels(learner.network)
    theirs = load_planner("nano", device="cpu", dtype="float32").network
    with torch.no_grad():  # but for the codes, which begin with what their levels have in common
        codes = slice(words.audio_base, None)
        theirs.embed_tokens.weight[codes] = learner.network.model.embed_tokens.weight[codes]
    assert _same(learner.network.model, theirs)

    with pytest.raises(ValueError, match="another shape"):
        take_planner(torch.nn.Module(), NANO)


def _same(mine: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    return all(torch.equal(mine.state_dict()[name], value) for name, value in theirs.state_dict().items())
