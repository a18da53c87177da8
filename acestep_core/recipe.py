"""What made a song, as plain values that fit into a file's tags and can be read back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .sampling.settings import SamplingSettings
from .song import Metadata, Song

_METADATA = [item.name for item in fields(Metadata)]
_SETTINGS = [item.name for item in fields(SamplingSettings)]
DTYPES = ("dtype", "text_encoder_dtype", "vae_dtype")
_PARTS = ("model", "vae", "text_encoder")
_ORIGIN = (*_PARTS, "variant", "storage", *DTYPES)


@dataclass(frozen=True)
class Recipe:
    """All that has to be the same for the same song to come out again.

    origin: what was given to `load_model`, by parameter name ("model" for the name or path), and dtypes that the user
    chose, by option name. Of a path, `to_dict` tells the last part alone.
    normalize: whether the peak was brought to −1 dBFS.
    """

    song: Song
    seed: int
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    normalize: bool = True
    origin: Mapping[str, str] = field(default_factory=dict)

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
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`; unknown names are ignored. Raises RequestError for values that cannot be."""
        metadata = Metadata(**{name: values[name] for name in _METADATA if name in values})
        settings = {name: values[name] for name in _SETTINGS if name in values}
        for name in ("guidance_interval", "timesteps"):
            if settings.get(name) is not None:
                settings[name] = tuple(settings[name])
        return cls(
            song=Song(values.get("caption", ""), values.get("lyrics", ""), metadata),
            seed=values["seed"],
            settings=SamplingSettings(**settings),
            normalize=bool(values.get("normalize", True)),
            origin={name: str(values[name]) for name in _ORIGIN if values.get(name) is not None},
        )


def portable_name(name_or_path: str) -> str:
    """A name of the catalog as it is; of a path the last part alone: where it lies is nobody else's business, and is
    looked for again in the folders of models."""
    from .checkpoints.catalog import RELEASES

    if name_or_path in RELEASES:
        return name_or_path
    last = os.path.basename(os.path.abspath(os.path.expanduser(name_or_path)))
    return f"./{last}" if last in RELEASES else last
