"""What made a song, as plain values that fit into a file's tags and can be read back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from .errors import RequestError
from .sampling.settings import SamplingSettings
from .song.codes import Codes, check_codes, parse_codes
from .song.song import Metadata, Song

if TYPE_CHECKING:
    from .edit.edit import Edit

_METADATA = [item.name for item in fields(Metadata)]
_SETTINGS = [item.name for item in fields(SamplingSettings)]
DTYPES = ("dtype", "text_encoder_dtype", "vae_dtype")
_PARTS = ("model", "vae", "text_encoder")
_ORIGIN = (*_PARTS, "variant", "storage", *DTYPES)


@dataclass(frozen=True)
class Recipe:
    """All that has to be the same for the same song to come out again, but for `unrecorded`.

    origin: what was given to `load_model`, by parameter name ("model" for the name or path), and dtypes that the user
    chose, by option name. Of a path, `to_dict` tells the last part alone.
    normalize: whether the peak was brought to −1 dBFS.
    codes: the audio codes that the song plays.
    unrecorded: what else it was made of and no file's tags can hold, in words: without it another song comes out.
    """

    song: Song
    seed: int
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    normalize: bool = True
    origin: Mapping[str, str] = field(default_factory=dict)
    codes: Codes = ()
    unrecorded: tuple[str, ...] = ()

    @property
    def edit(self) -> Edit | None:
        """That of playing the codes, for `generate`; None where there are none."""
        from .edit.edit import Edit
        from .edit.tasks import TEXT2MUSIC

        return Edit(TEXT2MUSIC, codes=(self.codes,)) if self.codes else None

    def to_dict(self) -> dict[str, Any]:
        """Flat, ready for JSON. What is None (auto) is left out."""
        values = {
            "caption": self.song.caption,
            "lyrics": self.song.lyrics,
            "seed": self.seed,
            "normalize": self.normalize,
            **asdict(self.song.metadata),
            **asdict(self.settings),
            **{name: portable_name(value) if name in _PARTS else value for name, value in self.origin.items()},
            "codes": list(self.codes) or None,
            "unrecorded": list(self.unrecorded) or None,
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`; unknown names are ignored. Raises RequestError for values that cannot be."""
        metadata = Metadata(**{name: values[name] for name in _METADATA if name in values})
        settings = {name: values[name] for name in _SETTINGS if name in values}
        for name in ("guidance_interval", "timesteps"):
            if (given := _listed(settings, name)) is not None:
                settings[name] = tuple(given)
        if "seed" not in values:
            raise RequestError("these settings have no seed, so nothing can be made of them again")
        codes, unrecorded = _listed(values, "codes", str) or (), values.get("unrecorded", values.get("besides"))
        return cls(
            song=Song(values.get("caption", ""), values.get("lyrics", ""), metadata),
            seed=values["seed"],
            settings=SamplingSettings(**settings),
            normalize=bool(values.get("normalize", True)),
            origin={name: str(values[name]) for name in _ORIGIN if values.get(name) is not None},
            codes=parse_codes(codes) if isinstance(codes, str) else check_codes(codes),
            unrecorded=tuple(map(str, unrecorded)) if isinstance(unrecorded, (list, tuple)) else (),
        )


def _listed(values: Mapping[str, Any], name: str, *also: type) -> Any:
    """A value that is a list, or one of some other types."""
    given = values.get(name)
    if given is not None and not isinstance(given, (list, tuple, *also)):
        raise RequestError(f"{name} is a list of numbers, got {given!r}")
    return given


def unrecorded(edit: Edit | None, morph: object, timbre: Sequence | None, retake: object) -> tuple[str, ...]:
    """What of these a recipe does not tell. Of an edit it tells the audio codes, where the whole song plays them."""
    said = []
    if edit is not None and edit.source is not None:
        said.append(f"a recording ({edit.task.name})")
    elif edit is not None and (edit.drops_source or edit.is_partial):
        said.append("how far it follows its audio codes")
    if morph is not None:
        said.append("a recording (morph)")
    if timbre:
        said.append("a recording for its timbre")
    if retake is not None:
        said.append("a retake")
    return tuple(said)


def portable_name(name_or_path: str) -> str:
    """A name of the catalog as it is; of a path the last part alone: where it lies is nobody else's business, and is
    looked for again in the folders of models."""
    from .checkpoints.catalog import RELEASES

    if name_or_path in RELEASES:
        return name_or_path
    last = os.path.basename(os.path.abspath(os.path.expanduser(name_or_path)))
    return f"./{last}" if last in RELEASES else last
