"""The whole way of training on a tiny model: from a folder of songs to the files of an adapter."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from acestep_core import cli, read_adapter
from acestep_core.callbacks import Callbacks
from acestep_core.errors import Cancelled, RequestError
from acestep_core.pipeline import encode, load_model
from acestep_core.song.song import Metadata, Song
from acestep_core.train import model_parts
from acestep_core.train.results import check_card
from acestep_core.train.train_adapter import SampleSongs, train_adapter
from acestep_core.train.train_settings import TrainSettings
from acestep_core.train.train_state import stored_run
from tests.support import tiny_checkpoint

SETTINGS = TrainSettings(rank=2, steps=4, crop=5.2, accumulation=1, learning_rate=1e-2)
QUIET = {"device": "cpu", "dtype": "float32"}


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "state.safetensors")


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def options(tiny_models):
    return {"model": tiny_models, "settings": SETTINGS, "save_every": 2, **QUIET}


def test_from_a_folder_to_the_files(band, options, tmp_path):
    samples = SampleSongs(every=2, song=Song("a song", metadata=Metadata(duration=1.0)))
    result = train_adapter(band, tmp_path / "my.safetensors", samples=samples, **options)
    assert result.path == tmp_path / "my.safetensors" and result.card == tmp_path / "my.md"
    adapter, folder = read_adapter(result.path), read_adapter(result.folder)
    assert adapter.modules.keys() == folder.modules.keys() and len(adapter.modules) == 4 * 8
    assert (result.path.parent / "band.train/my/loss.csv").read_text().count("\n") == 5
    assert [path.name for path in result.samples] == [f"step-00000{step}.flac" for step in (0, 2, 4)]
    assert len({path.read_bytes() for path in result.samples}) == 3
    with safe_open(result.path, "pt") as file:
        header = file.metadata()
    assert header["acestep.steps"] == "4" and header["acestep.variant"] == "turbo"
    assert header["modelspec.architecture"].endswith("lora") and len(header["acestep.dataset_hash"]) == 64
    assert json.loads(header["acestep.settings"])["rank"] == 2
    check_card(result.path)  # another training may replace the card
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(RequestError, match=r"would replace .*notes\.md"):
        train_adapter(band, tmp_path / "notes.safetensors", **options)
    card = result.card.read_text()
    assert "# my" in card and "3 songs" in card and "song 0" in card and str(tmp_path) not in card
    with torch.no_grad():
        assert not any(module.factors.up.isnan().any() for module in adapter.modules.values())


def test_a_base_model_drops_text_and_makes_songs_with_guidance(band, tmp_path, tiny_tokenizer_dir):
    tiny_checkpoint.write_tiny_checkpoint(tmp_path / "base", tiny_tokenizer_dir, turbo=False)
    samples = SampleSongs(every=4, song=Song("a song", metadata=Metadata(duration=1.0)))
    result = train_adapter(
        band, tmp_path / "my.safetensors", model=tmp_path / "base", settings=SETTINGS, samples=samples, storage="int8",
        device="cpu", dtype="bfloat16",
    )  # fmt: skip
    assert len(result.samples) == 2 and len({path.read_bytes() for path in result.samples}) == 2
    assert [row.step for row in result.losses] == [1, 2, 3, 4]


def test_the_text_is_encoded_as_at_inference(band, options, tmp_path):
    train_adapter(band, tmp_path / "my.safetensors", **options)
    stored = [load_file(path) for path in (tmp_path / "band.train/features").glob("text-*")]
    model = load_model(options["model"], **QUIET)
    for number, seconds in ((0, 5.2), (1, 6.2)):
        metadata = Metadata(bpm=100 + number, duration=seconds)
        expected = encode(model, Song(f"song {number}", "[Verse]\nla la\n\n[Chorus]\nlo\n\nlast", metadata))
        assert any(
            each["caption"].shape == expected.caption.shape
            and torch.equal(each["caption"], expected.caption)
            and torch.equal(each["lyrics"], expected.lyrics)
            for each in stored
        )


def test_features_are_computed_once_and_again_for_a_changed_song(band, options, tmp_path, monkeypatch):
    train_adapter(band, tmp_path / "a.safetensors", **options)

    def refuse(*_, **__):
        raise AssertionError("an encoder was loaded")

    with monkeypatch.context() as patch:
        patch.setattr(model_parts, "load_vae", refuse)
        patch.setattr(model_parts, "load_text_encoder", refuse)
        train_adapter(band, tmp_path / "b.safetensors", **options)
    names = {path.name for path in (tmp_path / "band.train/features").iterdir()}
    (band / "1.txt").write_text("another caption")
    train_adapter(band, tmp_path / "c.safetensors", **options)
    new = {path.name for path in (tmp_path / "band.train/features").iterdir()} - names
    assert len(new) == 1 and new.pop().startswith("text-")
    assert same(state(tmp_path / "band.train/a"), state(tmp_path / "band.train/b"))
    assert not same(state(tmp_path / "band.train/a"), state(tmp_path / "band.train/c"))


def test_a_damaged_feature_is_computed_again(band, options, tmp_path):
    train_adapter(band, tmp_path / "a.safetensors", **options)
    for path in (tmp_path / "band.train/features").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    train_adapter(band, tmp_path / "b.safetensors", **options)
    assert same(state(tmp_path / "band.train/a"), state(tmp_path / "band.train/b"))


def test_a_cancelled_training_continues_and_another_one_is_refused(band, options, tmp_path):
    train_adapter(band, tmp_path / "whole.safetensors", **options)
    steps = []
    stop = Callbacks(
        progress=lambda report: steps.append(report) if report.stage == "train" else None,
        cancelled=lambda: len(steps) == 1,
    )
    with pytest.raises(Cancelled):
        train_adapter(band, tmp_path / "part.safetensors", callbacks=stop, **options)
    other = options | {"settings": TrainSettings(**SETTINGS.to_dict() | {"rank": 3})}
    with pytest.raises(RequestError, match="rank"):
        train_adapter(band, tmp_path / "part.safetensors", **other)
    train_adapter(band, tmp_path / "part.safetensors", **options)
    assert same(state(tmp_path / "band.train/whole"), state(tmp_path / "band.train/part"))
    train_adapter(band, tmp_path / "part.safetensors", restart=True, **other)
    assert not same(state(tmp_path / "band.train/whole"), state(tmp_path / "band.train/part"))


def test_a_finished_training_continues_with_more_steps(band, options, tmp_path):
    train_adapter(band, tmp_path / "a.safetensors", **options)
    reports = []
    callbacks = Callbacks(progress=lambda report: reports.append(report.step) if report.stage == "train" else None)
    more = options | {"settings": TrainSettings(**SETTINGS.to_dict() | {"steps": 6}), "callbacks": callbacks}
    result = train_adapter(band, tmp_path / "a.safetensors", **more)
    assert reports == [5, 6] and len(result.losses) == 6
    with pytest.raises(RequestError, match="steps"):
        train_adapter(band, tmp_path / "a.safetensors", **options)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_process_continues_as_an_unbroken_one(band, options, tmp_path):
    command = ["train", str(band), "--model", str(options["model"]), "--device", "cpu", "--dtype", "float32", "-q"]
    command += ["--rank", "2", "--steps", "60", "--crop", "5.2", "--accumulation", "1", "--save-every", "1"]
    assert cli.main([*command, "-o", str(tmp_path / "whole.safetensors")]) == 0
    killed = [*command, "-o", str(tmp_path / "killed.safetensors")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "acestep_core", *killed], env=environment)
    path = tmp_path / "band.train/killed/state.safetensors"
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "killed.safetensors").exists()
    assert cli.main(killed) == 0
    assert same(load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "killed.safetensors"))


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"output": "a.txt"}, "safetensors"), ({"output": "nowhere/a.safetensors"}, "nowhere"),
        ({"dtype": "float16"}, "float16"), ({"save_every": 0}, "save_every"), ({"storage": "int4"}, "int4"),
    ],
)  # fmt: skip
def test_wrong_arguments(band, options, tmp_path, monkeypatch, arguments, word):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=word):
        train_adapter(**{"dataset": band, "output": "a.safetensors", **options, **arguments})


def test_the_command(band, options, tmp_path, capsys):
    arguments = ["train", str(band), "-o", str(tmp_path / "a.safetensors"), "--model", str(options["model"])]
    arguments += [
        "--device",
        "cpu",
        "--steps",
        "2",
        "--rank",
        "2",
        "--kind",
        "lokr",
        "--trigger",
        "neon",
        "--crop",
        "6",
    ]
    arguments += ["--storage", "int8", "--batch", "2", "--trigger", "neon", "--work", str(tmp_path / "work")]
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    assert out.split() == [str(tmp_path / "a.safetensors"), str(tmp_path / "a.md")]
    assert "3 songs" in err and "train" in err
    adapter = read_adapter(tmp_path / "a.safetensors")
    assert adapter.trigger == ("neon",) and {each.kind for each in adapter.modules.values()} == {"LoKr"}
    assert cli.main(["train", str(band), "-o", "a.safetensors", "--rank", "0"]) == 2
    with pytest.raises(SystemExit):
        cli.main(["train", str(band)])


def test_another_program_reads_json_and_stops_the_training_by_its_input(band, options, tmp_path):
    output, state = tmp_path / "a.safetensors", tmp_path / "band.train/a/state.safetensors"
    command = ["train", str(band), "-o", str(output), "--model", str(options["model"]), "--device", "cpu", "--json"]
    command += ["--rank", "2", "--crop", "5.2", "--accumulation", "1", "--stop-with-input", "--steps"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment}
    with subprocess.Popen([sys.executable, "-m", "acestep_core", *command, "100000"], **pipes) as process:
        trained = next(line for line in map(json.loads, process.stdout) if line.get("stage") == "train")
        assert trained == {"stage": "train", "step": 1, "total": 100_000}
        _, errors = process.communicate()  # closes the input
    assert process.returncode == 130 and b"stopped" in errors and b"Traceback" not in errors
    step = stored_run(state)[0]
    assert step >= 1 and not output.exists()
    with subprocess.Popen([sys.executable, "-m", "acestep_core", *command, str(step + 1)], **pipes) as process:
        lines = [json.loads(line) for line in process.stdout]
        assert process.wait() == 0
    assert {"written": str(output)} in lines and any(not line["left_out"] for line in lines if "problem" in line)
