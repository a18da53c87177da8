"""Generate songs with `acestep "caption"` and write them to files."""

import os
import re
from itertools import islice
from pathlib import Path

import pytest
import soundfile
import torch

from acestep_core import RequestError, audio, pipeline, read_audio, read_settings
from acestep_core.cli import song_command
from acestep_core.cli.song_command import free_names, output_paths
from tests.support import tiny_checkpoint


def test_a_song_from_the_command_line(acestep, models, tmp_path):
    (tmp_path / "song.txt").write_text("[Verse]\nslow river", encoding="utf-8")
    code, out, err = acestep(
        "warm lo-fi piano", "--lyrics", "song.txt", "--duration", 2, "--seed", 7, "--bpm", 90, "--key", "c# min",
        "--time-signature", "3", "--language", "en", "--steps", 2, "--shift", 2, "--no-normalize", "-o", "song.flac",
    )  # fmt: skip
    assert (code, out) == (0, "song.flac: 2 s, seed 7\n")
    info = soundfile.info("song.flac")
    assert (info.frames, info.samplerate, info.channels) == (96000, 48000, 2)
    settings = read_settings("song.flac")
    assert settings["caption"] == "warm lo-fi piano" and settings["lyrics"] == "[Verse]\nslow river"
    metadata = {"seed": 7, "bpm": 90, "key": "C# minor", "time_signature": "3", "language": "en", "duration": 2.0}
    assert settings.items() >= (metadata | {"steps": 2, "shift": 2.0, "normalize": False}).items()
    assert settings["model"] == models.name  # not the whole path
    assert tiny_checkpoint.NOTE in err
    for stage in ("load diffusion model", "load text encoder", "load VAE", "encode", "sample", "decode"):
        assert len(re.findall(rf"^{stage} *: 100%", err, re.MULTILINE)) == 1


def test_a_song_is_generated_again_from_its_file(acestep, models, tmp_path):
    acestep("warm piano", "--duration", 1, "--solver", "sde", "-o", "a.wav")
    placement = ("--models-dir", models.parent, "--device", "cpu")
    code, _, _ = acestep("--from", "a.wav", *placement, "-o", "b.wav", model=False)
    assert code == 0  # the file has the names of model and dtype
    assert read_settings("b.wav")["dtype"] == "float32"
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    acestep("--from", "a.wav", "--seed", 3, "other words", "-o", "c.wav")
    changed, original = read_settings("c.wav"), read_settings("a.wav")
    assert (changed["seed"], changed["caption"]) == (3, "other words")
    assert (changed["solver"], changed["duration"]) == (original["solver"], original["duration"]) == ("sde", 1.0)


def test_a_song_with_every_sampling_option_is_generated_again(acestep, tmp_path):
    options = ("--variant", "base", "--steps", 4, "--guidance", 3, "--guidance-start", 0.25, "--guidance-end", 0.75)
    options += ("--solver", "dpmpp_3m", "--dcw", "double", "--dcw-strength", 2, "--negative-caption", "noise")
    acestep("warm piano", "--duration", 1, "--seed", 7, *options, "-o", "one.wav")
    code, _, err = acestep("--from", "one.wav", "-o", "two.wav")
    assert code == 0, err
    assert torch.equal(read_audio("one.wav"), read_audio("two.wav"))
    for name, value in (("guidance_end", 1), ("dcw", "off"), ("negative_caption", ""), ("solver", "euler")):
        acestep("--from", "one.wav", f"--{name.replace('_', '-')}", value, "-o", "other.wav")
        assert read_settings("other.wav")[name] == value
        assert not torch.equal(read_audio("one.wav"), read_audio("other.wav")), name


def test_a_file_finds_its_model_in_the_model_folders_alone(acestep, models, tmp_path):
    acestep("piano", "--duration", 1, "-o", "a.wav")
    (tmp_path / models.name).symlink_to(models)  # a folder of this name may come with the song
    (tmp_path / "empty").mkdir()
    code, _, err = acestep("--from", "a.wav", "--models-dir", "empty", "--device", "cpu", "-o", "b.wav", model=False)
    assert code == 1 and models.name in err and "--model" in err and err.count("\n") == 1
    assert acestep("--from", "a.wav", "--model", models.name, "--device", "cpu", "-o", "b.wav", model=False)[0] == 0


@pytest.mark.parametrize("part", ["model", "vae", "text_encoder"])
def test_a_file_cannot_choose_a_path(acestep, models, part):
    values = {"caption": "x", "seed": 1, "duration": 1, part: str(models)}
    audio.write_audio("a.wav", torch.rand(2, 4800), settings=values)
    code, _, err = acestep("--from", "a.wav", "--device", "cpu", "-o", "b.wav", model=False)
    assert code == 2 and err.startswith(f"acestep: {part}: '{models}' is a path") and err.count("\n") == 1
    assert not Path("b.wav").exists()
    own = {"model": models, "vae": models / "vae", "text_encoder": models / "Qwen3-Embedding-0.6B"}[part]
    options = ["--model", models, f"--{part.replace('_', '-')}", own]
    assert acestep("--from", "a.wav", "--device", "cpu", "-o", "b.wav", *options, model=False)[0] == 0


def test_the_storage_dtype_is_recorded(acestep, models, tmp_path):
    for name, options in (("a", ["--storage", "int8", "--stream"]), ("b", [])):
        assert acestep("piano", "--duration", 1, "--seed", 7, "--steps", 2, *options, "-o", f"{name}.wav")[0] == 0
    assert read_settings("a.wav")["storage"] == "int8" and "storage" not in read_settings("b.wav")
    acestep("--from", "a.wav", "--models-dir", models.parent, "--device", "cpu", "-o", "c.wav", model=False)
    first, other, again = ((tmp_path / f"{name}.wav").read_bytes() for name in "abc")
    assert first == again != other


def test_explicit_timesteps_and_steps_replace_each_other(acestep):
    acestep("piano", "--duration", 1, "--timesteps", "0.9,0.5", "-o", "a.wav")
    assert read_settings("a.wav")["timesteps"] == [0.9, 0.5]
    acestep("--from", "a.wav", "--steps", 2, "-o", "b.wav")
    assert "timesteps" not in read_settings("b.wav") and read_settings("b.wav")["steps"] == 2
    _, _, err = acestep("--from", "b.wav", "--timesteps", "0.9 0", "-o", "c.wav")
    assert "ignored" not in err
    assert read_settings("c.wav")["timesteps"] == [0.9, 0.0] and "steps" not in read_settings("c.wav")


def test_a_batch_counts_seeds_up_and_quiet_prints_only_names(acestep):
    code, out, err = acestep("piano", "--duration", 1, "--batch", 2, "--seed", 5, "--quiet")
    assert (code, out, err) == (0, "song-1.flac\nsong-2.flac\n", "")
    assert [read_settings(f"song-{i}.flac")["seed"] for i in (1, 2)] == [5, 6]
    _, out, _ = acestep("piano", "--duration", 1, "-q")
    assert out == "song-3.flac\n"


def test_verbose_logs_one_line_per_phase(acestep):
    _, _, err = acestep("piano", "--duration", 1, "-v")
    for phase in ("encode", "sample", "decode"):
        assert len(re.findall(rf"^{phase}: \d+\.\d\d s, cpu, float32, .*$", err, re.MULTILINE)) == 1


def test_placement_options_reach_load_model(acestep, monkeypatch):
    received = {}

    def load(*_, **options):
        received.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "load_model", load)
    names = ("offload", "stream", "graphs", "compile")
    for name in names:
        received.clear()
        acestep("piano", f"--{name}")
        assert [other for other in names if received.get(other)] == [name]
    acestep("piano", "--no-graphs")
    assert received["graphs"] is False


def test_output_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [str(path) for path in output_paths("out/song.ogg", 2)] == ["out/song-1.ogg", "out/song-2.ogg"]
    assert [str(path) for path in output_paths("song.ogg", 1)] == ["song.ogg"]
    assert {str(path) for count in (1, 2) for path in output_paths(".", count)} == {"."}
    assert str(next(free_names())) == "song-1.flac"
    (tmp_path / "song-4.wav").touch()
    assert [str(path) for path in islice(free_names(), 2)] == ["song-5.flac", "song-6.flac"]


def test_two_runs_in_one_folder_keep_both_songs(acestep, monkeypatch, tmp_path):
    """Another run takes song-1.flac while this one samples."""
    generate = pipeline.generate

    def slow(*arguments, **options):
        result = generate(*arguments, **options)
        Path("song-1.flac").write_bytes(b"of the other run")
        return result

    monkeypatch.setattr(pipeline, "generate", slow)
    assert acestep("piano", "--duration", 1, "-q")[1] == "song-2.flac\n"
    assert Path("song-1.flac").read_bytes() == b"of the other run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song-1.flac", "song-2.flac"]


def test_a_name_that_is_taken_at_the_last_moment_is_kept(acestep, monkeypatch):
    monkeypatch.setattr(song_command, "free_names", lambda: map(Path, ["song-1.flac", "song-2.flac"]))
    Path("song-1.flac").write_bytes(b"of the other run")
    assert acestep("piano", "--duration", 1, "-q")[1] == "song-2.flac\n"
    assert Path("song-1.flac").read_bytes() == b"of the other run"


def test_a_song_that_cannot_be_written_leaves_no_name(acestep, monkeypatch, tmp_path):
    def refuse(path, *_):
        assert path.read_bytes() == b""  # reserved
        raise RequestError(f"{path} cannot be written: no space left")

    monkeypatch.setattr(audio, "write_audio", refuse)
    assert acestep("piano", "--duration", 1)[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_replaced_gets_another_name(acestep, monkeypatch, tmp_path):
    """On Windows, a player that has the old file open prevents its replacement."""
    (tmp_path / "a-2.wav").write_bytes(b"old")
    replace = os.replace

    def refuse(source, target):
        if Path(target).name == "a-2.wav":
            raise PermissionError(13, "used by another process")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    code, out, err = acestep("piano", "--duration", 1, "--batch", 3, "--seed", 5, "-q", "-o", "a.wav")
    assert (code, out) == (0, "a-1.wav\na-2 (2).wav\na-3.wav\n")
    assert "a-2.wav" in err and "a-2 (2).wav" in err
    assert [read_settings(name)["seed"] for name in out.splitlines()] == [5, 6, 7]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.wav", "a-2 (2).wav", "a-2.wav", "a-3.wav"]


def test_a_song_that_cannot_be_written_does_not_stop_the_others(acestep, monkeypatch):
    write = audio.write_audio

    def refuse(path, waveform, sample_rate, settings):
        if settings["seed"] == 5:
            raise RequestError(f"{path} cannot be written: no space left")
        write(path, waveform, sample_rate, settings)

    monkeypatch.setattr(audio, "write_audio", refuse)
    code, out, err = acestep("piano", "--duration", 1, "--batch", 2, "--seed", 5, "-q", "-o", "a.wav")
    assert (code, out) == (2, "a-2.wav\n") and "no space left" in err


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        (["--duration", "0"], "duration"),
        (["--duration", "nan"], "duration"),
        (["--duration", "601"], "duration"),
        (["--steps", "0"], "steps"),
        (["--shift", "0"], "shift"),
        (["--shift=-1"], "shift"),
        (["--language", "xx"], "language 'xx'"),
        (["--key", "H"], "key 'H'"),
        (["--seed=-1"], "seed"),
        (["--seed", "4294967301"], "use 5"),
        (["--seed", "4294967295", "--batch", "2"], "4294967296"),
        (["--batch", "0"], "--batch"),
        (["--from", "-", "--codes", "-"], "--from and --codes"),
        (["--solver", "x"], "solver 'x'"),
        (["--guidance-method", "x"], "guidance method 'x'"),
        (["--guidance-start", "2"], "guidance start"),
        (["--dcw", "x"], "dcw 'x'"),
        (["--dcw-strength=-1"], "dcw strength"),
        (["--lyrics", "missing.txt"], "lyrics file missing.txt"),
        (["--from", "missing.flac"], "missing.flac"),
        (["-o", "song.aac"], ".wav, .flac, .ogg, .opus, .mp3, .m4a"),
        (["-o", "missing/song.wav"], "folder missing"),
        (["--device", "tpu"], "device 'tpu'"),
        (["--dtype", "int8"], "dtype 'int8'"),
        (["--storage", "int4"], "int8, fp8"),
    ],
)
def test_an_invalid_request_is_refused_before_a_model_is_loaded(acestep, monkeypatch, tmp_path, arguments, keywords):
    monkeypatch.setattr("acestep_core.checkpoints.build.load_network", None)
    model = ["--device", "cpu"] if "--device" not in arguments else []
    code, out, err = acestep("piano", *model, *arguments, model=False)
    assert (code, out) == (2, "")
    assert err.startswith("acestep: ") and keywords in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_lyrics_that_no_tag_can_hold_are_refused_before_the_song_is_made(acestep, monkeypatch):
    monkeypatch.setattr("acestep_core.checkpoints.build.load_network", None)
    Path("nul.txt").write_text("la\0la")
    code, out, err = acestep("piano", "--lyrics", "nul.txt", "--tags")
    assert (code, out) == (2, "") and "lyrics" in err and err.count("\n") == 1


def test_options_without_an_effect_are_noted(acestep):
    code, _, err = acestep("piano", "--duration", 1, "--steps", 1, "--dcw-strength", 0.5, "--one-gain")
    assert code == 0 and "dcw strength is ignored" in err and "--one-gain is ignored" in err


def test_a_missing_model_is_an_error(acestep):
    code, _, err = acestep("piano", "--model", "nothing-here", model=False)
    assert code == 1
    assert err.startswith("acestep: ") and "nothing-here" in err and err.count("\n") == 1


def test_a_missing_caption_is_a_usage_error(acestep):
    code, _, err = acestep(model=False)
    assert code == 2 and "caption" in err


def test_timesteps_must_be_numbers(acestep):
    assert "'1,a'" in acestep("piano", "--timesteps", "1,a")[2]


def test_lyrics_that_may_sound_poor_are_noted_and_sung(acestep, tmp_path):
    (tmp_path / "words.txt").write_text("[Vers\n" + "we are walking down the road\n" * 12, "utf-8")
    code, _, err = acestep("pop", "--lyrics", "words.txt", "--duration", 6, "--steps", 1, "-o", "a.wav")
    assert code == 0 and "bracket in line 1" in err and "syllables in 6 seconds" in err
    assert soundfile.info("a.wav").duration == 6
