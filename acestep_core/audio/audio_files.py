"""Read audio files of any format that libsndfile knows, write songs, and keep settings in their comment tag.

Settings are ASCII-only JSON, because libsndfile writes MP3 tags in Latin-1.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import torch

from ..config import SAMPLE_RATE
from ..errors import RequestError
from ..files import atomic_write, check_output_path
from .level import dropped_channels, to_stereo
from .resample import resample

if TYPE_CHECKING:
    import soundfile

log = logging.getLogger("acestep")

# suffix: (container, encoding, compression level from 0 (best) to 1). The lossy formats reach about 256 kbit/s.
FORMATS = {
    ".wav": ("WAV", "PCM_24", None),
    ".flac": ("FLAC", "PCM_24", None),
    ".ogg": ("OGG", "VORBIS", 0.2),
    ".mp3": ("MP3", "MPEG_LAYER_III", 0.0),
}
BLOCK = 65_536  # samples per write: libsndfile's Vorbis encoder crashes on minutes of audio at once
TAG = "acestep"

T = TypeVar("T")


def read_audio(path: str | Path) -> torch.Tensor:
    """Read a file of any rate and channel count as `[1, 2, samples]`, float32, 48 kHz. Raises RequestError."""
    import soundfile

    with _open(path) as file:
        try:
            samples, sample_rate = file.read(dtype="float32", always_2d=True), file.samplerate
        except soundfile.LibsndfileError as error:
            raise RequestError(f"{path} cannot be read as audio to its end: {error.error_string}") from error
    if len(samples) == 0:
        raise RequestError(f"{path} is empty: it has no samples")
    waveform = torch.from_numpy(samples).T[None]
    for sentence in dropped_channels(waveform):
        log.warning("%s: %s", path, sentence)
    return resample(to_stereo(waveform), sample_rate)


def check_audio_path(path: str | Path) -> Path:
    """Return the path if an audio file can be written there, else raise RequestError. The suffix selects the format."""
    path = check_output_path(path)
    if path.suffix.lower() not in FORMATS:
        raise RequestError(f"{path} cannot be written: the name must end in {', '.join(FORMATS)}")
    return path


def write_audio(
    path: str | Path, waveform: torch.Tensor, sample_rate: int = SAMPLE_RATE, settings: dict | None = None
) -> None:
    """Write `[channels, samples]` or `[1, channels, samples]`, −1…1, in the format of the suffix.

    The file is written atomically and replaces an older one. `settings` (JSON values by name) go into the comment tag,
    for `read_settings`. Raises RequestError.
    """
    import soundfile

    if waveform.ndim not in (2, 3) or (waveform.ndim == 3 and len(waveform) != 1):
        raise RequestError(
            f"waveform must be one song, [channels, samples], got a tensor of shape {list(waveform.shape)}; write the "
            "items of a batch one by one"
        )
    path = check_audio_path(path)
    container, encoding, compression = FORMATS[path.suffix.lower()]
    samples = waveform.detach().reshape(waveform.shape[-2:]).T
    comment = json.dumps({TAG: settings}, ensure_ascii=True)
    try:
        with atomic_write(path) as output:
            with (
                _reported(output) as target,
                soundfile.SoundFile(
                    target,
                    "w",
                    samplerate=sample_rate,
                    channels=samples.shape[1],
                    format=container,
                    subtype=encoding,
                    compression_level=compression,
                ) as file,
            ):
                if settings is not None and container != "WAV":
                    file.comment = comment
                for start in range(0, len(samples), BLOCK):
                    file.write(samples[start : start + BLOCK].to("cpu", torch.float32).contiguous().numpy())
            if settings is not None and container == "WAV":
                _append_wav_comment(output, comment)
            output.seek(0)
            with soundfile.SoundFile(output) as written:
                if written.frames != len(samples):
                    raise RequestError(
                        f"{path} cannot be written: {written.frames} of {len(samples)} samples are readable"
                    )
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}") from error
    except soundfile.LibsndfileError as error:
        raise RequestError(f"{path} cannot be written: {error.error_string}") from error


@contextmanager
def _reported(output: BinaryIO) -> Iterator[_Recorder]:
    """Yield a file for libsndfile. Raise the first error of writing, which libsndfile drops or does not name."""
    recorder = _Recorder(output)
    try:
        yield recorder
    finally:
        if recorder.error is not None:
            raise recorder.error
        output.flush()


class _Recorder:
    """A file that keeps its first error: an exception cannot pass through libsndfile."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        return self._keep_error(0, self._file.write, data)

    def read(self, size: int) -> bytes:
        return self._keep_error(b"", self._file.read, size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._keep_error(0, self._file.seek, offset, whence)

    def tell(self) -> int:
        return self._keep_error(0, self._file.tell)

    def _keep_error(self, failed: T, call: Callable[..., T], *arguments: Any) -> T:
        try:
            return call(*arguments)
        except BaseException as error:  # Ctrl+C as well
            self.error = self.error or error
            return failed


def read_settings(path: str | Path) -> dict:
    """Return the settings that `write_audio` stored in a file. Raises RequestError if there are none."""
    with _open(path) as file:
        comment = _wav_comment(path) if file.format == "WAV" else file.comment
    try:
        settings = json.loads(comment)[TAG]
    except (ValueError, TypeError, KeyError):
        settings = None
    if not isinstance(settings, dict):
        raise RequestError(f"{path} has no settings: acestep did not write it, or its tags were removed")
    return settings


def _open(path: str | Path) -> soundfile.SoundFile:
    import soundfile

    if not Path(path).is_file():
        raise RequestError(f"{path} does not exist")
    try:
        return soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        known = ", ".join(sorted(soundfile.available_formats()))
        raise RequestError(f"{path} cannot be read as audio ({error.error_string}); readable: {known}") from error


def _append_wav_comment(file: BinaryIO, comment: str) -> None:
    """Append a LIST/INFO chunk with an ICMT entry. libsndfile drops comments longer than a few KB from RIFF files."""
    text = comment.encode("ascii") + b"\0"
    text += b"\0" * (len(text) % 2)
    entry = b"INFOICMT" + len(text).to_bytes(4, "little") + text
    end = file.seek(0, os.SEEK_END)
    file.write(b"LIST" + len(entry).to_bytes(4, "little") + entry)
    file.seek(4)
    file.write((end + len(entry)).to_bytes(4, "little"))  # RIFF size: the file without its first 8 bytes


def _wav_comment(path: str | Path) -> str:
    """Return the ICMT entry of a RIFF file's LIST/INFO chunk, or an empty string."""
    with open(path, "rb") as file:
        file.seek(12)  # RIFF, size, WAVE
        while len(header := file.read(8)) == 8:
            size = int.from_bytes(header[4:], "little")
            size += size % 2
            if header[:4] != b"LIST":
                file.seek(size, os.SEEK_CUR)
                continue
            body = file.read(size)
            entry = 4 if body[:4] == b"INFO" else len(body)
            while entry < len(body):  # entries of other programs may come first
                length = int.from_bytes(body[entry + 4 : entry + 8], "little")
                if body[entry : entry + 4] == b"ICMT":
                    return body[entry + 8 : entry + 8 + length].rstrip(b"\0").decode("ascii", "replace")
                entry += 8 + length + length % 2
    return ""
