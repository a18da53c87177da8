"""The ACESTEP_TEXT_ENCODER socket."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.model_patcher

from ...acestep_core.load import Model
from ...acestep_core.text.encoder import TextEncoder
from ...acestep_core.text.prompts import CAPTION_TOKENS, ORIGINAL, PromptStyle
from .estimates import text_encoding_bytes
from .placement import ComfyPlacement, Container, storage_devices


class PlacedTextEncoder:
    """A text encoder that ComfyUI loads onto the GPU, if there is one."""

    def __init__(self, encoder: TextEncoder, style: PromptStyle = ORIGINAL):
        module = encoder.module
        devices = mm.get_torch_device(), storage_devices().text_encoder
        # Not the dynamic patcher, which would never free the layers of another library for a dynamic MODEL.
        self.patcher = comfy.model_patcher.ModelPatcher(Container(module), *devices)
        itemsize = next(module.parameters()).dtype.itemsize
        sizes = module.config.hidden_size, module.config.intermediate_size
        placement = ComfyPlacement(self.patcher, text_encoding_bytes(*sizes, CAPTION_TOKENS, itemsize), whole=True)
        self.model = Model(text_encoder=encoder, placement=placement, style=style)
