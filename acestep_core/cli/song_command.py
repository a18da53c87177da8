"""The command that generates songs: `acestep "caption"`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..files import reserve
from .best_of import check_heads, keep_best, takes_of
from .edit_inputs import EditedRecording, check_recording_stays, find_recording, read_recording
from .finishing import finish_result, recorded_finish, with_ending
from .inputs import read_recipes
from .lora_commands import adapter_uses
from .parsers import song_parser
from .tagging import read_tag_options, with_song
from .terminal import Terminal, log_lines, printable, shortened

if TYPE_CHECKING:
    from torch import Tensor

    from ..audio.measured import MeasuredMusic
    from ..callbacks import Callbacks
    from ..pipeline import Model, Result
    from ..recipe import Recipe

Options = Mapping[str, Any]


def make_songs(arguments: Sequence[str], terminal: Terminal) -> None:
    """Generate songs and write them to files."""
    parser = song_parser()
    options = vars(parser.parse_args(arguments))
    if "caption" not in options and "from" not in options:
        parser.error('a caption or --from is required, for example: acestep "warm lo-fi piano"')
    with log_lines(terminal, options):
        _make_songs(options, terminal)


def _make_songs(options: Options, terminal: Terminal) -> None:
    recipes = read_recipes(options)
    folders = list(dict.fromkeys((Path(options.get("from", "")).parent, Path())))
    outputs = output_paths(options.get("output"), options.get("batch", 1) * len(recipes))
    recordings: list[EditedRecording | None] = []
    for recipe in recipes:
        if recipe.recorded_edit is None:
            recordings.append(None)
            continue
        path = find_recording(recipe.recorded_edit, folders)
        check_recording_stays(path, outputs)
        recordings.append(read_recording(recipe.recorded_edit, path))
    write_songs(recipes, recordings, options, terminal)


def write_songs(
    recipes: Sequence[Recipe],
    recordings: Sequence[EditedRecording | None],
    options: Options,
    terminal: Terminal,
) -> None:
    """Generate the songs of these recipes and write each to a file. Print the names. Raises RequestError.

    recordings: the recording that each song edits, or None.
    """
    from ..audio import check_audio_path
    from ..callbacks import Callbacks

    batch, quiet = options.get("batch", 1), options.get("quiet", False)
    takes = takes_of(options, recipes)
    paths = output_paths(options.get("output"), batch * len(recipes))
    for path in paths or [next(free_names())]:
        check_audio_path(path)
    tags = read_tag_options(options)
    for recipe in recipes:
        with_song(tags, recipe.song)  # raises RequestError before a song is made
    callbacks = Callbacks() if quiet else Callbacks(progress=terminal.progress)
    for note in lyric_notes(recipes):
        callbacks.warn(note)
    model = load_for_recipe(recipes[0], options, callbacks)
    if model.note and not quiet:
        terminal.line(shortened(model.note))
    if takes > batch:
        check_heads(model)
    shown_on = None if quiet else terminal
    failures = []
    for recipe, recording in zip(recipes, recordings, strict=True):
        result, scores, recording = generate_takes(model, recipe, recording, takes, batch, callbacks, shown_on)
        for each in finished_takes(result, recipe, recording, options, scores):
            settings, seconds = each.recipe.to_dict(), each.waveform.shape[-1] / result.sample_rate
            content = (each.waveform, result.sample_rate, settings, with_song(tags, each.recipe.song))
            try:
                path = _write(paths.pop(0) if paths else None, content if tags is not None else content[:3], terminal)
            except RequestError as error:  # the other songs are still to be written
                failures.append(error)
                continue
            print(path if quiet else f"{printable(str(path))}: {seconds:g} s, seed {each.recipe.seed}{each.levels}")
    if failures:
        raise failures[0]


def lyric_notes(recipes: Sequence[Recipe]) -> list[str]:
    """Return sentences about lyrics that may sound poor, before they are sung."""
    from ..lyrics.check import check_lyrics
    from ..text.prompts import DEFAULT_SECONDS

    notes: dict[str, None] = {}
    for recipe in recipes:
        song, metadata = recipe.song, recipe.song.metadata
        if recipe.recorded_edit is None and not recipe.codes:
            song = replace(song, metadata=replace(metadata, duration=metadata.duration or DEFAULT_SECONDS))
        notes.update(dict.fromkeys(check_lyrics(song)))
    return list(notes)


def generate_takes(
    model: Model,
    recipe: Recipe,
    recording: EditedRecording | None,
    takes: int,
    keep: int,
    callbacks: Callbacks,
    terminal: Terminal | None = None,
) -> tuple[Result, list[float | None], EditedRecording | None]:
    """Generate takes of a recipe and keep the best ones. Return them, their scores if there is a choice, and the edit.

    terminal: shows the scores as well.
    """
    from ..pipeline import generate

    song = with_ending(recipe)
    edited: dict[str, Any] = {"edit": recipe.edit}
    if recording is not None:
        recording = recording.located(model, song, callbacks)
        edited = recording.inputs(model, song, callbacks)
    result = generate(
        model,
        song,
        batch=takes,
        seed=recipe.seed,
        settings=recipe.settings,
        normalize=recipe.normalize,
        callbacks=callbacks,
        **edited,
    )
    if takes == keep:
        return result, [], recording
    result, scores = keep_best(model, result, keep, edited.get("edit"), callbacks, terminal)
    return result, scores, recording


@dataclass(frozen=True, eq=False)
class FinishedTake:
    """A song [2, samples] with its recipe and, for the user, its levels, tempo and key."""

    waveform: Tensor
    recipe: Recipe
    levels: str = ""
    music: MeasuredMusic | None = None


def finished_takes(
    result: Result,
    recipe: Recipe,
    recording: EditedRecording | None,
    options: Options,
    scores: Sequence[float | None] = (),
) -> Iterator[FinishedTake]:
    """Yield the songs of a result, finished as their recipe says. scores: of the takes, if they are compared."""
    finished = finish_result(result, recipe, options)
    for item, waveform in enumerate(result.waveform):
        written = replace(result.recipe(item), lyric_score=scores[item] if scores else None)
        if recording is not None:
            written = replace(written, recorded_edit=recording.edit, unrecorded=())
        if finished is None:
            yield FinishedTake(waveform, written)
            continue
        if with_ending(recipe) is not recipe.song:  # generated longer than it is asked for
            written = replace(written, song=recipe.song)
        song, music = finished[item]
        written = replace(written, finish=recorded_finish(recipe, song, options))
        yield FinishedTake(song.waveform, written, f", {song.after}, {music}", music)


def _write(path: Path | None, content: tuple[Any, ...], terminal: Terminal) -> Path:
    """Write the arguments of `write_audio` and return the path of the file. None is the next free number.

    If `path` cannot be replaced, such as a file in use, the song takes a free name.
    """
    from ..audio import write_audio

    names = free_names()
    if path is not None:
        try:
            write_audio(path, *content)
            return path
        except RequestError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            names = (path.with_name(f"{path.stem} ({number}){path.suffix}") for number in count(2))
            reason = error
    with reserve(names) as other:
        write_audio(other, *content)
    if path is not None:
        terminal.line(f"{reason}; the song is in {other}")
    return other


def load_for_recipe(recipe: Recipe, options: Options, callbacks: Callbacks) -> Model:
    """Load the model of a recipe, with the device and adapters of the options. Raises as `load_model` does."""
    from ..checkpoints.catalog import Kind
    from ..checkpoints.find import find_installed
    from ..checkpoints.installed import default_roots
    from ..pipeline import load_model
    from ..recipe import DTYPES
    from ..runtime.devices import Precision, pick_device

    device = pick_device(options.get("device", "auto"))
    dtypes = {name: recipe.origin[name] for name in DTYPES if name in recipe.origin}
    precision = Precision.pick(
        device,
        dit=dtypes.get("dtype", "auto"),
        text_encoder=dtypes.get("text_encoder_dtype"),
        vae=dtypes.get("vae_dtype"),
    )
    flags = ("offload", "stream", "graphs", "compile", "models_dir")
    load_options: dict[str, Any] = {name: options[name] for name in flags if name in options}
    for name in ("variant", "storage"):
        load_options[name] = recipe.origin.get(name)
    roots = default_roots(options.get("models_dir"))
    kinds = {"model": Kind.NETWORK, "vae": Kind.VAE, "text_encoder": Kind.TEXT_ENCODER}
    for name, kind in kinds.items():
        part = recipe.origin.get(name)
        if part is not None and name not in options:  # the file chose it
            part = find_installed(kind, part, roots)
        load_options[name] = part
    load_options["adapters"] = adapter_uses(recipe, options, roots)
    name_or_path = load_options.pop("model") or "nano"
    model = load_model(name_or_path, device=device, dtype=precision, **load_options, callbacks=callbacks)
    model.origin = {**model.origin, **dtypes}
    return model


def output_paths(output: str | None, count: int) -> list[Path]:
    """Return the paths of `count` songs, numbered if there are several: song-1, song-2, … Without an `output`: none."""
    if output is None:
        return []
    path = Path(output)
    if count == 1 or not path.name:  # check_audio_path refuses a folder such as "."
        return [path] * count
    return [path.with_name(f"{path.stem}-{i + 1}{path.suffix}") for i in range(count)]


def free_names() -> Iterator[Path]:
    """Yield song-N.flac in the current folder, with N above all numbers in use."""
    used = [re.fullmatch(r"song-(\d+)", path.stem) for path in Path().glob("song-*.*")]
    first = 1 + max((int(match[1]) for match in used if match), default=0)
    return (Path(f"song-{number}.flac") for number in count(first))
