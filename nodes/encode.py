"""From the words of a song to what the network reads."""

from __future__ import annotations

from comfy_api.latest import io

from .sockets import CATEGORY, SongSocket, TextEncoderSocket


class EncodeNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Encode",
            display_name="Encode Song",
            category=CATEGORY,
            description="Reads caption, lyrics and facts of a song with the text encoder.",
            inputs=[
                TextEncoderSocket.Input("text_encoder", tooltip="The reader of the words, from Load Model."),
                SongSocket.Input("song", tooltip="The song to be made."),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="What the singer and the band are told, for Sample or for ComfyUI's own samplers.",
                )
            ],
        )

    @classmethod
    def execute(cls, text_encoder, song) -> io.NodeOutput:
        from ..acestep_core import pipeline
        from .comfy_runtime import intermediate_device, show_on_node, watched
        from .conditioning import to_conditioning

        with watched() as hooks:
            text = pipeline.encode(text_encoder.model, song, hooks)
        if text.warnings:  # the core has logged them
            show_on_node("\n".join(text.warnings))
        return io.NodeOutput(to_conditioning(text, song, intermediate_device()))
