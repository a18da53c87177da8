"""Every released file: where it comes from, where it lies on disk, what it is, and how its model likes to be sampled.

Sizes marked approximate are computed from the parameter counts; a download asks the repository for the exact ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ..errors import CheckpointError, RequestError
from .shards import weight_files

MAIN_REPO = "ACE-Step/Ace-Step1.5"
COMFY_REPO = "Comfy-Org/ace_step_1.5_ComfyUI_files"
NANO = Path(__file__).parents[1] / "nano"  # the small checkpoint that comes with the package
NANO_PLANNER = NANO / "acestep-5Hz-lm-nano"


_WITHOUT_WEIGHTS = ("tokenizer", "scheduler")  # of a diffusers folder's components


class Kind(Enum):
    """What a file is."""

    NETWORK = "diffusion model"
    VAE = "VAE"
    TEXT_ENCODER = "text encoder"
    TOKENIZER = "tokenizer"
    PLANNER = "planner LM"
    ALL_IN_ONE = "all in one"


class Family(Enum):
    """How a diffusion model was trained, which decides how it is sampled."""

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


@dataclass(frozen=True)
class Release:
    """One thing that can be had by name. `files` are patterns in the repository.

    `target` is where it lies below a models root: a folder with the same files, or one file. `needs` are the other
    releases without which it makes no song. `repo` None: it comes with this package.
    """

    name: str
    kind: Kind
    repo: str | None
    files: tuple[str, ...]
    target: str
    size: int
    approximate: bool
    about: str
    variant: Variant | None = None
    needs: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        return self.target.endswith(".safetensors")

    @property
    def source(self) -> str:
        """Where it comes from, to look up or to fetch by hand: the repository, and the file or folder in it."""
        if self.repo is None:
            return "this package"
        folders = {name.rpartition("/")[0] for name in self.files}
        inside = self.files[0] if self.is_file else folders.pop() if len(folders) == 1 else ""
        return f"{self.repo}: {inside}" if inside else self.repo


_GB = 1_000_000_000
_PARTS = ("vae", "text-encoder")
# What a model folder needs; the Python files that some repositories carry are never fetched.
_NETWORK_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "silence_latent.pt")
_LM_FILES = ("*.json", "*.safetensors", "merges.txt", "chat_template.jinja")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
_VAE_FILES = ("config.json", "diffusion_pytorch_model.safetensors")


def _inside(folder: str, files: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in files)


def _original(name: str) -> Release:
    """A variant in the original layout; turbo lies in the main repository, every other one in its own."""
    variant = VARIANTS[name]
    folder = f"acestep-v15-{name}"
    repo, files = f"ACE-Step/{folder}", _NETWORK_FILES
    if name == "turbo":
        repo, files = MAIN_REPO, _inside(folder, _NETWORK_FILES)
    size = 19_950_000_000 if variant.xl else 4_788_000_000  # the large ones are kept in float32
    return Release(name, Kind.NETWORK, repo, files, folder, size, True, variant.about, variant, _PARTS)


def _comfy(name: str, variant: str, file: str) -> Release:
    size = 9_974_000_000 if VARIANTS[variant].xl else 4_788_000_000
    return _comfy_file(
        name, Kind.NETWORK, f"diffusion_models/{file}", size, f"{VARIANTS[variant].about}; one file for ComfyUI",
        VARIANTS[variant], ("comfy-vae", "comfy-text-encoder", "tokenizer"),
    )  # fmt: skip


def _comfy_file(
    name: str, kind: Kind, target: str, size: int, about: str, variant: Variant | None = None,
    needs: tuple[str, ...] = (), approximate: bool = True,
) -> Release:  # fmt: skip
    source = target if kind is Kind.ALL_IN_ONE else f"split_files/{target}"
    return Release(name, kind, COMFY_REPO, (source,), target, size, approximate, about, variant, needs)


RELEASES = {
    release.name: release
    for release in (
        Release("nano", Kind.NETWORK, None, (), "", 0, True, "comes with the package: tiny, for trying things out"),
        *(_original(name) for name in VARIANTS),
        Release("vae", Kind.VAE, MAIN_REPO, _inside("vae", _VAE_FILES), "vae", 337_000_000, True,
                "48 kHz stereo, every variant needs it"),
        Release("text-encoder", Kind.TEXT_ENCODER, MAIN_REPO, _inside("Qwen3-Embedding-0.6B", _LM_FILES),
                "Qwen3-Embedding-0.6B", 1_208_000_000, True, "with its tokenizer, every variant needs it"),
        Release("tokenizer", Kind.TOKENIZER, MAIN_REPO, _inside("Qwen3-Embedding-0.6B", _TOKENIZER_FILES),
                "Qwen3-Embedding-0.6B", 16_000_000, True, "of text-encoder alone; ComfyUI's files hold none"),
        Release("scragvae", Kind.VAE, "scragnog/Ace-Step-1.5-ScragVAE", _VAE_FILES, "scragvae", 337_000_000, True,
                "a VAE retrained by the community, in place of vae"),
        Release("lm-0.6b", Kind.PLANNER, "ACE-Step/acestep-5Hz-lm-0.6B", _LM_FILES, "acestep-5Hz-lm-0.6B",
                1_330_000_000, True, "writes songs: the smallest"),
        Release("lm-1.7b", Kind.PLANNER, MAIN_REPO, _inside("acestep-5Hz-lm-1.7B", _LM_FILES), "acestep-5Hz-lm-1.7B",
                3_710_000_000, True, "writes songs: the default"),
        Release("lm-4b", Kind.PLANNER, "ACE-Step/acestep-5Hz-lm-4B", _LM_FILES, "acestep-5Hz-lm-4B",
                8_380_000_000, True, "writes songs: the strongest"),
        Release("xl-turbo-diffusers", Kind.NETWORK, "ACE-Step/acestep-v15-xl-turbo-diffusers",
                ("*.json", "*.safetensors", "silence_latent.pt", "tokenizer/*"), "acestep-v15-xl-turbo-diffusers",
                int(11.5 * _GB), True, "4B, 8 steps; with VAE and text encoder, for diffusers", VARIANTS["xl-turbo"]),
        _comfy("comfy-turbo", "turbo", "acestep_v1.5_turbo.safetensors"),
        _comfy("comfy-base", "base", "acestep_v1.5_base.safetensors"),
        _comfy("comfy-sft", "sft", "acestep_v1.5_sft.safetensors"),
        _comfy("comfy-xl-turbo", "xl-turbo", "acestep_v1.5_xl_turbo_bf16.safetensors"),
        _comfy("comfy-xl-base", "xl-base", "acestep_v1.5_xl_base_bf16.safetensors"),
        _comfy("comfy-xl-sft", "xl-sft", "acestep_v1.5_xl_sft_bf16.safetensors"),
        _comfy_file("comfy-turbo-aio", Kind.ALL_IN_ONE, "checkpoints/ace_step_1.5_turbo_aio.safetensors", 10 * _GB,
                    "2B, 8 steps, with VAE, text encoder and lm-1.7b; one file for ComfyUI", VARIANTS["turbo"],
                    ("tokenizer",)),
        _comfy_file("comfy-vae", Kind.VAE, "vae/ace_1.5_vae.safetensors", 337_000_000, "one file for ComfyUI"),
        _comfy_file("comfy-text-encoder", Kind.TEXT_ENCODER, "text_encoders/qwen_0.6b_ace15.safetensors",
                    1_191_588_248, "one file for ComfyUI, without a tokenizer", approximate=False),
        _comfy_file("comfy-lm-1.7b", Kind.PLANNER, "text_encoders/qwen_1.7b_ace15.safetensors", 3_710_000_000,
                    "one file for ComfyUI", needs=("tokenizer",)),
        _comfy_file("comfy-lm-4b", Kind.PLANNER, "text_encoders/qwen_4b_ace15.safetensors", 8_380_000_000,
                    "one file for ComfyUI", needs=("tokenizer",)),
    )
}  # fmt: skip


def release(name: str) -> Release:
    """The release of that name. Raises RequestError that lists the names."""
    if name not in RELEASES:
        raise RequestError(f"unknown model {name!r}; known: {', '.join(RELEASES)}")
    return RELEASES[name]


@dataclass(frozen=True)
class Presence:
    """Where a release was looked for, and where it is (None: nowhere)."""

    release: Release
    found: Path | None
    searched: tuple[Path, ...]


def places(item: Release, roots: Sequence[Path]) -> tuple[Path, ...]:
    """Where `item` would lie below each of the roots. A ComfyUI models folder is a root too; its `acestep` is looked
    into."""
    if item.repo is None:
        return (NANO,)
    if item.is_file:
        return tuple(root / item.target for root in roots)
    return tuple(path for root in roots for path in (root / item.target, root / "acestep" / item.target))


def presence(roots: Sequence[Path]) -> list[Presence]:
    """Every release of the catalog, and whether it is on disk."""
    rows = []
    for item in RELEASES.values():
        searched = places(item, roots)
        rows.append(Presence(item, next((path for path in searched if _is_there(item, path)), None), searched))
    return rows


def _is_there(item: Release, path: Path) -> bool:
    if item.is_file:
        return path.is_file()
    if item.kind is Kind.TOKENIZER:
        return has_tokenizer(path)
    try:
        return all(weight_files(folder) for folder in _components(path))
    except CheckpointError:  # begun, but not all of its shards have come
        return False


def _components(path: Path) -> list[Path]:
    """The folders that hold weights: the model's own, or those that the index of a diffusers folder lists."""
    try:
        index = json.loads((path / "model_index.json").read_text(encoding="utf-8"))
        parts = [name for name, part in index.items() if isinstance(part, list) and any(part)]
    except (OSError, ValueError, AttributeError):
        return [path]
    return [path / name for name in parts if name not in _WITHOUT_WEIGHTS] or [path]


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder holds what `Tokenizer.from_folder` reads."""
    names = ("vocab.json", "merges.txt")
    return (folder / "tokenizer.json").is_file() or all((folder / name).is_file() for name in names)


def default_roots(chosen: str | None = None) -> tuple[Path, ...]:
    """Folders that the command looks into: the chosen one alone, else the user's data and `models/acestep` here.

    A download goes to the first: into a folder of models that is here, as in ComfyUI's, else where it is found from
    every other folder, too.
    """
    if chosen:
        return (Path(chosen).expanduser(),)
    here, everywhere = Path("models/acestep"), _user_data() / "acestep"
    return (here, everywhere) if here.parent.is_dir() else (everywhere, here)


def _user_data() -> Path:
    import sys

    home = Path.home()
    if sys.platform == "win32":
        return home / "AppData" / "Local"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support"
    return home / ".local" / "share"


# Words, also where they are run together: AceStep15Base, xlsft.
_WORDS = re.compile(r"xl(?=turbo|base|sft)|[A-Z]*[a-z]+|[A-Z]+")
_SPECIAL = ("shift1", "shift3", "continuous")


def variant_named(text: str) -> Variant | None:
    """The variant that a file or folder name speaks of, by its words: `acestep_v1.5_xl_base_bf16` is xl-base.

    Beside another family, as in the names of merged models, turbo is not meant: it would rule guidance out.
    """
    words = _words(text)
    special = next((word for word in _SPECIAL if word in text.lower()), None)
    family = next((family for family in (Family.SFT, Family.BASE, Family.TURBO) if family.value in words), None)
    if family is None and special:
        family = Family.TURBO
    if family is None:
        return None
    if family is Family.TURBO and special and "xl" not in words:
        return VARIANTS[f"turbo-{special}"]
    return variant_of(family, "xl" in words)


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORDS.findall(text)}


def variant_of(family: Family, xl: bool) -> Variant:
    """The plain variant of a family in that size."""
    return VARIANTS[("xl-" if xl else "") + family.value]


def pick_variant(stated: Family | None, name: str, xl: bool) -> tuple[Variant, bool]:
    """The variant from what a checkpoint states about itself and, where that leaves a choice, from its name.

    Returns the variant and whether it is only a guess: nothing spoke, so turbo, the most common, is assumed; or the
    name is that of a merged model.
    """
    named = variant_named(name)
    family = stated or (named.family if named else None)
    merged = stated is None and family is not Family.TURBO and Family.TURBO.value in _words(name)
    if named and named.family is family and named.xl == xl:
        return named, merged
    return variant_of(family or Family.TURBO, xl), merged or family is None
