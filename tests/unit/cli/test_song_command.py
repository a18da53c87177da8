import io
import os
import re
from pathlib import Path

import pytest
import soundfile
import torch

from acestep_core import cli, pipeline, read_settings
from acestep_core.callbacks import Progress
from acestep_core.cli import inputs as cli_input
from acestep_core.cli.terminal import Terminal
from tests.support import tiny_checkpoint, tiny_text

tiny_tokenizer_dir = tiny_text.tiny_tokenizer_dir


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_tokenizer_dir):
    root = tmp_path_factory.mktemp("models")
    tiny_checkpoint.write_tiny_checkpoint(root, tiny_tokenizer_dir)
    return root


@pytest.fixture
def acestep(models, tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder, on the tiny model; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model=True):
        extra = ["--model", str(models), "--device", "cpu", "--dtype", "float32"] if model else []
        try:
            code = cli.main([*map(str, arguments), *extra])
        except SystemExit as stop:  # argparse
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


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
    wanted = {"seed": 7, "bpm": 90, "key": "C# minor", "time_signature": "3", "language": "en", "duration": 2.0}
    assert settings.items() >= (wanted | {"steps": 2, "shift": 2.0, "normalize": False}).items()
    assert settings["model"] == models.name  # where it lies is nobody's business
    assert tiny_checkpoint.NOTE in err
    for stage in ("load diffusion model", "load text encoder", "load VAE", "encode", "sample", "decode"):
        assert re.search(rf"^{stage} .*█ .*0:\d\d$", err, re.MULTILINE)


def test_lyrics_from_standard_input_are_utf_8_whatever_the_console_speaks(monkeypatch):
    old = io.TextIOWrapper(io.BytesIO("\ufeff夜の歌".encode()), encoding="cp1252")
    monkeypatch.setattr("sys.stdin", old)
    assert read({"caption": "x", "lyrics": "-"}).song.lyrics == "夜の歌"


def test_a_song_is_made_again_from_its_file(acestep, models, tmp_path):
    acestep("warm piano", "--duration", 1, "--solver", "sde", "-o", "a.wav")
    where = ("--models-dir", models.parent, "--device", "cpu")
    code, _, _ = acestep("--from", "a.wav", *where, "-o", "b.wav", model=False)
    assert code == 0  # the model's name is in the file, and the dtype that was chosen
    assert read_settings("b.wav")["dtype"] == "float32"
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    acestep("--from", "a.wav", "--seed", 3, "other words", "-o", "c.wav")
    changed, kept = read_settings("c.wav"), read_settings("a.wav")
    assert (changed["seed"], changed["caption"]) == (3, "other words")
    assert (changed["solver"], changed["duration"]) == (kept["solver"], kept["duration"]) == ("sde", 1.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"songs": []}', "holds no songs: it is empty"),
        ("", "holds no songs: it is empty"),
        ("{}", "holds no words of a song: say how it shall sound"),
        ('{"songs": [{"caption": "piano"}, {"bpm": 90}]}', "holds no words of a song"),
    ],
)
def test_a_file_that_says_nothing_is_refused(acestep, tmp_path, content, message):
    (tmp_path / "s.json").write_text(content)
    code, _, err = acestep("--from", "s.json")
    assert code == 2 and f"s.json {message}" in err


def test_words_may_come_from_the_command_line(tmp_path):
    (tmp_path / "s.json").write_text('{"bpm": 90}')
    song = read({"from": str(tmp_path / "s.json"), "caption": "piano"}).song
    assert (song.caption, song.metadata.bpm) == ("piano", 90)


def test_times_that_are_no_numbers_are_refused(acestep):
    assert "numbers from 1 down to 0 such as 1,0.7,0.4, got '1,a'" in acestep("piano", "--timesteps", "1,a")[2]


def test_the_storage_is_part_of_what_makes_a_song(acestep, models, tmp_path):
    for name, options in (("a", ["--storage", "int8", "--stream"]), ("b", [])):
        assert acestep("piano", "--duration", 1, "--seed", 7, "--steps", 2, *options, "-o", f"{name}.wav")[0] == 0
    assert read_settings("a.wav")["storage"] == "int8" and "storage" not in read_settings("b.wav")
    acestep("--from", "a.wav", "--models-dir", models.parent, "--device", "cpu", "-o", "c.wav", model=False)
    first, without, again = ((tmp_path / f"{name}.wav").read_bytes() for name in "abc")
    assert first == again != without


def test_explicit_sampling_replaces_what_it_contradicts(acestep):
    acestep("piano", "--duration", 1, "--timesteps", "0.9,0.5", "-o", "a.wav")
    assert read_settings("a.wav")["timesteps"] == [0.9, 0.5]
    _, _, err = acestep("--from", "a.wav", "--steps", 2, "-o", "b.wav")
    assert "timesteps" not in read_settings("b.wav") and read_settings("b.wav")["steps"] == 2
    _, _, err = acestep("--from", "b.wav", "--timesteps", "0.9 0", "-o", "c.wav")
    assert "ignored" not in err
    assert read_settings("c.wav")["timesteps"] == [0.9, 0.0] and "steps" not in read_settings("c.wav")


def test_sampling_of_a_file_is_not_carried_to_another_model(monkeypatch):
    made_by_turbo = {"caption": "x", "seed": 1, "model": "turbo", "steps": 8, "guidance_scale": 1.0, "solver": "heun"}
    monkeypatch.setattr("acestep_core.audio.read_settings", lambda path: made_by_turbo)
    settings = read({"from": "x.flac", "model": "base"}).settings
    assert (settings.steps, settings.guidance_scale, settings.solver) == (None, None, "heun")
    assert read({"from": "x.flac"}).settings.steps == 8


def test_another_variant_brings_its_own_sampling(monkeypatch):
    made = {"caption": "x", "seed": 1, "model": "mine", "vae": "my-vae", "variant": "turbo", "steps": 8, "shift": 2.0}
    monkeypatch.setattr("acestep_core.audio.read_settings", lambda path: made)
    recipe = read({"from": "x.flac", "variant": "base"})
    assert (recipe.settings.steps, recipe.settings.shift) == (None, None)
    assert recipe.origin == {"model": "mine", "vae": "my-vae", "variant": "base"}
    for same in ({"variant": "turbo"}, {"model": "/somewhere/else/mine"}):
        assert read({"from": "x.flac", **same}).settings.steps == 8
    del made["variant"]
    made["model"] = "turbo"
    assert read({"from": "x.flac", "variant": "turbo"}).settings.steps == 8
    assert read({"from": "x.flac", "variant": "base"}).settings.steps is None


def test_names_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [str(path) for path in cli.output_paths("out/song.ogg", 2)]
    assert names == ["out/song-1.ogg", "out/song-2.ogg"]
    assert [str(path) for path in cli.output_paths("song.ogg", 1)] == ["song.ogg"]
    assert [str(path) for count in (1, 2) for path in cli.output_paths(".", count)] == [".", "."]
    assert [str(path) for path in cli.output_paths(None, 1)] == ["song-1.flac"]
    (tmp_path / "song-4.wav").touch()
    assert [str(path) for path in cli.output_paths(None, 2)] == ["song-5.flac", "song-6.flac"]


def test_a_batch_counts_seeds_up_and_quiet_prints_names_only(acestep):
    code, out, err = acestep("piano", "--duration", 1, "--batch", 2, "--seed", 5, "--quiet")
    assert (code, out, err) == (0, "song-1.flac\nsong-2.flac\n", "")
    assert [read_settings(f"song-{i}.flac")["seed"] for i in (1, 2)] == [5, 6]
    _, out, _ = acestep("piano", "--duration", 1, "-q")
    assert out == "song-3.flac\n"


def test_a_file_that_cannot_be_replaced_loses_no_song(acestep, monkeypatch, tmp_path):
    """As on Windows, where a player that has the old file open keeps it from being replaced."""
    (tmp_path / "a-2.wav").write_bytes(b"old")
    replace = os.replace

    def refuse(source, target):
        if Path(target).name == "a-2.wav":
            raise PermissionError(13, "used by another process")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    code, out, err = acestep("piano", "--duration", 1, "--batch", 3, "--seed", 5, "-q", "-o", "a.wav")
    assert (code, out) == (0, "a-1.wav\na-2 (2).wav\na-3.wav\n")
    assert "cannot write a-2.wav" in err and "the song is in a-2 (2).wav" in err
    assert [read_settings(name)["seed"] for name in out.splitlines()] == [5, 6, 7]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.wav", "a-2 (2).wav", "a-2.wav", "a-3.wav"]


def test_a_song_that_cannot_be_written_at_all_loses_no_other(acestep, monkeypatch):
    from acestep_core import audio

    write = audio.write_audio

    def refuse(path, waveform, sample_rate, settings):
        if settings["seed"] == 5:
            raise audio.files.RequestError(f"cannot write {path}: no space left")
        write(path, waveform, sample_rate, settings)

    monkeypatch.setattr(audio, "write_audio", refuse)
    code, out, err = acestep("piano", "--duration", 1, "--batch", 2, "--seed", 5, "-q", "-o", "a.wav")
    assert (code, out) == (2, "a-2.wav\n") and "no space left" in err


def test_verbose_logs_one_line_for_each_phase(acestep):
    _, _, err = acestep("piano", "--duration", 1, "-v")
    for phase in ("encode", "sample", "decode"):
        assert len(re.findall(rf"^{phase}: \d+\.\d\d s, cpu, float32, .*$", err, re.MULTILINE)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--duration", "0"], "duration must be more than 0 and at most 600 seconds"),
        (["--duration", "nan"], "duration must be more than 0"),
        (["--duration", "601"], "duration must be more than 0"),
        (["--steps", "0"], "steps is a whole number from 1 to 1000, got 0"),
        (["--shift", "0"], "shift is a number above 0"),
        (["--shift=-1"], "shift is a number above 0"),
        (["--language", "xx"], "unknown language 'xx'"),
        (["--key", "H"], "unknown key 'H'"),
        (["--seed=-1"], "a seed is a whole number from 0"),
        (["--batch", "0"], "--batch must be at least 1, got 0"),
        (["--from", "-", "--codes", "-"], "--from and --codes cannot both be read from standard input"),
        (["--solver", "x"], "unknown solver 'x'; known: euler"),
        (["--guidance-method", "x"], "unknown guidance method 'x'; known: apg"),
        (["--lyrics", "missing.txt"], "the lyrics file missing.txt cannot be read"),
        (["--from", "missing.flac"], "there is no audio file missing.flac"),
        (["-o", "song.aac"], "the name must end in .wav, .flac, .ogg, .mp3"),
        (["-o", "missing/song.wav"], "the folder missing does not exist"),
        (["--device", "tpu"], "device 'tpu' is not available; available here: "),
        (["--dtype", "int8"], "dtype 'int8' is unknown"),
        (["--storage", "int4"], "storage 'int4' is unknown; choose int8, fp8 or none"),
    ],
)
def test_a_bad_request_is_one_sentence_before_anything_is_loaded(acestep, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setattr(pipeline, "load_model", None)
    model = ["--device", "cpu"] if "--device" not in arguments else []
    code, out, err = acestep("piano", *model, *arguments, model=False)
    assert (code, out) == (2, "")
    assert err.startswith("acestep: ") and message in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_model_is_one_sentence_and_exit_code_1(acestep):
    code, _, err = acestep("piano", "--model", "nothing-here", model=False)
    assert code == 1
    assert err.startswith("acestep: ") and "nothing-here" in err and err.count("\n") == 1


def test_no_caption_is_a_usage_error(acestep):
    code, _, err = acestep(model=False)
    assert code == 2 and "say how the song shall sound" in err


def test_how_it_runs_is_the_affair_of_the_model(acestep, monkeypatch):
    asked = {}

    def load(*_, **options):
        asked.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "load_model", load)
    ways = ("offload", "stream", "graphs", "compile")
    for way in ways:
        acestep("piano", f"--{way}")
        assert [other for other in ways if asked[other]] == [way]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "acestep: stopped\n"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore"), 1, "try --storage int8"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), 1, "out of memory"),
    ],
)
def test_interruptions_end_cleanly(acestep, monkeypatch, tmp_path, error, code, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(pipeline, "generate", fail)
    got, out, err = acestep("piano", "--duration", 1)
    assert (got, out) == (code, "") and message in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_bug_is_not_hidden(acestep, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(pipeline, "generate", fail)
    with pytest.raises(RuntimeError, match="illegal"):
        acestep("piano", "--duration", 1)


def test_models_are_listed_with_where_they_are(acestep, models):
    code, out, _ = acestep("models", "--models-dir", models, model=False)
    assert code == 0
    assert re.search(r"^✓ turbo  .*\n.*steps 8, shift 3, guidance 1\n +.*acestep-v15-turbo$", out, re.MULTILINE)
    assert re.search(r"^  base  .*\n.*\n +from ACE-Step/acestep-v15-base$", out, re.MULTILINE)
    assert re.search(r"^  vae  .*\n +from ACE-Step/Ace-Step1.5: vae$", out, re.MULTILINE) or "✓ vae" in out
    assert "from Comfy-Org/ace_step_1.5_ComfyUI_files: split_files/vae/ace_1.5_vae.safetensors\n" in out
    assert re.search(r"^✓ tokenizer .* ~16 MB  ", out, re.MULTILINE)
    assert f"Looked in {models}" in out


def test_an_unknown_download_is_refused(acestep):
    code, _, err = acestep("download", "nothing", model=False)
    assert code == 2 and "unknown model 'nothing'" in err


def read(given):
    (recipe,) = cli_input.read_recipes(given)
    return recipe


class Screen(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_on_a_terminal_the_bar_is_redrawn_and_lines_go_below_it():
    screen = Screen()
    terminal = Terminal(screen)
    terminal.progress(Progress("sample", 1, 2))
    terminal.line("a warning")
    terminal.progress(Progress("sample", 2, 2))
    first, warning, second, rest = screen.getvalue().split("\n")
    assert first.startswith("\rsample ") and "1/2" in first and "2/2" in second
    assert (warning, rest) == ("a warning", "")


def test_the_bar_of_a_planner_shows_how_fast_it_writes(monkeypatch):
    clock = iter([0.0, 1.0, 5.0, 5.0, 7.0])
    monkeypatch.setattr("acestep_core.callbacks.time.perf_counter", lambda: next(clock))
    screen = Screen()
    terminal = Terminal(screen)
    for stage, tokens in (("write", 40), ("write", 50), ("write", 60), ("codes", 4), ("codes", 8)):
        terminal.progress(Progress(stage, tokens, 60 if stage == "write" else 8, tokens=tokens))
    shown = [int(rate) for rate in re.findall(r" (\d+) tokens/s", screen.getvalue())]
    assert shown == [0, 10, 4, 0, 2]  # what was there at the first look, was not written since then
    terminal.progress(Progress("decode", 1, 1))
    assert "tokens" not in screen.getvalue().splitlines()[-1]


def test_nothing_is_left_of_a_longer_rate(monkeypatch):
    clock = iter([0.0, 0.1, 10.0])
    monkeypatch.setattr("acestep_core.callbacks.time.perf_counter", lambda: next(clock))
    screen = Screen()
    terminal = Terminal(screen)
    for tokens in (1, 101, 111):
        terminal.progress(Progress("codes", tokens, 1000, tokens=tokens))
    first, second, third = screen.getvalue().split("\r")[1:]
    assert "1000 tokens/s" in second and len(third) >= len(second)


def test_bytes_are_shown_as_a_share():
    stream = io.StringIO()
    Terminal(stream).progress(Progress("load", 4_000_000_000, 4_000_000_000))
    assert "100%" in stream.getvalue()
