"""The one place that talks to ComfyUI's model management: placement, the MODEL, VAE and text encoder sockets, progress,
interrupt. What differs between ComfyUI versions is in `nodes/versions.py`.
"""

from .condition import check_sigmas
from .model import AceStep15, placed_network, song_model, tokenized, wrap_network
from .ops import comfy_ops
from .patches import not_followed
from .placement import homes, intermediate_device
from .planner import LYRICS_TOKENS, PlacedPlanner, load_planner
from .precision import encoder_dtype, network_dtypes, text_encoder_dtype, vae_dtype
from .progress import show_note, watched
from .text_encoder import BUNDLED_TOKENIZER, PlacedTextEncoder
from .vae import SongVAE, song_vae

__all__ = [
    "BUNDLED_TOKENIZER",
    "LYRICS_TOKENS",
    "AceStep15",
    "PlacedPlanner",
    "PlacedTextEncoder",
    "SongVAE",
    "check_sigmas",
    "comfy_ops",
    "encoder_dtype",
    "homes",
    "intermediate_device",
    "load_planner",
    "network_dtypes",
    "not_followed",
    "placed_network",
    "show_note",
    "song_model",
    "song_vae",
    "text_encoder_dtype",
    "tokenized",
    "vae_dtype",
    "watched",
    "wrap_network",
]
