"""The released diffusion models: their recommended sampling, and how a checkpoint's variant is recognised."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Family(Enum):
    """The training method of a diffusion model, which decides its sampling."""

    TURBO = "turbo"
    SFT = "sft"
    BASE = "base"


@dataclass(frozen=True)
class Variant:
    """A released diffusion model and the sampling its authors recommend."""

    name: str
    family: Family
    xl: bool
    steps: int
    shift: float
    guidance: float
    about: str

    @property
    def is_turbo(self) -> bool:
        return self.family is Family.TURBO


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("turbo", Family.TURBO, False, 8, 3.0, 1.0, "2B, 8 steps: the all-rounder"),
        Variant("turbo-shift1", Family.TURBO, False, 8, 1.0, 1.0, "2B, 8 steps: richer detail, looser to the caption"),
        Variant("turbo-shift3", Family.TURBO, False, 8, 3.0, 1.0, "2B, 8 steps: clear timbre, simpler arrangement"),
        Variant("turbo-continuous", Family.TURBO, False, 8, 3.0, 1.0, "2B, 8 steps, any shift from 1 to 5"),
        Variant("sft", Family.SFT, False, 50, 3.0, 7.0, "2B, 50 steps with guidance: more detail, slower"),
        Variant("base", Family.BASE, False, 50, 3.0, 7.0, "2B, 50 steps with guidance: for extract, lego, complete"),
        Variant("xl-turbo", Family.TURBO, True, 8, 3.0, 1.0, "4B, 8 steps"),
        Variant("xl-sft", Family.SFT, True, 50, 3.0, 7.0, "4B, 50 steps with guidance"),
        Variant("xl-base", Family.BASE, True, 50, 3.0, 7.0, "4B, 50 steps with guidance: for extract, lego, complete"),
    )
}  # fmt: skip

_WORDS = re.compile(r"xl(?=turbo|base|sft)|[A-Z]*[a-z]+|[A-Z]+")  # also splits AceStep15Base and xlsft
_SPECIAL = ("shift1", "shift3", "continuous")


def variant_from_name(name: str) -> Variant | None:
    """Return the variant that the words of a file or folder name state: `acestep_v1.5_xl_base_bf16` is xl-base.

    A merged model's name may state turbo and another family. The other family wins: turbo would rule guidance out.
    """
    words = _words(name)
    special = next((word for word in _SPECIAL if word in name.lower()), None)
    family = next((family for family in (Family.SFT, Family.BASE, Family.TURBO) if family.value in words), None)
    if family is None and special:
        family = Family.TURBO
    if family is None:
        return None
    if family is Family.TURBO and special and "xl" not in words:
        return VARIANTS[f"turbo-{special}"]
    return _plain_variant(family, "xl" in words)


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORDS.findall(text)}


def _plain_variant(family: Family, xl: bool) -> Variant:
    return VARIANTS[("xl-" if xl else "") + family.value]


def pick_variant(stated: Family | None, name: str, xl: bool) -> tuple[Variant, bool]:
    """Return a checkpoint's variant, and True if it is a guess.

    stated: the family in the checkpoint's config or metadata.
    name: a file or folder name. It decides what `stated` leaves open.

    The variant is a guess if nothing states a family (turbo, the most common, is assumed) or the name is a merged
    model's.
    """
    named = variant_from_name(name)
    family = stated or (named.family if named else None)
    merged = stated is None and family is not Family.TURBO and Family.TURBO.value in _words(name)
    if named and named.family is family and named.xl == xl:
        return named, merged
    return _plain_variant(family or Family.TURBO, xl), merged or family is None
