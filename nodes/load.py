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
            description="Loads an ACE-Step 1.5 model with its text encoder and VAE.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=offered(Kind.NETWORK),
                    default=EMBEDDED,
                    tooltip="Who plays and sings: nano is tiny and always there, turbo is quick, base and sft take "
                    "their time; put model folders into models/acestep, single files into models/diffusion_models.",
                ),
                io.Combo.Input(
                    "text_encoder",
                    options=offered(Kind.TEXT_ENCODER),
                    default=AUTO,
                    tooltip="Who reads caption and lyrics; auto takes the one that comes with the model.",
                ),
                io.Combo.Input(
                    "vae",
                    options=offered(Kind.VAE),
                    default=AUTO,
                    tooltip="What colours the final sound; auto takes the one that comes with the model.",
                ),
                advanced(
                    io.Combo.Input(
                        "dtype",
                        options=[AUTO, *DTYPES],
                        default=AUTO,
                        tooltip="How finely the model is kept in memory: fp8 takes half the memory and sounds a "
                        "little rougher.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "variant",
                        options=[AUTO, *VARIANTS],
                        default=AUTO,
                        tooltip="How the model was trained, which sets steps, shift and guidance; auto goes by the "
                        "model's own files and name.",
                    )
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The player and singer, for Sample Song or KSampler."),
                TextEncoderSocket.Output(display_name="text_encoder", tooltip="The reader, for Encode Song."),
                io.Vae.Output(display_name="vae", tooltip="What turns latents into sound, for Decode Song."),
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
