"""Load Model and Load Planner: from a folder or from single files."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.checkpoints.catalog import Kind
from ..acestep_core.checkpoints.variants import VARIANTS
from .checks import valid
from .comfy_runtime.versions import advanced, device_of, device_options, search_aliases
from .files import NANO_ENTRY, fingerprint, model_entries, resolve_model, resolve_planner
from .sockets import AUTO, LOADERS, PlannerSocket, TextEncoderSocket

MODEL_DTYPES = ["bfloat16", "float32", "fp8_e4m3fn"]
PLANNER_DTYPES = ["bfloat16", "float16", "float32", "fp8_e4m3fn", "int8"]


class LoadModelNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_LoadModel",
            display_name="Load Model",
            category=LOADERS,
            description="Loads an ACE-Step 1.5 diffusion model with its text encoder and VAE.",
            **search_aliases("ace step, acestep, ace-step 1.5, checkpoint loader, unet loader"),
            inputs=[
                io.Combo.Input(
                    "model",
                    options=model_entries(Kind.NETWORK),
                    default=NANO_ENTRY,
                    tooltip="The diffusion model. nano is a tiny built-in demo; turbo needs 8 steps, base and sft "
                    "about 50. Model folders belong in models/acestep, single files in models/diffusion_models.",
                ),
                io.Combo.Input(
                    "text_encoder",
                    options=model_entries(Kind.TEXT_ENCODER),
                    default=AUTO,
                    tooltip="Text encoder for caption and lyrics, Qwen3-Embedding-0.6B in released models. auto uses "
                    "the model's own.",
                ),
                io.Combo.Input(
                    "vae",
                    options=model_entries(Kind.VAE),
                    default=AUTO,
                    tooltip="VAE that converts between audio and latents. auto uses the model's own.",
                ),
                advanced(
                    io.Combo.Input(
                        "dtype",
                        options=[AUTO, *MODEL_DTYPES],
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
        """Report a missing or unusable file before the run. A linked input is None here."""
        if None in (model, text_encoder, vae):
            return True
        return valid(resolve_model, model, text_encoder, vae)

    @classmethod
    def fingerprint_inputs(cls, model, text_encoder, vae, dtype, variant) -> object:
        """Load again if a file changes under the same name."""
        if None in (model, text_encoder, vae):
            return None
        parts = resolve_model(model, text_encoder, vae)
        return fingerprint(parts.network, parts.text_encoder, parts.vae, parts.tokenizer)

    @classmethod
    def execute(cls, model, text_encoder, vae, dtype, variant) -> io.NodeOutput:
        from .comfy_runtime.load import load_model_sockets

        parts = resolve_model(model, text_encoder, vae)
        return io.NodeOutput(*load_model_sockets(parts, dtype, None if variant == AUTO else variant))


class LoadPlannerNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_LoadPlanner",
            display_name="Load Planner",
            category=LOADERS,
            description="Loads a planner (5 Hz LM): the language model that plans, writes and describes songs.",
            **search_aliases("llm, 5 hz lm, language model, qwen"),
            inputs=[
                io.Combo.Input(
                    "planner",
                    options=model_entries(Kind.PLANNER),
                    tooltip="Planner (5 Hz LM). Larger planners give richer melodies and lyrics; 1.7B is typical. "
                    "Folders (acestep-5Hz-lm-…) belong in models/acestep, single files in models/text_encoders.",
                ),
                advanced(
                    io.Combo.Input(
                        "dtype",
                        options=[AUTO, *PLANNER_DTYPES],
                        default=AUTO,
                        tooltip="Weight dtype. int8 and fp8 take about half the memory and cost some precision, int8 "
                        "less than fp8. auto follows ComfyUI's settings.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "device",
                        options=device_options(),
                        default="default",
                        tooltip="Device of the planner. On a machine with two GPUs, gpu:1 leaves the first one to the "
                        "diffusion model. cpu is slow, and saves GPU memory.",
                    )
                ),
            ],
            outputs=[
                PlannerSocket.Output(
                    display_name="planner", tooltip="Planner, for Plan Song, Write Song, Polish Song and Listen."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, planner, device="default") -> bool | str:
        """Report a missing or unusable file before the run. A linked input is None here.

        Any device is allowed, so that a workflow of a machine with more GPUs runs here too.
        """
        return True if planner is None else valid(resolve_planner, planner)

    @classmethod
    def fingerprint_inputs(cls, planner, dtype, device="default") -> object:
        """Load again if a file changes under the same name."""
        return None if planner is None else fingerprint(*resolve_planner(planner))

    @classmethod
    def execute(cls, planner, dtype, device="default") -> io.NodeOutput:
        from .comfy_runtime.load import load_planner_socket
        from .comfy_runtime.progress import show_notes

        chosen = device_of(device)
        if chosen is None and device != "default":
            show_notes(f"device: this machine has no {device!s:.40}. The planner runs on the default device.")
        return io.NodeOutput(load_planner_socket(*resolve_planner(planner), dtype, chosen))
