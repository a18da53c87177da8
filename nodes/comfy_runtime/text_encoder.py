"""The ACESTEP_TEXT_ENCODER socket."""

from __future__ import annotations

from pathlib import Path

import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher

from ...acestep_core import pipeline
from ...acestep_core.text.encoder import TextEncoder
from ...acestep_core.text.prompts import CAPTION_TOKENS, ORIGINAL, PromptStyle
from .estimates import reading_bytes
from .placement import ComfyPlacement, Container

# Qwen's own vocabulary, which ComfyUI carries for its text encoders: single files hold none.
BUNDLED_TOKENIZER = Path(comfy.model_base.__file__).parent / "text_encoders" / "qwen25_tokenizer"


class PlacedTextEncoder:
    """A text encoder that comes to the GPU, where there is one, to read a song."""

    def __init__(self, encoder: TextEncoder, style: PromptStyle = ORIGINAL):
        patcher = comfy.model_patcher.ModelPatcher(
            Container(encoder.module), mm.get_torch_device(), mm.text_encoder_offload_device()
        )
        config, dtype = encoder.module.config, next(encoder.module.parameters()).dtype
        memory = reading_bytes(config.hidden_size, config.intermediate_size, CAPTION_TOKENS, dtype.itemsize)
        placement = ComfyPlacement(patcher, memory, whole=True)
        self.model = pipeline.Model(text_encoder=encoder, placement=placement, style=style)
