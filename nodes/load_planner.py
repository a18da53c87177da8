"""The planner: the language model that thinks a song out before it is played."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.checkpoints.catalog import Kind
from ..acestep_core.errors import AceStepError
from .comfy_runtime.versions import advanced
from .files import fingerprint, offered, resolve_planner
from .sockets import AUTO, LOADERS, PlannerSocket

DTYPES = ["bfloat16", "float16", "float32", "fp8_e4m3fn", "int8"]


class LoadPlannerNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_LoadPlanner",
            display_name="Load Planner",
            category=LOADERS,
            description="Loads a planner (5 Hz LM): the language model that plans, writes and describes songs.",
            inputs=[
                io.Combo.Input(
                    "planner",
                    options=offered(Kind.PLANNER),
                    tooltip="Planner (5 Hz LM). Larger planners give richer melodies and lyrics; 1.7B is typical. "
                    "Folders (acestep-5Hz-lm-…) belong in models/acestep, single files in models/text_encoders.",
                ),
                advanced(
                    io.Combo.Input(
                        "dtype",
                        options=[AUTO, *DTYPES],
                        default=AUTO,
                        tooltip="Weight dtype. int8 and fp8 take about half the memory and cost some precision, int8 "
                        "less than fp8. auto follows ComfyUI's settings.",
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
    def validate_inputs(cls, planner) -> bool | str:
        """A sentence of our own for a file that is gone, or is no planner."""
        if planner is None:  # comes from another node
            return True
        try:
            resolve_planner(planner)
        except AceStepError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, planner, dtype) -> object:
        """Another file under the same name is another planner."""
        return None if planner is None else fingerprint(*resolve_planner(planner))

    @classmethod
    def execute(cls, planner, dtype) -> io.NodeOutput:
        from .comfy_runtime import load_planner

        return io.NodeOutput(load_planner(*resolve_planner(planner), dtype))
