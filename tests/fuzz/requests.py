"""Hostile requests: song files, audio codes, audio files with their tags, arguments of the command line."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import random
import tempfile
from pathlib import Path

import torch

from acestep_core.audio.audio_files import read_audio, read_settings, write_audio
from acestep_core.cli import main
from acestep_core.config import CODE_COUNT
from acestep_core.errors import RequestError
from acestep_core.recipe import Recipe
from acestep_core.song.song import Metadata, Song
from acestep_core.song.song_file import SavedSong, load_codes, load_songs, to_json
from tests.support import tiny

from .mutations import mutate_bytes, mutate_json, mutate_value, odd_value
from .run import Work

SONG = Song("warm lo-fi piano", "[Verse]\nslow river", Metadata(bpm=90, key="C minor", duration=12.0))
SAVED = SavedSong(SONG, (1, 2, 63_999), "lo-fi", 7, 0.5)
RECIPE = Recipe(SONG, 7, codes=(1, 2, 3)).to_dict()
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
OPTIONS = (
    "--lyrics", "--duration", "--codes", "--no-codes", "-o", "--seed", "--batch", "--normalize", "-q", "--steps",
    "--shift", "--guidance", "--guidance-method", "--solver", "--timesteps", "--vae", "--variant", "--device",
    "--dtype", "--vae-dtype", "--storage", "--stream", "--graphs", "--bpm", "--key", "--time-signature", "--language",
    "--from", "--best-of", "--negative-prompt", "--temperature", "--top-p", "--instrumental", "--tokenizer",
    "--lora", "--unknown", "--",
)  # fmt: skip
WORDS = (
    "", "7", "-1", "0", "nan", "inf", "1e400", "9" * 5000, "x" * 300, "a\0b", "\udcff", "song.json", ".", "/", "-1,2",
    "1,0.5,nan", "C minor", "euler", "cpu", "cuda:99", "float16", "int8", "base", "日本", "~nobody/x", "out.flac",
)  # fmt: skip


@functools.cache
def audio_file(suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"song{suffix}")
        write_audio(path, 0.3 * tiny.draw(2, 4800), settings=RECIPE)
        return path.read_bytes()


def songs_result(path: Path) -> str | None:
    songs = load_songs(path)
    if not all(0 <= code < CODE_COUNT for song in songs for code in song.codes):
        return "a code outside of the codebook"
    if "NaN" in (text := to_json(songs)) or "Infinity" in text:
        return f"a song with {text[:200]}"
    return None


def song_file(rng: random.Random, folder: Path) -> Work:
    path = folder / "song.json"
    text = to_json([SAVED] * rng.choice((1, 1, 2)))
    path.write_bytes(mutate_json(rng, text.encode()))
    return lambda: songs_result(path)


def code_file(rng: random.Random, folder: Path) -> Work:
    path = folder / "codes.txt"
    path.write_bytes(mutate_bytes(rng, rng.choice((b"<|audio_code_12|><|audio_code_7|>\n", b"1, 2, 63999\n5 6\n"))))

    def work() -> str | None:
        load_codes(path)
        return songs_result(path)

    return work


def audio_tags(rng: random.Random, folder: Path) -> Work:
    """Mutate the settings that the tag holds."""
    settings = json.loads(json.dumps(RECIPE))
    for _ in range(rng.choice((1, 1, 2))):
        settings = mutate_value(rng, settings)
    path = folder / f"song{rng.choice(SUFFIXES)}"
    write_audio(path, 0.3 * tiny.draw(2, 480), settings=settings)

    def work() -> str | None:
        recipe = Recipe.from_dict(read_settings(path))
        return None if all(0 <= code < CODE_COUNT for code in recipe.codes) else "a code outside of the codebook"

    return work


def audio_header(rng: random.Random, folder: Path) -> Work:
    suffix = rng.choice(SUFFIXES)
    path = folder / f"song{suffix}"
    path.write_bytes(mutate_bytes(rng, audio_file(suffix)))

    def work() -> str | None:
        with contextlib.suppress(Exception) if rng.random() < 0.5 else contextlib.nullcontext():
            Recipe.from_dict(read_settings(path))
        waveform = read_audio(path)
        if waveform.dim() != 3 or waveform.shape[:2] != (1, 2):
            return f"audio of {list(waveform.shape)}"
        return None if torch.isfinite(waveform).all() else "audio that is not finite"

    return work


def command_line(rng: random.Random, folder: Path) -> Work:
    """Run the command with a model that does not exist, so that valid arguments end in a sentence as well."""
    (folder / "song.json").write_bytes(mutate_json(rng, to_json([SAVED]).encode()))
    command = rng.choice(("", "", "plan", "write", "listen", "models", "loras"))
    arguments = [command] if command else []
    for _ in range(rng.randrange(6)):
        arguments.append(rng.choice(OPTIONS if rng.random() < 0.6 else WORDS))
    if rng.random() < 0.1:
        arguments.append(str(odd_value(rng))[:300].replace("\n", " "))  # argparse repeats the argument
    arguments += ["--models-dir", "nowhere"]
    if command not in ("models", "loras"):
        arguments += ["--planner" if command in ("plan", "write") else "--model", "no-such-model"]
    if command == "listen":
        arguments += ["--planner", "no-such-planner"]

    def work() -> str | None:
        before = os.getcwd()
        os.chdir(folder)
        messages = io.StringIO()
        try:
            with contextlib.redirect_stderr(messages), contextlib.redirect_stdout(io.StringIO()):
                code = main(arguments)
        except SystemExit as error:  # argparse prints the usage, then a sentence
            if error.code:
                raise RequestError(messages.getvalue().rpartition("error: ")[2].strip()) from error
            code = 0
        finally:
            os.chdir(before)
        if code in (1, 2):
            raise RequestError(messages.getvalue().partition("acestep: ")[2].strip())
        return None if code == 0 else f"exit code {code}"

    return work


TARGETS = {
    "song_file": song_file,
    "code_file": code_file,
    "audio_tags": audio_tags,
    "audio_header": audio_header,
    "command_line": command_line,
}
