"""Load LoRA: an adapter of the diffusion model."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.errors import RequestError
from .checks import valid
from .comfy_runtime.versions import advanced, search_aliases
from .files import fingerprint, lora_entries, resolve_lora
from .sockets import LOADERS

LIMIT = 10.0  # of a strength on the canvas
GROUPS = {
    "self_attention": "self-attention, which relates the moments of a song to each other",
    "cross_attention": "cross-attention, which follows caption and lyrics",
    "mlp": "the MLPs, which shape each moment by itself",
    "conditioning": "the parts that read caption, lyrics and timbre",
    "time": "the time embeddings, input and output",
}


class LoadLoraNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_LoadLora",
            display_name="Load LoRA",
            category=LOADERS,
            description="Adds a LoRA, DoRA, LoKr or LoHa to the model. Strength 1 is as trained, for every file.",
            **search_aliases("lora loader, dora, lokr, loha, lycoris, peft, adapter, style"),
            inputs=[
                io.Model.Input("model", tooltip="MODEL of Load Model, or of another Load LoRA for several adapters."),
                io.Combo.Input(
                    "lora",
                    options=lora_entries(),
                    tooltip="LoRA file or PEFT folder in models/loras. It must be trained on ACE-Step 1.5, in the size "
                    "of the model. nano-… are for the demo nano.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-LIMIT,
                    max=LIMIT,
                    step=0.05,
                    round=0.001,
                    tooltip="Strength. 1 sounds as trained, 0 is the plain model, 0.5 to 1 is typical.",
                ),
                *(
                    advanced(
                        io.Float.Input(
                            name,
                            default=1.0,
                            min=-LIMIT,
                            max=LIMIT,
                            step=0.05,
                            round=0.001,
                            tooltip=f"Factor of the strength in {where}. 1 is as trained, 0 leaves them out.",
                        )
                    )
                    for name, where in GROUPS.items()
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Model with the LoRA, for Sample Song or KSampler."),
                io.String.Output(
                    display_name="trigger_words", tooltip="Words that the caption needs, if the file names them."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, lora) -> bool | str:
        """Report a missing file before the run. A linked input is None here."""
        return True if lora is None else valid(resolve_lora, lora)

    @classmethod
    def fingerprint_inputs(cls, lora, **_) -> object:
        """Load again if the file changes under the same name."""
        return None if lora is None else fingerprint(resolve_lora(lora))

    @classmethod
    def execute(cls, model, lora, strength, **groups) -> io.NodeOutput:
        from ..acestep_core.adapters.adapter_file import read_adapter
        from ..acestep_core.adapters.module_paths import Group
        from .comfy_runtime.adapters import with_adapter
        from .comfy_runtime.progress import show_values

        unknown = set(groups) - set(GROUPS)
        if unknown:
            raise RequestError(f"{min(unknown)}: not an input of Load LoRA.")
        shares = {Group(name): share for name, share in groups.items()}
        patched, report = with_adapter(model, read_adapter(resolve_lora(lora)), strength, shares)
        show_values(str(report))
        return io.NodeOutput(patched, ", ".join(report.trigger))
