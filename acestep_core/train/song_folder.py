"""Read a dataset: a folder of songs, or a dataset file of the original trainer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..errors import RequestError
from .dataset_json import read_dataset_json
from .examples import AUDIO, CAPTION, JSON, LRC, LYRICS, Dataset, Example, Problem, read_example


def read_dataset(path: str | Path, *, trigger: str | None = None, place: str | None = None) -> Dataset:
    """Read the songs of a folder, or of a dataset file of the original trainer.

    trigger, place: instead of those of the file, see `Dataset`. A folder has none.

    Songs whose text cannot be read are left out, with a sentence in `problems`. Raises RequestError if there is no
    audio at all, or the file is no dataset.
    """
    path = Path(path).expanduser()
    dataset = read_dataset_json(path) if path.suffix.lower() == JSON and not path.is_dir() else _read_folder(path)
    return replace(
        dataset,
        trigger=dataset.trigger if trigger is None else trigger,
        place=dataset.place if place is None else place,
    )


def _read_folder(folder: Path) -> Dataset:
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "does not exist"
        raise RequestError(f"dataset: {folder} {kind}; give a folder of audio files, or a dataset in JSON")
    found = list(audio_files(folder))
    if not found:
        raise RequestError(f"dataset: {folder} has no audio files; expected {', '.join(AUDIO[:5])} or others")
    examples: list[Example] = []
    problems: list[Problem] = []
    names: dict[str, Path] = {}
    for path in found:
        try:
            str(path).encode("utf-8")
        except UnicodeEncodeError:
            problems.append(Problem(path, f"{str(path)!r} is no valid UTF-8; rename the file", left_out=True))
            continue
        same = names.setdefault(str(path.with_suffix("")).casefold(), path)
        if same is not path:
            sentence = f"{path} has the same name as {same.name}, so both would share their text files; rename one"
            problems.append(Problem(path, sentence, left_out=True))
            continue
        example, found_problems = read_example(path)
        problems += found_problems
        examples += [] if example is None else [example]
    problems += [
        Problem(file, f"{file} belongs to no audio file; it should have the name of one")
        for file in _text_files(folder)
        if str(_without_suffix(file)).casefold() not in names
    ]
    return Dataset(folder, tuple(examples), problems=tuple(problems))


def _text_files(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files) if name.lower().endswith((CAPTION, LRC)))


def _without_suffix(file: Path) -> Path:
    suffix = next(each for each in (LYRICS, CAPTION, LRC) if file.name.lower().endswith(each))
    return file.with_name(file.name[: -len(suffix)])


def audio_files(folder: Path) -> Iterator[Path]:
    """Yield the audio files of a folder and its folders in alphabetical order, without hidden ones."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(AUDIO) and not name.startswith("."):
                yield Path(place, name)
