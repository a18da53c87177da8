"""Training Options: held-out songs and the finer settings of Train LoRA."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.train.train_settings import OPTIMIZERS
from .comfy_runtime.versions import search_aliases, zero_shown_as
from .sockets import TRAINING, TrainOptionsSocket


class TrainOptionsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_TrainOptions",
            display_name="Training Options",
            category=TRAINING,
            description="Options of Train LoRA: held-out songs that find the best step, early stopping, dropout, EMA.",
            **search_aliases("validation, early stopping, held out, dropout, ema, optimizer, 8-bit adam, bitsandbytes"),
            inputs=[
                zero_shown_as(
                    "none",
                    io.Int.Input(
                        "held_out",
                        default=0,
                        min=0,
                        max=10_000,
                        tooltip="Held-out songs, which are not trained on: their loss says when more steps no longer "
                        "help. 1 of ten songs is typical, 0 trains on all.",
                    ),
                ),
                io.Int.Input(
                    "held_out_every",
                    default=50,
                    min=1,
                    max=1_000_000,
                    tooltip="Steps between two measurements of the held-out songs. 50 is typical.",
                ),
                zero_shown_as(
                    "off",
                    io.Int.Input(
                        "patience",
                        default=0,
                        min=0,
                        max=1000,
                        tooltip="Early stopping: the training ends after so many measurements without a lower loss of "
                        "the held-out songs. 5 is typical, 0 is off.",
                    ),
                ),
                zero_shown_as(
                    "off",
                    io.Float.Input(
                        "dropout",
                        default=0.0,
                        min=0.0,
                        max=0.9,
                        step=0.05,
                        round=0.01,
                        tooltip="Dropout of the adapter's inputs, against learning single songs by heart. 0.1 for few "
                        "songs, usually 0.",
                    ),
                ),
                zero_shown_as(
                    "off",
                    io.Float.Input(
                        "ema",
                        default=0.0,
                        min=0.0,
                        max=0.9999,
                        step=0.001,
                        round=0.0001,
                        tooltip="EMA: decay of a moving average of the adapter, which smooths its sound. 0.999 is "
                        "typical, usually 0.",
                    ),
                ),
                io.Combo.Input(
                    "optimizer",
                    options=list(OPTIMIZERS),
                    default=OPTIMIZERS[0],
                    tooltip="Optimizer. adamw8bit needs less memory and the package bitsandbytes. adamw is typical.",
                ),
            ],
            outputs=[TrainOptionsSocket.Output(display_name="options", tooltip="Options, for Train LoRA.")],
        )

    @classmethod
    def execute(cls, **options) -> io.NodeOutput:
        from ..acestep_core.train.train_settings import TrainSettings

        TrainSettings(**options)
        return io.NodeOutput(options)
