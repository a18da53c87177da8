"""Label songs with the planner: fill what the text files of a folder do not say.

BPM and key are measured as well. A sure measurement replaces a value that it contradicts.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..audio import measure_music, read_audio
from ..audio.measured import UNSURE, same_key, same_tempo
from ..callbacks import Callbacks
from ..config import SAMPLE_RATE
from ..errors import RequestError, shown
from ..files import check_output_path, write_text
from ..load import Model
from ..pipeline import tokenize
from ..planner.load_planner import Planner, load_planner
from ..planner.writing import WrittenSong, understand
from ..runtime.devices import Precision, pick_device
from ..runtime.placement import Offload
from ..song.codes import Codes
from ..song.seeds import SEED_RANGE
from ..song.song import Metadata
from .checks import CheckedAudio, check_dataset
from .examples import JSON, Dataset, Problem, canonical_name, read_object
from .features import FeatureFolder, default_work_folder, encode_latents, weights_identity
from .model_parts import ModelParts
from .song_folder import read_dataset

LABELS = ("caption", "lyrics", "genre", "bpm", "key", "time_signature", "language")
LABELED = "labeled"  # the names of the fields that were written, in the JSON
MEASURED = "measured"  # the names of those that were measured in the sound
SURE = 0.5  # confidence of a measurement that replaces the planner's value


@dataclass(frozen=True)
class LabelReport:
    """The result of labelling.

    written: the JSON files. complete: number of songs that lacked nothing. problems: one sentence each.
    """

    written: tuple[Path, ...]
    complete: int
    problems: tuple[Problem, ...]


def label_songs(
    folder: str | Path,
    *,
    planner: str | Path = "nano",
    model: str | Path = "nano",
    fields: Sequence[str] = LABELS,
    seed: int = 0,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    storage: str | None = None,
    work: str | Path | None = None,
    models_dir: str | None = None,
    callbacks: Callbacks | None = None,
) -> LabelReport:
    """Write what the planner recognises into the JSON file of each song that lacks a field.

    folder: of audio files, as for `read_dataset`.
    planner, storage: as for `load_planner`. model: encodes the audio.
    fields: names of LABELS to fill.
    seed: of the planner.
    work: the folder of encoded audio, which a training uses too. By default its name is that of `folder` with `.train`.

    What a person wrote stays, in any of the files. Each song is written when it is done, so the next call continues an
    interrupted one. Songs whose audio or text cannot be read are left out.

    Raises RequestError, CheckpointError, NonFiniteError and Cancelled.
    """
    callbacks = callbacks or Callbacks()
    _check_fields(fields, seed)
    dataset = read_dataset(folder)
    if not dataset.path.is_dir():
        raise RequestError(f"label: {dataset.path} is a file; give the folder of the songs")
    checked = check_dataset(dataset, callbacks, need_captions=False)
    problems = list(checked.problems)
    open_songs = _open_songs(checked.dataset, checked.audio, fields)
    for audio, _ in open_songs:
        check_output_path(audio.path.with_suffix(JSON))
    written = []
    if open_songs:
        device = pick_device(device)
        parts = ModelParts(model, None, None, None, models_dir, callbacks)
        features = FeatureFolder((Path(work) if work is not None else default_work_folder(dataset.path)) / "features")
        codes = _codes(parts, [audio for audio, _ in open_songs], features, device, dtype, callbacks)
        loaded = load_planner(
            planner, device=device, dtype=dtype, storage=storage, models_dir=models_dir, callbacks=callbacks
        )
        for number, ((audio, missing), each) in enumerate(zip(open_songs, codes, strict=True), 1):
            try:
                song = _listen(loaded, each, seed, callbacks)
                measured = _measure(audio.path, song.song.metadata) if {"bpm", "key"} & set(missing) else {}
                written.append(_write_labels(audio.path, song, measured, missing))
            except RequestError as error:
                problems.append(Problem(audio.path, f"{audio.path}: {error}", left_out=True))
            callbacks.report("label", number, len(open_songs))
    return LabelReport(tuple(written), len(checked.audio) - len(open_songs), tuple(problems))


def _check_fields(fields: Sequence[str], seed: int) -> None:
    unknown = next((name for name in fields if name not in LABELS), None)
    if unknown is not None or not fields:
        raise RequestError(f"fields must be some of {', '.join(LABELS)}, got {shown(unknown or '')}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEED_RANGE:
        raise RequestError(f"seed must be a whole number from 0 to {SEED_RANGE - 1}, got {shown(seed)}")


def _open_songs(
    dataset: Dataset, audio: Sequence[CheckedAudio], fields: Sequence[str]
) -> list[tuple[CheckedAudio, list[str]]]:
    """Return each song that lacks fields, with their names."""
    songs = []
    for example, each in zip(dataset.examples, audio, strict=True):
        content = _content(each.path.with_suffix(JSON))
        present = {canonical_name(name) for name, value in content.items() if value not in (None, "")}
        done = {*example.sources, *present, *_labeled(content)}
        missing = [name for name in fields if name not in done]
        if missing:
            songs.append((each, missing))
    return songs


def _codes(
    parts: ModelParts,
    audio: Sequence[CheckedAudio],
    features: FeatureFolder,
    device: torch.device,
    dtype: str | torch.dtype,
    callbacks: Callbacks,
) -> list[Codes]:
    """Return the audio codes of each recording. The model leaves memory before the planner is loaded."""
    precision, placement = Precision.pick(device, dit=dtype), Offload(device)
    with_vae = functools.cache(lambda: Model(vae=parts.load_vae(device, precision.vae), placement=placement))
    identity = weights_identity([parts.vae], precision.vae)
    paths = encode_latents(with_vae, audio, features, identity, callbacks)
    model = Model(network=parts.load_network(precision.dit), placement=placement)
    quiet = Callbacks(cancelled=callbacks.cancelled, warning=callbacks.warning)
    return [tokenize(model, features.latents(path)[None], quiet)[0] for path in paths]


def _listen(planner: Planner, codes: Codes, seed: int, callbacks: Callbacks) -> WrittenSong:
    quiet = Callbacks(cancelled=callbacks.cancelled, warning=callbacks.warning)
    return understand(planner, codes, [seed], callbacks=quiet)[0]


def _measure(path: Path, metadata: Metadata) -> dict[str, int | str]:
    """Return the BPM and key of a recording where the planner has none, or where a sure measurement contradicts it."""
    music = measure_music(read_audio(path)[0], SAMPLE_RATE)
    values: dict[str, int | str] = {}
    agreed = metadata.bpm is not None and same_tempo(metadata.bpm, music.bpm)
    if music.bpm is not None and not agreed and music.bpm_confidence >= (SURE if metadata.bpm else UNSURE):
        values["bpm"] = round(music.bpm)
    agreed = metadata.key is not None and same_key(metadata.key, music.key, relative=True)
    if music.key is not None and not agreed and music.key_confidence >= (SURE if metadata.key else UNSURE):
        values["key"] = music.key
    return values


def _write_labels(path: Path, written: WrittenSong, measured: Mapping[str, int | str], missing: Sequence[str]) -> Path:
    """Add the missing fields to the JSON file of a song. Fields without a value stay open.

    measured: values that replace the planner's.
    """
    file = path.with_suffix(JSON)
    content = _content(file)  # as a person may have edited the file in the meantime
    song, metadata = written.song, written.song.metadata
    values: dict[str, Any] = {
        "caption": song.caption,
        "lyrics": song.prompt_lyrics,
        "genre": written.genres,
        "bpm": metadata.bpm,
        "key": metadata.key,
        "time_signature": metadata.time_signature,
        "language": metadata.language,
        **measured,
    }
    present = {canonical_name(name) for name, value in content.items() if value not in (None, "")}
    added = {name: values[name] for name in missing if name not in present}
    labeled = [*_labeled(content), *(name for name in added if name not in _labeled(content))]
    content = {**content, **added, LABELED: labeled}
    names = [*_names(content, MEASURED), *(name for name in measured if name in added)]
    if names:
        content[MEASURED] = list(dict.fromkeys(names))
    write_text(file, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    return file


def _content(file: Path) -> dict[str, Any]:
    return read_object(file) if file.exists() else {}


def _labeled(content: Mapping[str, Any]) -> list[str]:
    """Return the fields that were written. The original trainer has True or False there."""
    return _names(content, LABELED)


def _names(content: Mapping[str, Any], field: str) -> list[str]:
    names = content.get(field)
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
