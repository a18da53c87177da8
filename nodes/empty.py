"""Where ComfyUI's own samplers start: a latent with nothing in it, as long as the song."""

from __future__ import annotations

from comfy_api.latest import io

from .sockets import SAMPLING, SongSocket
from .song import duration_of


class EmptyLatentNode(io.ComfyNode):
    """ComfyUI 0.3.75 has none of this kind: its audio latents have another frame rate or another shape."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_EmptyLatent",
            display_name="Empty Song",
            category=SAMPLING,
            description="Creates an empty latent with the duration of a song, for KSampler.",
            inputs=[
                SongSocket.Input("song", tooltip="Song whose duration sets the length of the latent."),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Batch size, the number of takes that KSampler samples at once. 1 to 4 is typical.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="Empty latent, for KSampler.")],
        )

    @classmethod
    def execute(cls, song, batch_size) -> io.NodeOutput:
        import torch

        from ..acestep_core.config import LATENT_CHANNELS
        from ..acestep_core.pipeline import frames_of
        from .comfy_runtime import intermediate_device
        from .latents import to_latent

        frames = frames_of(duration_of(song))
        return io.NodeOutput(to_latent(torch.zeros(batch_size, frames, LATENT_CHANNELS, device=intermediate_device())))
