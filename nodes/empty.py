"""Empty Song: a latent with the duration of a song."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy_runtime.versions import search_aliases
from .sample import song_duration
from .sockets import MAX_BATCH, SAMPLING, SongSocket


class EmptyLatentNode(io.ComfyNode):
    """ComfyUI 0.3.75 has no such node: its audio latents have another frame rate or shape."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_EmptyLatent",
            display_name="Empty Song",
            category=SAMPLING,
            description="Creates an empty latent with the duration of a song, for KSampler.",
            **search_aliases("empty latent audio, duration"),
            inputs=[
                SongSocket.Input("song", tooltip="Song whose duration sets the length of the latent."),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=MAX_BATCH,
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
        from .comfy_runtime.latents import to_latent
        from .comfy_runtime.placement import intermediate_device

        shape = (batch_size, frames_of(song_duration(song)), LATENT_CHANNELS)
        return io.NodeOutput(to_latent(torch.zeros(shape, device=intermediate_device())))
