"""ACE-Step 1.5: songs from text. The public functions and classes, loaded when they are first used.

>>> from acestep_core import Metadata, Song, generate, load_model, write_audio
>>> result = generate(load_model("nano"), Song("warm lo-fi piano", metadata=Metadata(duration=10)), seed=7)
>>> write_audio("song.flac", result.waveform[0], settings=result.recipe().to_dict())
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_WHERE = {
    "Metadata": "song.song",
    "Song": "song.song",
    "SamplingSettings": "sampling.settings",
    "Precision": "runtime.devices",
    "Callbacks": "callbacks",
    "Progress": "callbacks",
    "Edit": "edit.edit",
    "Morph": "edit.morph",
    "extend": "edit.source",
    "MorphSettings": "edit.morph",
    "reference_audio": "audio.reference",
    "Model": "pipeline",
    "Result": "pipeline",
    "load_model": "pipeline",
    "encode": "pipeline",
    "sample": "pipeline",
    "decode": "pipeline",
    "encode_audio": "pipeline",
    "tokenize": "pipeline",
    "generate": "pipeline",
    "Recipe": "recipe",
    "read_audio": "audio",
    "read_settings": "audio",
    "write_audio": "audio",
    "AceStepError": "errors",
    "RequestError": "errors",
    "CheckpointError": "errors",
    "NonFiniteError": "errors",
    "Cancelled": "errors",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
