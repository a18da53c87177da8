"""The stage of the planner on tiny networks: its codes, tasks and files."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from acestep_core.checkpoints.catalog import NANO
from acestep_core.planner import chat_prompts as prompts
from acestep_core.planner.load_planner import load_planner
from acestep_core.planner.metadata_text import read_block
from tests.support.tiny import draw
from training import finish, nano_config, planner
from training.conditioning import piece_of
from training.latents import LatentPool
from training.state import load_state


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
