"""ACE-Step 1.5: songs from text. Public functions and classes are imported at their first use.

>>> from acestep_core import Metadata, Song, generate, load_model, write_audio
>>> result = generate(load_model("nano"), Song("warm lo-fi piano", metadata=Metadata(duration=10)), seed=7)
>>> write_audio("song.flac", result.waveform[0], settings=result.recipe().to_dict())
"""

# ruff: noqa: F401

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers, which do not see `__getattr__`
    from .adapters.adapter import Adapter, AdapterReport
    from .adapters.adapter_file import read_adapter
    from .adapters.merge import AdapterUse
    from .audio import (
        Finish,
        FinishedSong,
        Loudness,
        MeasuredMusic,
        MusicFilter,
        Tags,
        finish_songs,
        measure_loudness,
        measure_music,
        read_audio,
        read_settings,
        read_tags,
        write_audio,
    )
    from .audio.reference import reference_audio
    from .callbacks import Callbacks, Progress
    from .edit.edit import Edit
    from .edit.morph import Morph, MorphSettings
    from .edit.source import extend
    from .errors import AceStepError, Cancelled, CheckpointError, NonFiniteError, RequestError
    from .load import Model, load_model, with_adapters
    from .lyrics.capture import lyric_times
    from .lyrics.check import check_lyrics, estimate_duration
    from .lyrics.formats import format_times, parse_times
    from .lyrics.scores import LyricScore, Ranking, rank_takes
    from .lyrics.times import LyricTimes, TimedLine, TimedSection, TimedWord
    from .lyrics.where import NamedRegion, find_regions
    from .pipeline import Result, decode, encode, encode_audio, generate, sample, tokenize
    from .recipe import Recipe
    from .runtime.devices import Precision
    from .sampling.settings import SamplingSettings
    from .song.song import Metadata, Song
    from .train.checks import CheckedAudio, CheckedDataset, check_dataset
    from .train.dataset_json import write_dataset_json
    from .train.examples import Dataset, Example, Problem
    from .train.labels import LabelReport, label_songs
    from .train.results import TrainedAdapter
    from .train.song_folder import read_dataset
    from .train.train_adapter import SampleSongs, train_adapter
    from .train.train_settings import TrainSettings
    from .train.train_state import LossRow

    __version__: str

_NAMES = {
    "adapters.adapter": "Adapter AdapterReport",
    "adapters.adapter_file": "read_adapter",
    "adapters.merge": "AdapterUse",
    "audio": "Finish FinishedSong Loudness MeasuredMusic MusicFilter Tags finish_songs measure_loudness measure_music "
    "read_audio read_settings read_tags write_audio",
    "audio.reference": "reference_audio",
    "callbacks": "Callbacks Progress",
    "edit.edit": "Edit",
    "edit.morph": "Morph MorphSettings",
    "edit.source": "extend",
    "errors": "AceStepError Cancelled CheckpointError NonFiniteError RequestError",
    "load": "Model load_model with_adapters",
    "lyrics.capture": "lyric_times",
    "lyrics.check": "check_lyrics estimate_duration",
    "lyrics.formats": "format_times parse_times",
    "lyrics.scores": "LyricScore Ranking rank_takes",
    "lyrics.times": "LyricTimes TimedLine TimedSection TimedWord",
    "lyrics.where": "NamedRegion find_regions",
    "pipeline": "Result decode encode encode_audio generate sample tokenize",
    "recipe": "Recipe",
    "runtime.devices": "Precision",
    "sampling.settings": "SamplingSettings",
    "song.song": "Metadata Song",
    "train.checks": "CheckedAudio CheckedDataset check_dataset",
    "train.dataset_json": "write_dataset_json",
    "train.examples": "Dataset Example Problem",
    "train.labels": "LabelReport label_songs",
    "train.results": "TrainedAdapter",
    "train.song_folder": "read_dataset",
    "train.train_adapter": "SampleSongs train_adapter",
    "train.train_settings": "TrainSettings",
    "train.train_state": "LossRow",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _read_version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def _read_version() -> str:
    """Return the version in pyproject.toml, its one place. ComfyUI runs this package uninstalled, beside that file."""
    import re
    from importlib import metadata
    from pathlib import Path

    project = Path(__file__).parents[1] / "pyproject.toml"
    if not project.is_file():
        return metadata.version("acestep-nodes")
    match = re.search(r'^version = "(.+)"$', project.read_text("utf-8"), re.MULTILINE)
    return match[1] if match else "unknown"


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
