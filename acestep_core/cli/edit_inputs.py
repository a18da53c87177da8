"""The recording of an edit: found, read, encoded, and given to `generate`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import SAMPLE_RATE
from ..edit.recorded import TRACK_OPERATIONS, RecordedEdit, file_hash
from ..errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from ..callbacks import Callbacks
    from ..edit.edit import Edit
    from ..edit.morph import Morph
    from ..pipeline import Model
    from ..song.song import Song


@dataclass(frozen=True, eq=False)
class EditedRecording:
    """An edit together with its recording [1, 2, samples] at 48 kHz.

    lyrics: what is sung in the recording, to find its sections and lines. If empty, the lyrics of the new song.
    """

    edit: RecordedEdit
    waveform: Tensor
    lyrics: str = ""

    def located(self, model: Model, song: Song, callbacks: Callbacks) -> EditedRecording:
        """Return the edit with sections and lines of `where` replaced by their seconds. Raises RequestError.

        song: the song to generate.
        """
        from ..lyrics.capture import lyric_times
        from ..lyrics.where import describe_regions, find_regions, is_named, seam_of
        from ..pipeline import encode, encode_audio

        if not is_named(self.edit.where):
            return self
        metadata = replace(song.metadata, duration=self.waveform.shape[-1] / SAMPLE_RATE)
        own = replace(song, lyrics=self.lyrics or song.lyrics, metadata=metadata)
        if own.instrumental:
            raise RequestError(f"--where: {self.edit.source} has no lyrics in its tags; give seconds, or --lyrics FILE")
        latents = encode_audio(model, self.waveform, SAMPLE_RATE, callbacks=callbacks)
        (times,) = lyric_times(model, latents, encode(model, own, callbacks=callbacks), callbacks=callbacks)
        if self.edit.operation == "extend":
            part = seam_of(self.edit.where, times)
            assert part is not None  # a name has an end
            callbacks.warn(f"the song continues after {part.name}, at {part.end:g} seconds")
            return replace(self, edit=replace(self.edit, where=f"{part.end:g}"))
        regions = find_regions(self.edit.where, times)
        callbacks.warn(describe_regions(regions))
        where = ",".join(f"{region.start:g}-{region.end:g}" for region in regions)
        return replace(self, edit=replace(self.edit, where=where))

    def inputs(self, model: Model, song: Song, callbacks: Callbacks) -> dict[str, Any]:
        """Encode the recording. Return the arguments `edit` or `morph` of `generate`. Raises RequestError.

        song: the song to generate.
        """
        if self.edit.operation == "morph":
            return {"morph": self._morph(model, song, callbacks)}
        return {"edit": self._edit(model, callbacks)}

    def _edit(self, model: Model, callbacks: Callbacks) -> Edit:
        from ..edit.edit import Edit
        from ..edit.regions import parse_regions, widen
        from ..edit.source import cut, extend, source_waveform
        from ..lyrics.where import seam_of
        from ..pipeline import encode_audio

        wanted, waveform = self.edit, source_waveform(self.waveform, SAMPLE_RATE)
        regions: Sequence[tuple[float, float | None]] = ()
        if wanted.operation != "extend":
            regions = parse_regions(wanted.where)
        else:
            part = seam_of(wanted.where, None)
            waveform = cut(waveform, None if part is None else part.end)
            waveform, added = extend(waveform, wanted.before, wanted.after)
            regions = widen(added, wanted.overlap, waveform.shape[-1] / SAMPLE_RATE)
        tasks = {"extend": "repaint", "add": "lego"}
        return Edit(
            task=tasks.get(wanted.operation, wanted.operation),
            source=encode_audio(model, waveform, SAMPLE_RATE, callbacks=callbacks),
            waveform=waveform,
            regions=regions,
            tracks=wanted.tracks,
            strength=wanted.strength,
            blend=wanted.blend,
            noise_strength=wanted.noise_strength,
            use_codes=wanted.use_codes,
            mode=wanted.mode,
            mode_strength=wanted.mode_strength,
        )

    def _morph(self, model: Model, song: Song, callbacks: Callbacks) -> Morph:
        from ..edit.morph import Morph, MorphSettings
        from ..pipeline import encode, encode_audio

        wanted, seconds = self.edit, self.waveform.shape[-1] / SAMPLE_RATE
        metadata = replace(song.metadata, duration=seconds)
        own = replace(song, caption=wanted.source_caption, lyrics=wanted.source_lyrics, metadata=metadata)
        return Morph(
            conditions=[encode(model, own, callbacks=callbacks)],
            source=encode_audio(model, self.waveform, SAMPLE_RATE, callbacks=callbacks),
            settings=MorphSettings(wanted.start, wanted.end, wanted.draws),
        )


def find_recording(edit: RecordedEdit, folders: Sequence[Path]) -> Path:
    """Return the recording of a recipe's edit, from the first of these folders that has it. Raises RequestError."""
    paths = [path for folder in folders if (path := folder / edit.source).is_file()]
    for path in paths:
        if file_hash(path) == edit.sha256:
            return path
    reason = "another file of that name is there" if paths else "it is not there"
    command = "stems" if edit.operation in TRACK_OPERATIONS else edit.operation
    raise RequestError(
        f"--from: the song was made from {edit.source}, looked for in {' and '.join(map(str, folders))}, but {reason}; "
        f"put the recording there, or edit one with `acestep {command} FILE`"
    )


def check_recording_stays(recording: Path, outputs: Iterable[Path]) -> None:
    """Raise RequestError if a song would replace the recording that it is made from."""
    for path in outputs:
        with suppress(OSError):  # it does not exist
            if path.samefile(recording):
                raise RequestError(f"output: {path} is the recording that is edited; choose another name")


def check_where(edit: RecordedEdit) -> None:
    """Raise RequestError if the parts of an edit are neither times nor names."""
    from ..edit.regions import parse_regions
    from ..lyrics.where import is_named, seam_of

    if not is_named(edit.where):
        _ = seam_of(edit.where, None) if edit.operation == "extend" else parse_regions(edit.where)


def read_recording(edit: RecordedEdit, path: Path) -> EditedRecording:
    """Read the audio of an edit. Raises RequestError."""
    from ..audio import read_audio

    check_where(edit)  # before the model is loaded
    return EditedRecording(edit, read_audio(path))
