"""The model: diffusion model, text encoder and VAE, from a folder or from single files."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.checkpoints.catalog import VARIANTS, Kind
from ..acestep_core.errors import AceStepError
from .comfy_runtime.versions import advanced
from .files import EMBEDDED, fingerprint, offered, resolve
from .sockets import AUTO, LOADERS, TextEncoderSocket

DTYPES = ["bfloat16", "float32", "fp8_e4m3fn"]


class LoadModelNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_LoadModel",
            display_name="Load Model",
            category=LOADERS,
            description="Loads an ACE-Step 1.5 diffusion model with its text encoder and VAE.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=offered(Kind.NETWORK),
                    default=EMBEDDED,
                    tooltip="The diffusion model. nano is a tiny built-in demo; turbo needs 8 steps, base and sft "
                    "about 50. Model folders belong in models/acestep, single files in models/diffusion_models.",
                ),
                io.Combo.Input(
                    "text_encoder",
                    options=offered(Kind.TEXT_ENCODER),
                    default=AUTO,
                    tooltip="Text encoder for caption and lyrics, Qwen3-Embedding-0.6B in released models. auto uses "
                    "the model's own.",
                ),
                io.Combo.Input(
                    "vae",
                    options=offered(Kind.VAE),
                    default=AUTO,
                    tooltip="VAE that converts between audio and latents. auto uses the model's own.",
                ),
                advanced(
                    io.Combo.Input(
                        "dtype",
                        options=[AUTO, *DTYPES],
                        default=AUTO,
                        tooltip="Weight dtype. fp8 halves the memory of bfloat16 and makes the sound slightly rougher. "
                        "auto follows ComfyUI's settings.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "variant",
                        options=[AUTO, *VARIANTS],
                        default=AUTO,
                        tooltip="Model variant, which sets the default steps, shift and guidance. auto detects it from "
                        "the model's files and name.",
                    )
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Diffusion model, for Sample Song or KSampler."),
                TextEncoderSocket.Output(display_name="text_encoder", tooltip="Text encoder, for Encode Song."),
                io.Vae.Output(display_name="vae", tooltip="VAE, for Decode Song and Encode Audio."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model, text_encoder, vae) -> bool | str:
        """A sentence of our own for a file that is gone, or lies outside of the model folders."""
        if None in (model, text_encoder, vae):  # comes from another node
            return True
        try:
            resolve(model, text_encoder, vae)
        except AceStepError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model, text_encoder, vae, dtype, variant) -> object:
        """Another file under the same name is another model."""
        if None in (model, text_encoder, vae):
            return None
        parts = resolve(model, text_encoder, vae)
        return fingerprint(parts.network, parts.text_encoder, parts.vae, parts.tokenizer)

    @classmethod
    def execute(cls, model, text_encoder, vae, dtype, variant) -> io.NodeOutput:
        from .loading import load_parts

        parts = resolve(model, text_encoder, vae)
        return io.NodeOutput(*load_parts(parts, dtype, None if variant == AUTO else variant))
