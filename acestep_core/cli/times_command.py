"""The command that finds when each word of a song is sung: `acestep times`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from .inputs import read_recipes, settings_in_tags
from .parsers import times_parser
from .song_command import load_for_recipe
from .terminal import Terminal, log_lines, printable

if TYPE_CHECKING:
    from ..lyrics.times import LyricTimes


def time_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Print the times of a song's lyrics, or write them beside the song."""
    options = vars(times_parser().parse_args(arguments))
    with log_lines(terminal, options):
        _time_song(options, terminal)


def _time_song(options: dict[str, Any], terminal: Terminal) -> None:
    from ..audio import read_audio
    from ..callbacks import Callbacks
    from ..config import SAMPLE_RATE
    from ..lyrics.capture import lyric_times
    from ..lyrics.formats import check_formats, format_times, write_times
    from ..pipeline import encode, encode_audio

    path = Path(options.pop("file"))
    formats = check_formats(options.pop("formats", ""))
    waveform = read_audio(path)
    (recipe,) = read_recipes(options, [_text_of(path)])
    metadata = replace(recipe.song.metadata, duration=waveform.shape[-1] / SAMPLE_RATE)
    song = replace(recipe.song, metadata=metadata)
    if song.instrumental:
        raise RequestError(f"--lyrics: {path} has no lyrics in its tags; give a text file with the words that are sung")
    callbacks = Callbacks() if options.get("quiet") else Callbacks(progress=terminal.progress)
    model = load_for_recipe(recipe, options, callbacks)
    condition = encode(model, song, callbacks=callbacks)
    latents = encode_audio(model, waveform, SAMPLE_RATE, callbacks=callbacks)
    (times,) = lyric_times(model, latents, condition, callbacks=callbacks)
    if not options.get("quiet"):
        terminal.line(_summary(times))
    if not formats:
        print(printable(format_times(times, "lrc")), end="")
    for written in write_times(path, times, formats):
        print(printable(str(written)))


def _text_of(path: Path) -> dict[str, Any]:
    """Return the settings in a file's tags that matter for its text and model."""
    from ..recipe import PARTS

    tags = settings_in_tags(path)
    names = ("caption", "lyrics", "bpm", "key", "time_signature", "language", "variant", *PARTS)
    return {name: tags[name] for name in names if name in tags}


def _summary(times: LyricTimes) -> str:
    missing = ", ".join(str(i + 1) for i in times.missing)
    score = "" if times.score is None else f"score {times.score.value:.2f}, "
    return f"lyrics: {score}{len(times.lines)} lines" + (f", not found: {missing}" if missing else ", all found")
