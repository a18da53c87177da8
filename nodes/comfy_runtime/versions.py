"""Every difference between versions of ComfyUI, from 0.3.75 on. Importing this module loads no network code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from comfy_api.latest import io

if TYPE_CHECKING:
    import torch

AnyInput = TypeVar("AnyInput", bound=io.Input)

OLDEST = (0, 3, 75)  # as in pyproject.toml; the first with previews of latents like ours
NATIVE_CLASS = "ACEStep15"  # ComfyUI's own model class for ACE-Step 1.5, in later versions


def check_comfyui() -> None:
    """Raise RuntimeError if ComfyUI is too old. A version that is not a number counts as new."""
    try:
        from comfyui_version import __version__ as version
    except ImportError:
        return
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if numbers is not None and tuple(map(int, numbers.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise RuntimeError(f"ComfyUI: version {version} is too old. ACE-Step 1.5 needs {oldest} or newer.")


def advanced(widget: AnyInput) -> AnyInput:
    """Fold the widget away, if the frontend supports it. The keyword argument is newer than 0.3.75."""
    widget.extra_dict = {**(widget.extra_dict or {}), "advanced": True}
    return widget


def zero_shown_as(word: str, widget: AnyInput) -> AnyInput:
    """Show `word` instead of 0, where web/js/zero.js knows the frontend's number widgets."""
    widget.extra_dict = {**(widget.extra_dict or {}), "zero_shown_as": word}
    return widget


def search_aliases(words: str) -> dict[str, Any]:
    """Return the argument of `io.Schema` for more words that find a node, if this version has one."""
    return {"search_aliases": words.split(", ")} if "search_aliases" in io.Schema.__dataclass_fields__ else {}


def linear_with_weights(base: type) -> type:
    """Return ComfyUI's Linear with weights from the start. Later versions create it empty, for their own loader."""
    import torch

    class Linear(base):
        def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
            torch.nn.Linear.__init__(self, in_features, out_features, bias, device, dtype)

    return Linear


def embedding_with_weights(base: type) -> type:
    """Return ComfyUI's Embedding with weights from the start, and a lookup on the weight's own device.

    ComfyUI's lookup copies the whole offloaded table for every token; ours copies the rows.
    """
    import torch

    class Embedding(base):
        def __init__(self, num_embeddings, embedding_dim, device=None, dtype=None):
            torch.nn.Embedding.__init__(self, num_embeddings, embedding_dim, device=device, dtype=dtype)

        def forward(self, tokens):
            return torch.nn.functional.embedding(tokens.to(self.weight.device), self.weight).to(tokens.device)

    return Embedding


def model_class() -> type:
    """Return the base class of our MODEL: ComfyUI's own ACE-Step 1.5 if it has one, else BaseModel.

    ComfyUI's LoRA loaders match more names (PEFT, LyCORIS) on its own class.
    """
    import comfy.model_base

    return getattr(comfy.model_base, NATIVE_CLASS, comfy.model_base.BaseModel)


def is_borrowed(source: object) -> bool:
    """Return True if weights lie in a buffer of ComfyUI, which a later cast overwrites.

    source: the third result of `cast_bias_weight`. Early versions return a stream or None, later ones a tuple of a
    stream, a tensor or device, and a tensor.
    """
    import torch

    parts = source if isinstance(source, tuple) else (source,)
    return any(part is not None and not isinstance(part, torch.Tensor) for part in parts)


def patcher_class(dynamic: bool) -> type:
    """Return the class of the patchers of ComfyUI's own models, which in later versions may load weights on demand."""
    import comfy.model_patcher

    plain = comfy.model_patcher.ModelPatcher
    return getattr(comfy.model_patcher, "CoreModelPatcher", plain) if dynamic else plain


def with_fixed_weights(model: Any) -> Any:
    """Return the MODEL with weights that stay where they are loaded, as CUDA graphs need."""
    dynamic = hasattr(model, "is_dynamic") and model.is_dynamic()  # a later version
    return model.get_non_dynamic_delegate() if dynamic else model


def is_native(model: object) -> bool:
    """Return True for a model of ComfyUI's own loader."""
    return type(model).__name__ == NATIVE_CLASS


def temporal_ratio() -> int:
    """Return the temporal ratio of ComfyUI's own latent format for ACE-Step 1.5.

    Later versions stretch an empty latent by the difference to the ratio of the node that created it.
    """
    import comfy.latent_formats

    own = getattr(comfy.latent_formats, "ACEAudio15", None)
    return getattr(own, "temporal_downscale_ratio", 1)


def is_out_of_memory(error: Exception) -> bool:
    """Return True for an out-of-memory error. Later versions know more kinds."""
    import comfy.model_management as mm

    return mm.is_oom(error) if hasattr(mm, "is_oom") else isinstance(error, mm.OOM_EXCEPTION)


def vae_rates(vae: object) -> tuple[int, int]:
    """Return the sample rates that a `comfy.sd.VAE` encodes from and decodes to.

    Early versions have one rate, 44.1 kHz, and no attribute for it. In later ones the two may differ.
    """
    encoded = getattr(vae, "audio_sample_rate", 44100)
    return encoded, getattr(vae, "audio_sample_rate_output", encoded)


def graphs_disabled() -> bool:
    """Return True if ComfyUI was started without CUDA graphs. Later versions have the option."""
    from comfy.cli_args import args

    return getattr(args, "disable_cuda_graphs", False)


def is_open_to_network() -> bool:
    """Return True if ComfyUI listens on an address that other computers may reach."""
    from comfy.cli_args import args

    addresses = str(getattr(args, "listen", "127.0.0.1")).split(",")
    return not all(address.strip() in ("127.0.0.1", "::1", "localhost") for address in addresses)


def running_node() -> tuple[str, str] | None:
    """Return the ids of the running prompt and node, or None if ComfyUI does not know them."""
    try:
        from comfy_execution.utils import get_executing_context
    except ImportError:
        return None
    context = get_executing_context()
    return None if context is None else (context.prompt_id, context.node_id)


def multigpu_clone(model: Any) -> Any | None:
    """Return the patcher of MultiGPU CFG Split for a second GPU, with the patches of `model`, if there is one."""
    if not hasattr(model, "match_multigpu_clones"):
        return None
    model.match_multigpu_clones()
    clones = model.get_additional_models_with_key("multigpu")
    return next((clone for clone in clones if clone.load_device != model.load_device), None)


def device_options() -> list[str]:
    """Return the choices of a device widget: "default", "cpu", and "gpu:0" and on if there are several GPUs."""
    import comfy.model_management as mm

    return mm.get_gpu_device_options() if hasattr(mm, "get_gpu_device_options") else ["default", "cpu"]


def device_of(option: str) -> torch.device | None:
    """Return the device of a choice. None is the default one, also for a GPU that this machine does not have."""
    import comfy.model_management as mm
    import torch

    if hasattr(mm, "resolve_gpu_device_option") and isinstance(option, str):  # a link may give anything
        return mm.resolve_gpu_device_option(option)
    return torch.device("cpu") if option == "cpu" else None
