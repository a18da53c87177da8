"""What differs between the versions of ComfyUI (0.3.75 and later): every probe and every way around is here.

Light to import: the nodes' schemas need it when ComfyUI starts.
"""

from __future__ import annotations

import re
from typing import TypeVar

from comfy_api.latest import io

AnyInput = TypeVar("AnyInput", bound=io.Input)

OLDEST = (0, 3, 75)  # as pyproject.toml tells the registry; the first with previews of latents like ours


def advanced(widget: AnyInput) -> AnyInput:
    """Folds the widget away until the user asks for the advanced ones, where the frontend can.

    The keyword for it came after 0.3.75; an entry of that name reaches the frontend just as well.
    """
    widget.extra_dict = {**(widget.extra_dict or {}), "advanced": True}
    return widget


def linear_with_weights(base: type) -> type:
    """ComfyUI's Linear, holding weights from the start.

    Later versions make it empty and expect their own loader to bring what belongs into it.
    """
    import torch

    class Linear(base):
        def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
            torch.nn.Linear.__init__(self, in_features, out_features, bias, device, dtype)

    return Linear


def embedding_with_weights(base: type) -> type:
    """ComfyUI's Embedding, likewise, looked up where its weight is: only the rows found travel.

    Its own fetches the whole table of an offloaded one for every token.
    """
    import torch

    class Embedding(base):
        def __init__(self, num_embeddings, embedding_dim, device=None, dtype=None):
            torch.nn.Embedding.__init__(self, num_embeddings, embedding_dim, device=device, dtype=dtype)

        def forward(self, tokens):
            return torch.nn.functional.embedding(tokens.to(self.weight.device), self.weight).to(tokens.device)

    return Embedding


NATIVE = "ACEStep15"  # ComfyUI's own class for this model, in later versions


def model_class() -> type:
    """What our MODEL derives from: ComfyUI's own ACE-Step 1.5 where it has one, so that its loaders match LoRAs by all
    the names that they know for it (PEFT's and LyCORIS' among them); else the base of all models."""
    import comfy.model_base

    return getattr(comfy.model_base, NATIVE, comfy.model_base.BaseModel)


def is_native(model: object) -> bool:
    """Whether ComfyUI's own loader has made it, of the same files as ours."""
    return type(model).__name__ == NATIVE


def temporal_ratio() -> int:
    """What a latent format has to say that its latents are as long as ComfyUI's own of ACE-Step 1.5.

    Later versions stretch an empty latent by how this differs from what the node that made it says.
    """
    import comfy.latent_formats

    own = getattr(comfy.latent_formats, "ACEAudio15", None)
    return getattr(own, "temporal_downscale_ratio", 1)


def is_out_of_memory(error: Exception) -> bool:
    """Later versions know more kinds of it."""
    import comfy.model_management as mm

    return mm.is_oom(error) if hasattr(mm, "is_oom") else isinstance(error, mm.OOM_EXCEPTION)


def vae_rates(vae: object) -> tuple[int, int]:
    """The sample rates that a `comfy.sd.VAE` encodes from and decodes to.

    Before ComfyUI had more than one, it did not say: 44.1 kHz. Some later VAEs decode to another than they encode from.
    """
    encoded = getattr(vae, "audio_sample_rate", 44100)
    return encoded, getattr(vae, "audio_sample_rate_output", encoded)


def check_comfyui() -> None:
    """Raises one sentence for a ComfyUI without what we need. A version that is no number is taken for a new one."""
    try:
        from comfyui_version import __version__ as version
    except ImportError:
        return
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if numbers is not None and tuple(map(int, numbers.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise RuntimeError(f"ACE-Step 1.5 needs ComfyUI {oldest} or newer, and this is {version}: update ComfyUI")


def running_node() -> tuple[str, str] | None:
    """The ids of the prompt and of its node that runs in this thread. None where ComfyUI is used as a library, or does
    not tell."""
    try:
        from comfy_execution.utils import get_executing_context
    except ImportError:
        return None
    context = get_executing_context()
    return None if context is None else (context.prompt_id, context.node_id)
