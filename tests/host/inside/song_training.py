"""Song Folder and Train LoRA: what a folder holds, a training in a process of its own, its interrupt and its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch
from comfy.cli_args import args
from pack_under_test.acestep_core.audio import write_audio
from pack_under_test.acestep_core.train.train_state import STATE, stored_run
from pack_under_test.nodes.comfy_runtime import training
from pack_under_test.nodes.lora import LoadLoraNode
from pack_under_test.nodes.train import WORK, SongFolderNode, TrainLoraNode
from pack_under_test.nodes.train_options import TrainOptionsNode

from .odd_inputs import refusal
from .world import World, difference

RATE = 48_000
USUAL = {
    "model": "nano", "name": "tiny", "trigger": "zorp", "steps": 3, "rank": 2, "learning_rate": 4e-3, "crop": 0.0,
    "sample_every": 0, "restart": False, "kind": "lora", "modules": "attention", "storage": "auto",
}  # fmt: skip


@contextmanager
def folders(name: str) -> Iterator[Path]:
    """Yield a folder with `input/songs`, `output` and `loras`, which ComfyUI uses."""
    base, before = Path.cwd() / name, (folder_paths.get_input_directory(), folder_paths.get_output_directory())
    for each in ("input/songs", "output", "loras"):
        (base / each).mkdir(parents=True)
    write_song(base / "input" / "songs" / "one.wav", 3)
    (base / "input" / "songs" / "one.txt").write_text("slow jazz")
    folder_paths.set_input_directory(str(base / "input"))
    folder_paths.set_output_directory(str(base / "output"))
    own = {"loras": ([str(base / "loras")], {".safetensors"})}
    with mock.patch.dict(folder_paths.folder_names_and_paths, own):
        try:
            yield base
        finally:
            folder_paths.set_input_directory(before[0])
            folder_paths.set_output_directory(before[1])


def write_song(path: Path, seed: int, seconds: int = 6, level: float = 0.1) -> None:
    noise = torch.randn(2, seconds * RATE, generator=torch.Generator().manual_seed(seed))
    write_audio(path, (level * noise).clamp(-1, 1), RATE)


def train(songs, **changes):
    return TrainLoraNode.execute(**{**USUAL, "songs": songs, **changes})


@contextmanager
def at_step(step: int, act) -> Iterator[list[int]]:
    """Call `act` once the bar of the training shows a step, and collect its steps."""
    steps: list[int] = []

    def hook(value: int, total: int, preview: object, **_: object) -> None:
        if total == steps_of_run:
            steps.append(value)
            if value >= step:  # later versions leave out steps
                act()

    steps_of_run = 997  # of no other stage
    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        yield steps
    finally:
        comfy.utils.set_progress_bar_global_hook(None)


def check_a_folder_is_reported_with_every_problem(world: World) -> None:
    with folders("reported") as base:
        songs = base / "input" / "songs"
        before = SongFolderNode.fingerprint_inputs("songs")
        write_song(songs / "bare.wav", 4)
        write_song(songs / "silent.wav", 5, level=0.0)
        (songs / "lonely.txt").write_text("no audio")
        assert SongFolderNode.fingerprint_inputs("songs") != before
        output = SongFolderNode.execute("songs")
        first, *problems = output.args[1].splitlines()
        assert first.startswith("2 songs, 12 seconds") and str(base) not in output.args[1]
        for word in ("bare.wav: write", "silent.wav", "lonely.txt", "only 2 songs"):
            assert sum(word in line for line in problems) == 1, (word, problems)
        assert output.ui["text"] == (output.args[1],)
        assert SongFolderNode.execute(str(songs)).args[1] == output.args[1]


def check_folders_that_cannot_be_trained_on_are_refused(world: World) -> None:
    with folders("refused") as base:
        (base / "input" / "empty").mkdir()
        for given in ("nowhere", "", "../loras", "songs/one.wav", None, 7, "a\0b", str(base / "nowhere")):
            assert refusal(lambda given=given: SongFolderNode.execute(given)).startswith("folder: ")
            if given is not None:
                assert SongFolderNode.validate_inputs(given).startswith("folder: ")
        assert "no audio" in refusal(lambda: SongFolderNode.execute("empty"))
        assert SongFolderNode.validate_inputs(None) is SongFolderNode.validate_inputs(str(base)) is True
        with mock.patch.object(args, "listen", "0.0.0.0,::"):
            assert "--listen" in SongFolderNode.validate_inputs(str(base))
            assert SongFolderNode.validate_inputs("songs") is SongFolderNode.validate_inputs(
                str(base / "input" / "songs")
            )


def check_a_lora_is_trained_and_loads(world: World) -> None:
    with folders("trained") as base:
        songs = SongFolderNode.execute("songs").args[0]
        world.sample()
        output = train(songs)
        assert not mm.current_loaded_models, "the training has the memory"
        name, report, best = output.args
        assert best == name and "held-out" not in report
        assert name == "tiny.safetensors" and "3 steps" in report and output.ui["text"] == (report,)
        picture = output.ui["images"][0]
        assert Path(folder_paths.get_output_directory(), picture["subfolder"], picture["filename"]).is_file()
        patched, trigger = LoadLoraNode.execute(
            world.model, name, 1.0, **dict.fromkeys(("self_attention", "cross_attention"), 1.0)
        ).args
        assert trigger == "zorp" and difference(world.sample(patched), world.sample()) > 1e-4
        assert refusal(lambda: train(songs, rank=4)).startswith("restart: ")
        (base / "loras" / "other.safetensors").write_bytes(b"of another origin")
        assert refusal(lambda: train(songs, name="other")).startswith("name: ")
        assert (base / "loras" / "other.safetensors").read_bytes() == b"of another origin"


def check_the_best_lora_by_a_held_out_song_lies_beside_the_last(world: World) -> None:
    with folders("held_out") as base:
        write_song(base / "input" / "songs" / "two.wav", 4)
        (base / "input" / "songs" / "two.txt").write_text("fast jazz")
        songs = SongFolderNode.execute("songs").args[0]
        values = {"held_out": 1, "held_out_every": 1, "patience": 1, "dropout": 0.1, "ema": 0.9, "optimizer": "adamw"}

        def options(**changes):
            return TrainOptionsNode.execute(**values | changes).args[0]

        name, report, best = train(songs, options=options()).args
        assert (name, best) == ("tiny.safetensors", "tiny-best.safetensors") and "held-out" in report
        assert (base / "loras" / best).is_file()
        usual = dict.fromkeys(("self_attention", "cross_attention"), 1.0)
        assert (
            difference(world.sample(LoadLoraNode.execute(world.model, best, 1.0, **usual).args[0]), world.sample()) > 0
        )
        (base / "loras" / "foreign-best.safetensors").write_bytes(b"of another origin")
        assert refusal(lambda: train(songs, name="foreign", options=options())).startswith("name: foreign-best")
        assert refusal(lambda: train(songs, name="all", options=options(held_out=2))).startswith("held_out")
        assert refusal(lambda: options(held_out=0)).startswith("patience")


def check_wrong_values_are_refused_before_the_training(world: World) -> None:
    for name in ("", " ", "a/b", "..", "a\\b", "x" * 200, "a\0b", ".hidden"):
        assert TrainLoraNode.validate_inputs("nano", name).startswith("name: ")
    assert TrainLoraNode.validate_inputs("nano", "my style") is TrainLoraNode.validate_inputs(None, None) is True
    assert "model" in TrainLoraNode.validate_inputs("missing.safetensors", "a")
    with folders("wrong"):
        songs = SongFolderNode.execute("songs").args[0]
        for name, value in (("crop", 1.0), ("rank", 0), ("kind", "x"), ("steps", 0), ("learning_rate", 0.0)):
            assert refusal(lambda name=name, value=value: train(songs, **{name: value})).startswith(name)


def check_an_interrupt_keeps_the_steps_and_the_next_run_continues(world: World) -> None:
    with folders("interrupted") as base:
        songs = SongFolderNode.execute("songs").args[0]
        state = base / "output" / WORK / "tiny" / STATE
        with at_step(4, mm.interrupt_current_processing) as steps:
            try:
                train(songs, steps=997)
            except mm.InterruptProcessingException:
                pass
            else:
                raise AssertionError("not interrupted")
        stored = stored_run(state)
        assert stored is not None and stored[0] >= steps[-1] >= 4 and not (base / "loras" / "tiny.safetensors").exists()
        with at_step(stored[0] + 1, mm.interrupt_current_processing) as steps:
            try:
                train(songs, steps=997)
            except mm.InterruptProcessingException:
                pass
        assert steps[0] == stored[0] + 1


def check_the_end_of_the_process_is_one_sentence(world: World) -> None:
    with folders("ended"):
        songs = SongFolderNode.execute("songs").args[0]
        fail = "import sys; print('noise\\n[1]'); print('acestep: {}', file=sys.stderr); sys.exit(1)"
        for program, words in (
            ("import os; os.kill(os.getpid(), 9)", ("songs: ", "signal 9", "memory")),
            ("raise ValueError('a defect')", ("songs: ", "code 1", "a defect")),
            (fail.format("out of memory; try --storage int8"), ("crop: ",)),
            (fail.format("dataset: gone"), ("songs: gone",)),
        ):
            with mock.patch.object(training, "PROGRAM", program):
                sentence = refusal(lambda: train(songs))
            assert "\n" not in sentence and "Traceback" not in sentence and "--" not in sentence, sentence
            assert all(word in sentence for word in words), sentence
