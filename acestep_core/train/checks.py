"""Check the audio of a dataset before anything is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..audio import check_waveform, read_audio, sample_rate_of
from ..callbacks import Callbacks
from ..config import FRAME_RATE, MIN_FRAMES, SAMPLE_RATE
from ..errors import RequestError
from ..song.song import TRAINED_MIN_SECONDS
from .examples import Dataset, Problem

MIN_SECONDS = MIN_FRAMES / FRAME_RATE
_LOW_RATE = 32_000  # Hz
_FEW = 5  # songs; fewer are learned by heart


@dataclass(frozen=True)
class CheckedAudio:
    """A readable audio file: its path, length in seconds and the SHA-256 of its bytes."""

    path: Path
    seconds: float
    sha256: str


@dataclass(frozen=True)
class CheckedDataset:
    """A dataset without the songs that cannot be trained on, the audio of each song, and every problem."""

    dataset: Dataset
    audio: tuple[CheckedAudio, ...]
    problems: tuple[Problem, ...]

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self.audio)

    def require_songs(self) -> None:
        """Raise RequestError if no song is left."""
        if not self.audio:
            reasons = "; ".join(problem.sentence for problem in self.problems if problem.left_out)
            raise RequestError(f"dataset: no song of {self.dataset.path} can be trained on: {reasons}")


def check_dataset(
    dataset: Dataset, callbacks: Callbacks | None = None, *, need_captions: bool = True
) -> CheckedDataset:
    """Read each audio file, and return the songs to train on and one sentence for each problem. Raises Cancelled.

    need_captions: False keeps songs without text, to label them.
    """
    callbacks = callbacks or Callbacks()
    problems = list(dataset.problems)
    examples, audio = [], []
    hashes: dict[str, Path] = {}
    some_lyrics = need_captions and any("lyrics" in example.sources for example in dataset.examples)
    for number, (example, song) in enumerate(zip(dataset.examples, dataset.songs(), strict=True), 1):
        callbacks.check("check")
        path = example.path
        try:
            checked, notes = _check_audio(path)
            if need_captions and not song.caption.strip():
                raise RequestError(
                    f"{path} has no caption: write {path.with_suffix('.txt').name} beside it, run `acestep label`, "
                    "or give a trigger word"
                )
        except RequestError as error:
            problems.append(Problem(path, str(error), left_out=True))
        else:
            same = hashes.setdefault(checked.sha256, path)
            if same is not path:
                problems.append(Problem(path, f"{path} is the same recording as {same}", left_out=True))
            else:
                if some_lyrics and "lyrics" not in example.sources:
                    notes.append(f"{path} has no lyrics, so it is trained as an instrumental")
                problems += [Problem(path, sentence) for sentence in notes]
                examples.append(example)
                audio.append(checked)
        callbacks.report("check", number, len(dataset.examples))
    if need_captions and examples and not some_lyrics:
        sentence = f"{dataset.path} has no lyrics, so all songs are trained as instrumentals"
        problems.append(Problem(dataset.path, sentence))
    if need_captions and 0 < len(examples) < _FEW:
        count = "one song" if len(examples) == 1 else f"{len(examples)} songs"
        sentence = f"{dataset.path} has only {count} to train on; ten or more give a better adapter"
        problems.append(Problem(dataset.path, sentence))
    return CheckedDataset(replace(dataset, examples=tuple(examples)), tuple(audio), tuple(problems))


def _check_audio(path: Path) -> tuple[CheckedAudio, list[str]]:
    """Read an audio file and return what is worth a sentence. Raises RequestError."""
    notes = []
    waveform = read_audio(path)
    try:
        check_waveform(waveform, SAMPLE_RATE)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None
    seconds = waveform.shape[-1] / SAMPLE_RATE
    if seconds < MIN_SECONDS:
        raise RequestError(f"{path} lasts {seconds:.1f} seconds; a song to train on needs at least {MIN_SECONDS:g}")
    if seconds < TRAINED_MIN_SECONDS:
        notes.append(f"{path} lasts only {seconds:.1f} seconds; songs of {TRAINED_MIN_SECONDS} or more train better")
    rate = sample_rate_of(path)
    if rate < _LOW_RATE:
        notes.append(f"{path} has {rate} Hz, so its sound ends at {rate / 2000:g} kHz; a better file trains better")
    return CheckedAudio(path, seconds, _sha256(path)), notes


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def dataset_hash(audio: Sequence[CheckedAudio], texts: Sequence[str]) -> str:
    """Return a hash of recordings and texts that does not depend on paths."""
    pairs = sorted(f"{each.sha256} {text}" for each, text in zip(audio, texts, strict=True))
    return hashlib.sha256("\n".join(pairs).encode()).hexdigest()
