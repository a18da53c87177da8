"""LoRAs on the command line."""

import json
import shutil

import pytest
import soundfile

from acestep_core import read_settings
from acestep_core.cli.lora_commands import split_strength
from tests.support import tiny_checkpoint
from tests.support.adapter_files import LINEAR, comfyui_file, factors, peft_folder
from tests.support.layouts import save
from tests.support.tiny import draw


@pytest.fixture
def loras(models, tmp_path):
    """A folder of models with LoRAs, and the options that find it."""
    root = tmp_path / "models" / "acestep"
    root.mkdir(parents=True)
    (root / models.name).symlink_to(models)
    folder = tmp_path / "models" / "loras"
    metadata = {"modelspec.trigger_phrase": "neon\x1b drums"}
    comfyui_file(folder / "style.safetensors", factors(tiny_checkpoint.NETWORK), metadata=metadata)
    peft_folder(folder / "voice", factors(tiny_checkpoint.NETWORK, LINEAR[:2], seed=9), use_rslora=True)
    return folder


def test_a_song_with_loras_and_again_from_its_file(acestep, loras, tmp_path):
    song = ("piano", "--duration", 1, "--seed", 7, "--steps", 2)
    options = ("--models-dir", loras.parent / "acestep")
    assert acestep(*song, *options, "-o", "plain.wav")[0] == 0
    code, _, err = acestep(*song, *options, "--lora", "style", "--lora", "voice:-0.5", "-o", "a.wav", "-v")
    assert code == 0 and "6 of 6 modules" in err and "rank 4, alpha 10" in err
    first, second = read_settings("a.wav")["loras"]
    assert (first["name"], first["strength"]) == ("style.safetensors", 1.0)
    assert (second["name"], second["strength"]) == ("voice", -0.5)
    again = ("--from", "a.wav", "--device", "cpu")
    assert acestep(*again, *options, "-o", "b.wav", model=False)[0] == 0
    assert read_settings("b.wav")["loras"] == [first, second]
    acestep(*song, *options, "--lora", "style:0", "-o", "zero.wav")
    assert samples("zero.wav") == samples("plain.wav") != samples("a.wav") == samples("b.wav")
    acestep(*again, *options, "--lora", "style:0", "-o", "c.wav", model=False)
    assert samples("c.wav") == samples("plain.wav")


def samples(name: str) -> bytes:
    return soundfile.read(name)[0].tobytes()


def test_a_song_does_not_use_another_file(acestep, loras, tmp_path):
    options = ("--models-dir", loras.parent / "acestep")
    acestep("piano", "--duration", 1, "--steps", 1, *options, "--lora", loras / "style", "-o", "a.wav")
    comfyui_file(loras / "style.safetensors", factors(tiny_checkpoint.NETWORK, seed=3))
    code, _, err = acestep("--from", "a.wav", *options, "-o", "b.wav")
    assert code == 1 and "another file" in err and "--lora" in err and err.count("\n") == 1
    (tmp_path / "style.safetensors").write_bytes((loras / "style.safetensors").read_bytes())
    (loras / "style.safetensors").unlink()
    code, _, err = acestep("--from", "a.wav", *options, "-o", "b.wav")
    assert code == 1 and "not in the folders" in err  # a file of this name beside the song is not used


def test_loras_are_listed(acestep, loras, tmp_path):
    save(loras / "sdxl.safetensors", {"lora_unet_down_blocks_0.lora_up.weight": draw(2, 2)})
    (loras / "broken.safetensors").write_bytes((loras / "style.safetensors").read_bytes()[:-9])
    shutil.copytree(loras / "voice", loras / "more" / "voice")
    code, out, err = acestep("loras", "--models-dir", loras.parent, model=False)
    assert (code, err) == (0, "")
    assert "style\n    for width 48: LoRA rank 4, alpha 10 (tensor), scale 2.5\n" in out
    assert "trigger words: neon\\u001b drums" in out
    assert "voice\n    for width 48: LoRA rank 4, alpha 10 (adapter_config.json), scale 5\n" in out
    assert "more/voice\n" in out and "broken\n    cannot be used: " in out and "truncated" in out
    assert "1 other files" in out and "sdxl" not in out


def test_a_lora_is_converted(acestep, loras, tmp_path):
    options = ("--models-dir", loras.parent)
    code, out, _ = acestep("lora-convert", "voice", "voice.safetensors", *options, model=False)
    assert code == 0 and out.startswith("voice.safetensors: LoRA rank 4")
    code, out, _ = acestep("lora-convert", "voice.safetensors", "folder", *options, model=False)
    config = json.loads((tmp_path / "folder" / "adapter_config.json").read_text())
    assert code == 0 and (config["r"], config["lora_alpha"]) == (4, 20)
    code, _, err = acestep("lora-convert", "voice.safetensors", "folder", *options, model=False)
    assert code == 2 and "exists" in err


@pytest.mark.parametrize(
    ("lora", "code", "words"),
    [("nothing", 1, "nothing"), ("style:nan", 2, "strength"), ("style:1e9", 2, "strength"), (" ", 2, "--lora")],
)
def test_an_unusable_lora_is_refused_before_a_model_is_loaded(acestep, loras, monkeypatch, lora, code, words):
    monkeypatch.setattr("acestep_core.checkpoints.build.load_network", None)
    result = acestep("piano", "--lora", lora, "--models-dir", loras.parent / "acestep")
    assert result[0] == code and words in result[2] and result[2].count("\n") == 1


def test_the_strength_follows_the_last_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:2").touch()
    assert split_strength("a:0.5") == ("a", 0.5)
    assert split_strength("a:-1") == ("a", -1.0)
    for text in ("a", "a:2", "C:\\loras\\a.safetensors", ":1"):
        assert split_strength(text) == (text, 1.0)
    assert split_strength("C:\\a.safetensors:2") == ("C:\\a.safetensors", 2.0)
