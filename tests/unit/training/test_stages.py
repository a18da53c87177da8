"""Every training stage on tiny networks: learning, exact resumption and use by the next stage."""

from __future__ import annotations

import copy
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
from training import alignment, distill, dit, finish, fsq, nano_config, planner, vae
from training.composer import compose
from training.conditioning import nano_tokenizer, piece_of
from training.discriminator import Adversary
from training.export import silence_of, write_network
from training.flow import Mixture, draw_times
from training.latents import LatentPool, encode_pool
from training.loop import mixed
from training.losses import mel_distance, si_sdr
from training.mdct_init import init_as_mdct, mdct_basis
from training.piece import Constraints
from training.pool import Pool, make_shard, sung_seeds
from training.rhythm_pretraining import pretrain_rhythm, rhythm_loss
from training.state import load_state, save_state
from training.styles import BEAT_FRAMES, TEMPI, nearest_tempo
from training.synth import render
from training.warm_start import load_planner_into

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
    """A pool of two short pieces, their latents, and an autoencoder and audio codes after a few steps."""
    root = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.pool.PIECES_PER_SHARD", 2)
        make_shard(_new_folder(root / "pool"), 0, 118)  # both of 10 s
    recipe = vae.VAERecipe(batch=1, frames=8)
    trainer = vae.VAETrainer(VAE, recipe, Pool(root / "pool"), _new_folder(root / "vae"), compiled=False)
    trainer.train_step()
    trainer.save()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.latents.load_trained", lambda folder: vae.load_trained(folder, VAE))
        encode_pool(Pool(root / "pool"), root / "vae", root / "latents", compiled=False)
    tokenizer = fsq.FSQTrainer(MODEL, LatentPool(root / "latents"), _new_folder(root / "fsq"))
    for _ in range(3):
        tokenizer.train_step()
    tokenizer.save()
    nano_tokenizer(root / "tokenizer", pieces=40)
    return {name: root / name for name in ("pool", "vae", "latents", "fsq", "tokenizer")}


def _new_folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_mdct_is_orthonormal():
    for bands in (2, 4, 6, 10):
        basis = mdct_basis(bands)
        assert torch.allclose(basis @ basis.T, torch.eye(bands), atol=1e-5)
        assert torch.allclose(basis[:, :bands] @ basis[:, bands:].T, torch.zeros(bands, bands), atol=1e-5)


def test_autoencoder_starts_as_a_codec():
    music = torch.stack([torch.from_numpy(render(compose(seed, Constraints(seconds=10)))) for seed in range(4)])
    network = OobleckVAE(VAE)
    init_as_mdct(network, music, torch.Generator().manual_seed(0))
    wave = torch.from_numpy(render(compose(99, Constraints(seconds=10))))[:, : 3 * SAMPLE_RATE]
    with torch.no_grad():
        decoded = network.decode(network.encode(wave[None]))[0]
        untrained = tiny.randomise(OobleckVAE(VAE), gain=0.5)
        other = untrained.decode(untrained.encode(wave[None]))[0]
    assert si_sdr(decoded, wave) > 2
    assert mel_distance(decoded, wave) < mel_distance(other, wave)


def test_autoencoder_resumes_exactly(folders, tmp_path):
    def trainer() -> vae.VAETrainer:
        return vae.VAETrainer(VAE, vae.VAERecipe(batch=1, frames=4), Pool(folders["pool"]), tmp_path, compiled=False)

    straight = trainer()
    for _ in range(2):
        straight.train_step()
    straight.save()
    third = straight.train_step()
    again = trainer()
    assert again.step == 2
    assert again.train_step() == pytest.approx(third, rel=1e-4)


def test_a_frozen_encoder_keeps_the_latents(folders, tmp_path):
    recipe = vae.VAERecipe(batch=1, frames=4, freeze_encoder=True)
    trainer = vae.VAETrainer(VAE, recipe, Pool(folders["pool"]), tmp_path, compiled=False)
    before = [p.clone() for p in trainer.vae.encoder.parameters()]
    trainer.train_step()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.vae.encoder.parameters(), strict=True))


def test_discriminators_and_autoencoder_learn_from_each_other(folders, tmp_path):
    torch.manual_seed(0)
    adversary = Adversary(rate=3e-3, sizes=(256,), width=8)
    real, blurred = torch.randn(2, 2, 4096) * 0.1, torch.randn(2, 2, 4096).cumsum(-1) * 0.01
    first = adversary.train_step(blurred, real)
    for _ in range(15):
        last = adversary.train_step(blurred, real)
    assert last < 0.6 * first
    adversarial, distance = adversary.losses(blurred, real)
    lowest, zero = adversary.losses(real, real)
    assert adversarial > lowest and distance > zero == 0

    recipe = vae.VAERecipe(batch=1, frames=4, adversarial=0.1)
    trainer = vae.VAETrainer(VAE, recipe, Pool(folders["pool"]), tmp_path, compiled=False)
    before = [p.clone() for p in trainer.adversary.parameters()]
    result = trainer.train_step()
    assert {"adversary", "adversarial", "features"} <= result.keys() and all(np.isfinite(list(result.values())))
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.adversary.parameters(), strict=True))
    trainer.save()
    again = vae.VAETrainer(VAE, recipe, Pool(folders["pool"]), tmp_path, compiled=False)
    assert all(
        torch.equal(a, b) for a, b in zip(trainer.adversary.parameters(), again.adversary.parameters(), strict=True)
    )


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


def test_audio_codes_learn_and_match_the_core(folders):
    trainer = fsq.FSQTrainer(MODEL, LatentPool(folders["latents"]), folders["fsq"])
    assert trainer.step == 3
    first = trainer.train_step()["loss"]
    for _ in range(15):
        last = trainer.train_step()["loss"]
    assert last < first
    latents = torch.randn(2, 20, 64)
    decoded, codes, _ = fsq.round_trip(trainer.model, latents)
    trainer.model.silence_latent = torch.zeros(1, 5, 64)
    assert torch.equal(codes, trainer.model.tokenize(latents))
    assert torch.allclose(decoded, trainer.model.detokenize(codes), atol=1e-4)


@pytest.fixture
def trainer(folders, tmp_path, monkeypatch) -> dit.DiTTrainer:
    monkeypatch.setattr("training.dit.load_trained", lambda folder: vae.load_trained(folder, VAE))
    monkeypatch.setattr("training.dit.nano_tokenizer", lambda folder: nano_tokenizer(folders["tokenizer"]))
    pool = LatentPool(folders["latents"])
    recipe = dit.DiTRecipe(frames=500, warmup=5, rate=3e-3, mixture=Mixture(cover=0.3, repaint=0.3, drop=0.4))
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


def test_heads_learn_to_follow_the_lyrics(trainer, tmp_path):
    plan = alignment.Alignment(heads=((1, (0,)),), weight=1.0, foreign=0.2, rate=1.0)
    learner = alignment.AlignmentTrainer(plan, copy.deepcopy(trainer.networks), trainer)
    alignment.freeze_for_alignment(learner)
    learner.pool = learner.held = _sung_latents(_new_folder(tmp_path / "sung"))
    before = {name: value.clone() for name, value in learner.networks.state_dict().items()}
    first = np.mean([learner.train_step()["align"] for _ in range(3)])
    for _ in range(10):
        last = learner.train_step()["align"]
    assert last < 0.9 * first
    moved = {name for name, value in learner.networks.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith(("model.decoder", "model.encoder.lyric_encoder")) for name in moved)
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


def test_silence_has_a_clock_for_every_tempo(folders):
    silence = silence_of(vae.load_trained(folders["vae"], VAE), frames=200)
    assert silence.shape == (1, 200, 64)
    for pair, frames in enumerate(BEAT_FRAMES):
        clock = silence[0, :, 2 * pair]
        beats = torch.arange(0, 200, int(2 * frames))
        torch.testing.assert_close(clock[beats], clock[:1].expand(len(beats)), atol=1e-4, rtol=0)
        assert clock[0] - clock[round(frames / 2)] > 0.9


def test_every_tempo_is_near_a_tempo_of_the_composer():
    for bpm in range(60, 181):
        assert abs(60 * 25 / TEMPI[nearest_tempo(bpm)] / bpm - 1) < 0.04


def test_a_trained_nano_loads_like_any_checkpoint(trainer, folders, tmp_path, monkeypatch):
    trainer.train_step()
    trainer.save()
    nano_tokenizer(tmp_path / "tokenizer", pieces=40)
    monkeypatch.setattr("training.finish.nano_config.MODEL", MODEL)
    monkeypatch.setattr("training.finish.nano_config.TEXT", TEXT)
    monkeypatch.setattr("training.finish.load_trained", lambda folder: vae.load_trained(folder, VAE))
    size = finish.finish(trainer.out, folders["vae"], tmp_path / "nano")
    assert 100_000 < size < 10_000_000
    model = load_model(tmp_path / "nano", device="cpu", dtype="float32")
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


@pytest.fixture
def vocabulary(folders) -> Vocabulary:
    return Vocabulary.of(nano_tokenizer(folders["tokenizer"]), codes=nano_config.CODES)


def test_planner_learns_and_loads_in_the_core(folders, vocabulary, tmp_path, monkeypatch):
    small = replace(nano_config.PLANNER, hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    monkeypatch.setattr("training.nano_config.PLANNER", small)
    pieces = [(60, list(range(50))), (61, list(range(50, 100)))]
    recipe = planner.PlannerRecipe(rows=2, warmup=5)
    trainer = planner.PlannerTrainer(recipe, pieces, pieces, vocabulary, tmp_path / "planner")
    first = np.mean([trainer.train_step()["loss"] for _ in range(3)])
    for _ in range(15):
        last = trainer.train_step()["loss"]
    assert last < 0.9 * first
    trainer.save()
    again = planner.PlannerTrainer(recipe, pieces, pieces, vocabulary, tmp_path / "planner")
    assert again.step == 18 and again.train_step() == pytest.approx(trainer.train_step(), rel=1e-3)

    finish.write_trained_planner(tmp_path / "planner", tmp_path, folders["tokenizer"])
    loaded = load_planner(tmp_path / "acestep-5Hz-lm-nano", device="cpu", dtype="float32")
    assert loaded.vocabulary.audio_base == vocabulary.audio_base and loaded.vocabulary.codes == nano_config.CODES
    trainer.average.load(load_state(tmp_path / "planner", "planner")["average"])
    trainer.average.swap()
    planner.merge_levels(trainer.network)
    weights = trainer.network.model.state_dict()
    for name, value in loaded.network.state_dict().items():
        assert torch.allclose(value, weights[name], rtol=0.01, atol=1e-6), name


def test_codes_share_the_rows_of_their_levels():
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
    assert torch.allclose(table.weight, before, atol=1e-5), "a table of sums of levels must not change"
    table.weight[first].sum().backward()  # code 0 has the lowest level of each axis
    shared = table.parametrizations.weight[0].shared
    with torch.no_grad():
        shared -= shared.grad
    moved = (table.weight.detach() - before)[first:].mean(dim=1).round()
    assert moved.tolist() == [-float(each.count(0)) for each in levels]
    merged = table.weight.detach().clone()
    planner.merge_levels(network)
    assert torch.equal(table.weight, merged) and list(table.state_dict()) == ["weight"]


def test_shifted_pieces_have_other_codes(folders):
    model = planner.load_audio_tokenizer(None, NANO / "vae", NANO)
    pool = LatentPool(folders["latents"])
    pieces = planner.codes_of_pool(pool, model, 5)
    assert pieces[::5] == planner.codes_of_pool(pool, model)
    for index in range(0, len(pieces), 5):
        seeds, codes = zip(*pieces[index : index + 5], strict=True)
        assert len(set(seeds)) == 1 and len({tuple(each) for each in codes}) == 5


def test_planner_tasks_have_their_prompts_and_answers(vocabulary):
    piece, codes, recipe = piece_of(61), list(range(40)), planner.PlannerRecipe
    text_tasks = {"inspire": recipe(inspire=1, format=0), "format": recipe(inspire=0, format=1)}
    code_tasks = {
        "understand": recipe(understand=1, inspire=0, format=0),
        "plan": recipe(understand=0, unconditional=0),
        "unconditional": recipe(understand=0, unconditional=1),
    }
    examples = {
        name: planner.code_example(vocabulary, piece, codes, recipe, np.random.default_rng(3))
        for name, recipe in code_tasks.items()
    } | {
        name: planner.song_example(vocabulary, piece, recipe, np.random.default_rng(3))
        for name, recipe in text_tasks.items()
    }
    assert examples["inspire"][0] != examples["format"][0]
    assert all(answer[-1] == vocabulary.turn_end for _, answer in examples.values())
    assert examples["understand"][0] == prompts.understand_prompt(vocabulary, codes)
    answer = [*vocabulary.code_ids(codes), vocabulary.turn_end]
    assert examples["unconditional"] == (prompts.unconditional_prompt(vocabulary), answer)
    for name in ("plan", "understand", "inspire", "format"):
        answer = examples[name][1]
        assert answer[0] == vocabulary.think
        block = read_block(vocabulary.decode(answer[1 : answer.index(vocabulary.think_end)]))
        assert (block["bpm"], block["keyscale"], block["duration"]) == (piece.bpm, piece.key, piece.seconds)
        assert ("genres" in block) == (name != "plan")
    assert vocabulary.codes_among(examples["plan"][1]) == codes


def test_every_stage_can_start_from_a_checkpoint(folders, tmp_path):
    shipped = load_model("nano", device="cpu", dtype="float32")
    recipe = vae.VAERecipe(batch=1, frames=4)
    autoencoder = vae.VAETrainer(
        nano_config.VAE, recipe, Pool(folders["pool"]), _new_folder(tmp_path / "vae"), compiled=False, start=NANO
    )
    vae.remove_weight_norm(autoencoder.vae)
    for name, value in shipped.vae.state_dict().items():
        assert torch.allclose(autoencoder.vae.state_dict()[name], value, atol=1e-6), name

    pool = LatentPool(folders["latents"])
    trainer = dit.DiTTrainer(dit.DiTRecipe(), pool, pool, NANO / "vae", None, _new_folder(tmp_path / "dit"), start=NANO)
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


@pytest.mark.parametrize("fast", [True, False])
def test_a_cpu_trains_in_bfloat16_only_if_it_has_it(monkeypatch, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast}, raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert mixed("cpu")._enabled is fast
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not mixed("cpu")._enabled
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast, raising=False)
    assert mixed("cpu")._enabled is fast
