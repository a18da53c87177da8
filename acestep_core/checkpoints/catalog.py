"""The catalog of released files: the repository, the place on disk, and the size of each.

Approximate sizes are computed from the parameter counts. A download reads the exact sizes from the repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ..errors import RequestError
from .variants import VARIANTS, Variant

MAIN_REPO = "ACE-Step/Ace-Step1.5"
COMFY_REPO = "Comfy-Org/ace_step_1.5_ComfyUI_files"
NANO = Path(__file__).parents[1] / "nano"  # the small checkpoint that comes with the package
NANO_PLANNER = NANO / "acestep-5Hz-lm-nano"


class Kind(Enum):
    """The part of a model that a file holds."""

    NETWORK = "diffusion model"
    VAE = "VAE"
    TEXT_ENCODER = "text encoder"
    TOKENIZER = "tokenizer"
    PLANNER = "planner LM"
    ALL_IN_ONE = "all in one"


@dataclass(frozen=True)
class Release:
    """A named model, or a named part of a model.

    repo: None for a release that comes with this package.
    files: patterns in the repository.
    target: the path below a models root, of a folder with these files or of one file.
    size: bytes.
    needs: names of the other releases that a song needs.
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
        """The repository, and the file or folder in it."""
        if self.repo is None:
            return "this package"
        folders = {name.rpartition("/")[0] for name in self.files}
        inside = self.files[0] if self.is_file else folders.pop() if len(folders) == 1 else ""
        return f"{self.repo}: {inside}" if inside else self.repo


_GB = 1_000_000_000
_PARTS = ("vae", "text-encoder")
# The files that a model folder needs. The Python files of some repositories are never downloaded.
_NETWORK_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "silence_latent.pt")
_LM_FILES = ("*.json", "*.safetensors", "merges.txt", "chat_template.jinja")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
_VAE_FILES = ("config.json", "diffusion_pytorch_model.safetensors")


def _inside(folder: str, files: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in files)


def _original(name: str) -> Release:
    """Return a variant's release in the original layout. Only turbo is in the main repository."""
    variant = VARIANTS[name]
    folder = f"acestep-v15-{name}"
    in_main = name == "turbo"
    repo, files = (MAIN_REPO, _inside(folder, _NETWORK_FILES)) if in_main else (f"ACE-Step/{folder}", _NETWORK_FILES)
    size = 19_950_000_000 if variant.xl else 4_788_000_000  # XL files are float32
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
                "Qwen3-Embedding-0.6B", 16_000_000, True, "the tokenizer of text-encoder; ComfyUI's files hold none"),
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


def find_release(name: str) -> Release:
    """Return the release of that name. Raises RequestError."""
    if name not in RELEASES:
        raise RequestError(f"model {name!r} is unknown; known: {', '.join(RELEASES)}")
    return RELEASES[name]
