"""The recipe of a song: its inputs as plain values, for the tags of an audio file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from .adapters.recorded_adapter import RecordedAdapter
from .edit.recorded import RecordedEdit
from .errors import RequestError
from .sampling.settings import SamplingSettings
from .song.codes import Codes, check_codes, parse_codes
from .song.song import Metadata, Song

if TYPE_CHECKING:
    from torch import Tensor

    from .audio.finish import Finish
    from .edit.edit import Edit
    from .edit.morph import Morph

_METADATA = [item.name for item in fields(Metadata)]
_SETTINGS = [item.name for item in fields(SamplingSettings)]
DTYPES = ("dtype", "text_encoder_dtype", "vae_dtype")
PARTS = ("model", "vae", "text_encoder")
_ORIGIN = (*PARTS, "variant", "storage", *DTYPES)


@dataclass(frozen=True)
class Recipe:
    """The inputs that generate the same song again, apart from `unrecorded` ones.

    origin: arguments of `load_model` by parameter name ("model" for the name or path), and the dtypes that the user
        chose. `to_dict` shortens a path to its last part.
    normalize: True if the peak was brought to −1 dBFS.
    codes: audio codes of the song.
    recorded_edit: the edit of a recording that the song is made from.
    finish: the finishing of the song, or None.
    adapters: the LoRAs and other adapters of the model.
    lyric_score: how well the take follows its lyrics, from 0 to 1, or None if unknown. Not read back.
    unrecorded: phrases that name the inputs a recipe cannot store. Without these inputs, the song differs.
    """

    song: Song
    seed: int
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    normalize: bool = True
    origin: Mapping[str, str] = field(default_factory=dict)
    codes: Codes = ()
    unrecorded: tuple[str, ...] = ()
    recorded_edit: RecordedEdit | None = None
    finish: Finish | None = None
    adapters: tuple[RecordedAdapter, ...] = ()
    lyric_score: float | None = None

    @property
    def edit(self) -> Edit | None:
        """The edit that generates a song from the audio codes, or None without codes."""
        from .edit.edit import Edit
        from .edit.tasks import TEXT2MUSIC

        return Edit(TEXT2MUSIC, codes=(self.codes,)) if self.codes else None

    def to_dict(self) -> dict[str, Any]:
        """Return a flat dictionary for JSON, without None values."""
        values = {
            "caption": self.song.caption,
            "lyrics": self.song.lyrics,
            "seed": self.seed,
            "normalize": self.normalize,
            **asdict(self.song.metadata),
            **asdict(self.settings),
            **{name: portable_name(value) if name in PARTS else value for name, value in self.origin.items()},
            "codes": list(self.codes) or None,
            "edit": None if self.recorded_edit is None else self.recorded_edit.to_dict(),
            "finish": (self.finish and self.finish.to_dict()) or None,
            "loras": [adapter.to_dict() for adapter in self.adapters] or None,
            "lyric_score": self.lyric_score if self.lyric_score is None else round(self.lyric_score, 4),
            "unrecorded": list(self.unrecorded) or None,
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Read the result of `to_dict`. Unknown names are ignored. Raises RequestError for invalid values.

        Models are named by their last part. A path is invalid: it would let a file choose what is opened.
        """
        metadata = Metadata(**{name: values[name] for name in _METADATA if name in values})
        settings = {name: values[name] for name in _SETTINGS if name in values}
        for name in ("guidance_interval", "timesteps"):
            if (given := _listed(settings, name)) is not None:
                settings[name] = tuple(given)
        if "seed" not in values:
            raise RequestError("seed: missing in these settings, so the song cannot be generated again")
        codes = _listed(values, "codes", str) or ()
        unrecorded = values.get("unrecorded", values.get("besides"))  # files of earlier versions have `besides`
        normalize = True if values.get("normalize") is None else values["normalize"]
        if not isinstance(normalize, bool):
            raise RequestError(f"normalize must be true or false, got {normalize!r:.80}")
        listed = isinstance(unrecorded, (list, tuple))
        return cls(
            song=Song(values.get("caption", ""), values.get("lyrics", ""), metadata),
            seed=values["seed"],
            settings=SamplingSettings(**settings),
            normalize=normalize,
            origin={name: _origin(name, values[name]) for name in _ORIGIN if values.get(name) is not None},
            codes=parse_codes(codes) if isinstance(codes, str) else check_codes(codes),
            unrecorded=tuple(each for each in unrecorded if isinstance(each, str)) if listed else (),
            recorded_edit=None if values.get("edit") is None else RecordedEdit.from_dict(values["edit"]),
            finish=_finish(values.get("finish")),
            adapters=() if values.get("loras") is None else RecordedAdapter.from_list(values["loras"]),
        )


def _finish(given: object) -> Finish | None:
    """Return the finish of these values, None if it changes nothing. Raises RequestError."""
    from .audio.finish import Finish

    finish = Finish() if given is None else Finish.from_dict(given)
    return None if finish == Finish() else finish


def _listed(values: Mapping[str, Any], name: str, *also: type) -> Any:
    """Return the value of `name`: a list, one of the types `also`, or None. Raises RequestError for any other."""
    given = values.get(name)
    if given is not None and not isinstance(given, (list, tuple, *also)):
        raise RequestError(f"{name} must be a list of numbers, got {given!r}")
    return given


def _origin(name: str, given: object) -> str:
    if not isinstance(given, str):
        raise RequestError(f"{name} must be text, got {given!r:.80}")
    inside = PureWindowsPath(given.removeprefix("./"))  # parses both kinds of slash, drives and network shares
    is_name = len(inside.parts) == 1 and not inside.anchor and inside.parts[0] != ".." and "\0" not in given
    if name in PARTS and (not is_name or given.startswith("~")):
        raise RequestError(
            f"{name}: {given!r:.80} is a path, and a song's settings may only name a model of the model folders; give "
            f"the path with --{name.replace('_', '-')}"
        )
    return given


def unrecorded(
    edit: Edit | None,
    morph: Morph | None,
    timbre: Sequence[Tensor] | None,
    retake: tuple[int | Sequence[int], float] | None,
) -> tuple[str, ...]:
    """Return a phrase for each input of `generate` that a recipe cannot store. Audio codes alone can be stored."""
    inputs = []
    if edit is not None and edit.source is not None:
        inputs.append(f"a recording ({edit.task})")
    elif edit is not None and (edit.drops_source or edit.is_partial):
        inputs.append("the strength of its audio codes")
    if morph is not None:
        inputs.append("a recording (morph)")
    if timbre:
        inputs.append("a recording for its timbre")
    if retake is not None:
        inputs.append("a retake")
    return tuple(inputs)


def portable_name(name_or_path: str) -> str:
    """Shorten a path to its last part, which `load_model` finds in the models folders. Keep a catalog name."""
    from .checkpoints.catalog import RELEASES

    if name_or_path in RELEASES:
        return name_or_path
    last = os.path.basename(os.path.abspath(os.path.expanduser(name_or_path)))
    return f"./{last}" if last in RELEASES else last
