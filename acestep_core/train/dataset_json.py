"""The dataset file of ACE-Step's original trainer, read and written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..files import check_output_path, write_text
from ..song.song import INSTRUMENTAL
from .examples import Dataset, Example, Problem, checked_fields, example_of, read_object

_OVERRIDES = {None: None, True: "genre", False: "caption"}


def read_dataset_json(path: Path) -> Dataset:
    """Read a dataset file. Paths of audio are relative to the folder of the file. Raises RequestError."""
    content = read_object(path)
    samples, metadata = content.get("samples"), content.get("metadata", {})
    if not isinstance(samples, list) or not isinstance(metadata, dict):
        raise RequestError(f"{path} is no dataset of the original trainer: expected `metadata` and a list `samples`")
    examples: list[Example] = []
    problems: list[Problem] = []
    for number, sample in enumerate(samples, 1):
        audio = _audio_path(sample, path.parent)
        if audio is None:
            problems.append(Problem(path, f"{path}: sample {number} has no audio_path", left_out=True))
        elif any(audio == each.path for each in examples):
            problems.append(Problem(audio, f"{path}: sample {number} repeats {audio}", left_out=True))
        else:
            values = checked_fields(_with_lyrics(sample), path, problems)
            examples.append(example_of(audio, values, path))
    if not samples:
        raise RequestError(f"dataset: {path} has no samples")
    tag, ratio = metadata.get("custom_tag", ""), metadata.get("genre_ratio", 0)
    place = metadata.get("tag_position", "prepend")
    try:
        return Dataset(path, tuple(examples), tag or "", place or "prepend", ratio or 0, tuple(problems))
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error


def _audio_path(sample: object, folder: Path) -> Path | None:
    """Return the audio file of a sample: its path, or its name in the folder of the dataset file."""
    if not isinstance(sample, dict):
        return None
    given, name = sample.get("audio_path"), sample.get("filename")
    texts = [text for text in (given, name) if isinstance(text, str) and text.strip() and "\0" not in text]
    paths = [folder / text for text in texts]
    return next((path for path in paths if os.path.isfile(path)), paths[0] if paths else None)


def _with_lyrics(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample with the lyrics that the original trainer uses. Theirs may say that a song has none."""
    lyrics = next(
        (sample[name] for name in ("lyrics", "formatted_lyrics", "raw_lyrics") if isinstance(sample.get(name), str)
         and sample[name].strip()),
        None,
    )  # fmt: skip
    return {**sample, "lyrics": lyrics}


def write_dataset_json(dataset: Dataset, path: str | Path, durations: Mapping[Path, float] | None = None) -> Path:
    """Write a dataset for the original trainer and return the path.

    durations: seconds of each audio file. Raises RequestError.
    """
    path = check_output_path(path, ".json")
    content = {
        "metadata": {
            "name": dataset.name,
            "custom_tag": dataset.trigger,
            "tag_position": dataset.place,
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "num_samples": len(dataset.examples),
            "all_instrumental": all(each.song.instrumental for each in dataset.examples),
            "genre_ratio": dataset.genre_ratio,
        },
        "samples": [_sample(each, path.parent, (durations or {}).get(each.path)) for each in dataset.examples],
    }
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    return path


def _sample(example: Example, folder: Path, duration: float | None) -> dict[str, Any]:
    song, metadata = example.song, example.song.metadata
    lyrics = INSTRUMENTAL if song.instrumental else song.lyrics
    audio = _relative(example.path, folder)
    return {
        "id": hashlib.sha256(audio.encode("utf-8", "surrogateescape")).hexdigest()[:8],
        "audio_path": audio,
        "filename": example.path.name,
        "caption": song.caption,
        "genre": example.genre,
        "lyrics": lyrics,
        "raw_lyrics": "" if song.instrumental else song.lyrics,
        "formatted_lyrics": lyrics,
        "bpm": metadata.bpm,
        "keyscale": metadata.key or "",
        "timesignature": metadata.time_signature or "",
        "duration": 0 if duration is None else int(duration),
        "language": metadata.language or "unknown",
        "is_instrumental": song.instrumental,
        "custom_tag": example.trigger,
        "labeled": bool(song.caption.strip()),
        "prompt_override": _OVERRIDES[example.use_genre],
    }


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.abspath(path)).relative_to(os.path.abspath(folder)).as_posix()
    except ValueError:
        return os.path.abspath(path)
