"""Read audio files of any format that libsndfile knows, write songs with tags, and keep settings in the comment tag.

Settings are ASCII-only JSON, because libsndfile writes MP3 tags in Latin-1.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import torch

from ..config import MAX_SECONDS, SAMPLE_RATE
from ..errors import RequestError
from ..files import atomic_write, check_output_path, parse_json
from . import id3, m4a, wav
from .level import check_rate, dropped_channels, is_finite, to_stereo
from .resample import resample
from .tags import COMMENT, Tags
from .vorbis_comments import copy_with_comments, read_comments

if TYPE_CHECKING:
    import soundfile

log = logging.getLogger("acestep")

# suffix: (container, encoding, compression level from 0 (best) to 1). The lossy formats reach about 256 kbit/s.
FORMATS = {
    ".wav": ("WAV", "PCM_24", None),
    ".flac": ("FLAC", "PCM_24", None),
    ".ogg": ("OGG", "VORBIS", 0.2),
    ".opus": ("OGG", "OPUS", 0.0),
    ".mp3": ("MP3", "MPEG_LAYER_III", 0.0),
}
BLOCK = 65_536  # samples per write: libsndfile's Vorbis encoder crashes on minutes of audio at once
TAG = "acestep"
RATES = {  # Hz, of the formats that do not hold every rate
    ".opus": (8_000, 12_000, 16_000, 24_000, 48_000),
    ".mp3": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    m4a.SUFFIX: m4a.RATES,
}
MAX_ID3 = 2**25  # bytes
MAX_TAGS = 4 * 2**20  # characters; a block of FLAC holds 16 MB
UNKNOWN_FRAMES = 2**36 - 1  # of FLAC: the number of samples is 36 bits, and 0 of a stream becomes 2**63 − 1
UNKNOWN_BYTES = 0x7FFF0000  # of WAV: programs that write to a pipe take 2**31 or 2**32, less a few bytes
TOLERANCE = 0.1  # seconds; many MP3 files are a few samples shorter than they say
MAX_OGG_PAGE = 65_307  # bytes
_SHORTER = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)

T = TypeVar("T")


def read_audio(path: str | Path) -> torch.Tensor:
    """Read a file of up to 600 seconds, any channel count and 4 to 384 kHz, as `[1, 2, samples]`, float32, 48 kHz.

    Raises RequestError.
    """
    with _open(path) as file:
        try:
            check_rate(file.samplerate)
        except RequestError as error:
            raise RequestError(f"{path}: {error}") from None
        waveform, sample_rate, channels = _read_stereo(path, file), file.samplerate, file.channels
        if file.format == "OGG" and not _has_last_page(path):
            log.warning("%s may be cut off: its last page is missing", path)
    for sentence in dropped_channels(waveform.new_empty(1, channels, 0)):
        log.warning("%s: %s", path, sentence)
    return resample(to_stereo(waveform), sample_rate)


def sample_rate_of(path: str | Path) -> int:
    """Return the sample rate of an audio file in Hz. Raises RequestError."""
    with _open(path) as file:
        return file.samplerate


def _read_stereo(path: str | Path, file: soundfile.SoundFile) -> torch.Tensor:
    """Read at most two channels, `[1, channels, samples]`, in blocks: a small file may hold hours of silence."""
    import numpy
    import soundfile

    rate = file.samplerate
    expected = None if file.frames >= UNKNOWN_FRAMES else file.frames
    _check_length(path, (expected or 0) / rate)
    file.seekable = lambda: False  # soundfile seeks after each block, which fails at the end of an unknown length
    blocks, length = [], 0
    try:
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            blocks.append(block[:, :2].copy())
            length += len(block)
            _check_length(path, length / rate)
    except soundfile.LibsndfileError as error:
        raise RequestError(
            f"{path} cannot be read as audio to its end: it is damaged or cut off after {length / rate:.1f} seconds "
            f"({error.error_string})"
        ) from error
    missing = _missing_share(file)
    total = length / (1 - missing) if missing else expected or length
    if total - length > TOLERANCE * rate:
        raise RequestError(f"{path} is cut off: it has {length / rate:.1f} of {total / rate:.1f} seconds; get it again")
    if not length:
        raise RequestError(f"{path} is empty: it has no samples")
    return torch.from_numpy(numpy.concatenate(blocks)).T[None]


def _check_length(path: str | Path, seconds: float) -> None:
    if seconds > MAX_SECONDS:
        raise RequestError(f"{path} is longer than {MAX_SECONDS} seconds, the longest song; cut it first")


def _missing_share(file: soundfile.SoundFile) -> float:
    """Return the share of the audio that a cut file lacks. libsndfile writes it to its log alone."""
    match = _SHORTER.search(file.extra_info)
    declared, present = map(int, match.groups()) if match else (0, 0)
    return 1 - present / declared if present < declared < UNKNOWN_BYTES else 0.0


def _has_last_page(path: str | Path) -> bool:
    """Return True if the last page of an Ogg file is marked as such."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 2 * MAX_OGG_PAGE))
        _, page, rest = file.read().rpartition(b"OggS")
    return bool(page) and len(rest) > 1 and bool(rest[1] & 4)


def check_audio_path(path: str | Path) -> Path:
    """Return the path if an audio file can be written there, else raise RequestError. The suffix selects the format."""
    path = check_output_path(path)
    suffix = path.suffix.lower()
    if suffix == m4a.SUFFIX:
        m4a.check_pyav(path)
    elif suffix not in FORMATS:
        raise RequestError(f"{path} cannot be written: the name must end in {', '.join((*FORMATS, m4a.SUFFIX))}")
    return path


def holds_rate(suffix: str, sample_rate: float) -> bool:
    """Return True if files with this suffix can have this sample rate in Hz."""
    return sample_rate in RATES.get(suffix.lower(), (sample_rate,))


def write_audio(
    path: str | Path,
    waveform: torch.Tensor,
    sample_rate: int = SAMPLE_RATE,
    settings: dict | None = None,
    tags: Tags | None = None,
) -> None:
    """Write `[channels, samples]` or `[1, channels, samples]`, −1…1, in the format of the suffix.

    The file is written atomically and replaces an older one. `settings` (JSON values by name) go into the comment tag,
    for `read_settings`. `tags` are for players. Raises RequestError.
    """
    import soundfile

    samples = _samples_of(waveform, sample_rate)
    try:
        comment = None if settings is None else json.dumps({TAG: settings}, ensure_ascii=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"settings must be JSON values by name: {error}") from error
    path = check_audio_path(path)
    if path.suffix.lower() == m4a.SUFFIX:
        _write_m4a(path, samples, sample_rate, _fields(comment, tags))
        return
    container, encoding, compression = FORMATS[path.suffix.lower()]
    if not holds_rate(path.suffix, sample_rate):
        allowed = ", ".join(map(str, RATES[path.suffix.lower()]))
        raise RequestError(f"{path} cannot be written: its format has the rates {allowed} Hz, got {sample_rate}")
    options = {
        "samplerate": sample_rate,
        "channels": samples.shape[1],
        "format": container,
        "subtype": encoding,
        "compression_level": compression,
    }
    try:
        with atomic_write(path) as output:
            plan = _plan_tags(container, encoding, comment, tags)
            output.write(plan.head)
            # Tags before the audio have a place only once libsndfile has written its own.
            with TemporaryFile(dir=path.parent) if plan.copied_with else nullcontext(output) as place:
                with (
                    _reported(place, len(plan.head)) as target,
                    soundfile.SoundFile(target, "w", **options) as file,
                ):
                    if plan.comment is not None:
                        file.comment = plan.comment
                    for start in range(0, len(samples), BLOCK):
                        file.write(samples[start : start + BLOCK].to("cpu", torch.float32).contiguous().numpy())
                if plan.copied_with:
                    copy_with_comments(place, output, plan.copied_with)
            wav.append_tags(output, plan.appended)
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


def _samples_of(waveform: object, sample_rate: int) -> torch.Tensor:
    """Return the samples `[samples, channels]` of one song. Raises RequestError if no file can hold them."""
    if not isinstance(waveform, torch.Tensor):
        raise RequestError(f"waveform must be a tensor [channels, samples], got {type(waveform).__name__}")
    if waveform.ndim not in (2, 3) or (waveform.ndim == 3 and len(waveform) != 1):
        raise RequestError(
            f"waveform must be one song, [channels, samples], got a tensor of shape {list(waveform.shape)}; write the "
            "items of a batch one by one"
        )
    if not waveform.numel():
        raise RequestError(f"waveform is empty: its shape is {list(waveform.shape)}")
    if not is_finite(waveform):
        raise RequestError("waveform contains NaN or infinite samples; all must be finite")
    check_rate(sample_rate)
    return waveform.detach().reshape(waveform.shape[-2:]).T


@dataclass(frozen=True)
class _TagPlan:
    """Tags of a file to write.

    head: bytes before libsndfile's file.
    comment: what libsndfile writes as the comment.
    copied_with: fields that replace libsndfile's comments in a copy of its file.
    appended: fields at the end of a WAV file.
    """

    head: bytes = b""
    comment: str | None = None
    copied_with: Mapping[str, str] = field(default_factory=dict)
    appended: Mapping[str, str] = field(default_factory=dict)


def _write_m4a(path: Path, samples: torch.Tensor, sample_rate: int, fields: Mapping[str, str]) -> None:
    try:
        with atomic_write(path) as output, _reported(output, 0) as target:
            left_out = m4a.write_m4a(cast(BinaryIO, target), samples, sample_rate, fields)
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}") from error
    if left_out:
        log.warning("%s has no %s: M4A has no place for them", path, ", ".join(left_out))


def _fields(comment: str | None, tags: Tags | None) -> dict[str, str]:
    fields = tags.to_fields() if tags else {}
    fields |= {} if comment is None else {COMMENT: comment}
    if sum(map(len, fields.values())) > MAX_TAGS:
        raise RequestError(f"tags and settings have more than {MAX_TAGS} characters, which no file holds")
    return fields


def _plan_tags(container: str, encoding: str, comment: str | None, tags: Tags | None) -> _TagPlan:
    fields = _fields(comment, tags)
    if container == "WAV":
        return _TagPlan(appended=fields)
    if not tags and encoding != "OPUS":  # libsndfile writes a comment, but for Opus only a short one
        return _TagPlan(comment=comment)
    return _TagPlan(head=id3.build_id3(fields)) if container == "MP3" else _TagPlan(copied_with=fields)


@contextmanager
def _reported(output: BinaryIO, start: int) -> Iterator[_Recorder]:
    """Yield a file for libsndfile, from `start` on. Raise the first error, which libsndfile drops or does not name."""
    recorder = _Recorder(output, start)
    try:
        yield recorder
    finally:
        if recorder.error is not None:
            raise recorder.error
        output.flush()


class _Recorder:
    """A file that keeps its first error: an exception cannot pass through libsndfile."""

    def __init__(self, file: BinaryIO, start: int = 0):
        self._file, self._start = file, start
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        return self._keep_error(0, self._file.write, data)

    def read(self, size: int) -> bytes:
        return self._keep_error(b"", self._file.read, size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            offset += self._start
        return self._keep_error(self._start, self._file.seek, offset, whence) - self._start

    def tell(self) -> int:
        return self._keep_error(self._start, self._file.tell) - self._start

    def _keep_error(self, failed: T, call: Callable[..., T], *arguments: Any) -> T:
        try:
            return call(*arguments)
        except BaseException as error:  # Ctrl+C as well
            self.error = self.error or error
            return failed


def read_settings(path: str | Path) -> dict:
    """Return the settings that `write_audio` stored in a file. Raises RequestError if there are none."""
    try:
        settings = parse_json(_read_comment(path))[TAG]
    except (ValueError, TypeError, KeyError):
        settings = None
    if not isinstance(settings, dict):
        raise RequestError(f"{path} has no settings: acestep did not write it, or its tags were removed")
    return settings


def _read_comment(path: str | Path) -> str:
    if str(path).lower().endswith(m4a.SUFFIX):  # not known to libsndfile
        return _read_fields(path).get(COMMENT, "")
    with _open(path) as file:
        return wav.read_fields(path).get(COMMENT, "") if file.format == "WAV" else file.comment


def read_tags(path: str | Path) -> Tags:
    """Return the tags of a WAV, FLAC, Ogg, Opus, MP3 or M4A file, empty for any other file. Raises RequestError."""
    return Tags.from_fields(_read_fields(path))


def _read_fields(path: str | Path) -> dict[str, str]:
    try:
        with open(path, "rb") as file:
            head = file.read(12)
            if head[:4] == b"RIFF":
                return wav.read_fields(path)
            if head[:4] in (b"fLaC", b"OggS"):
                return read_comments(file)
            if m4a.is_m4a(head):
                return m4a.read_m4a(file)
            if size := min(id3.id3_size(head[:10]), MAX_ID3):
                file.seek(0)
                return id3.parse_id3(file.read(size))
            return {}
    except (OSError, ValueError) as error:
        raise RequestError(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _open(path: str | Path) -> soundfile.SoundFile:
    import soundfile

    try:
        if is_file := stat.S_ISREG(os.stat(path).st_mode):
            file = soundfile.SoundFile(path)
            if file.format == "WAV" and file.frames == 0 and (contents := wav.unfinished(path)):
                file.close()
                file = soundfile.SoundFile(contents)
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # such as a name that is too long, or not UTF-8
        raise RequestError(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except soundfile.LibsndfileError as error:
        known = ", ".join(sorted(soundfile.available_formats()))
        raise RequestError(f"{path} cannot be read as audio ({error.error_string}); readable: {known}") from error
    if not is_file:
        raise RequestError(f"{path} cannot be read: it is not a file")
    return file
