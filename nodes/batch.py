"""Several songs made at once, each with its own words."""

from __future__ import annotations

from comfy_api.latest import io

from .sockets import SONG

SONGS = 8


class BatchSongsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        further = [
            io.Conditioning.Input(
                f"song_{i}",
                optional=True,
                tooltip="Conditioning of another song of the same duration, or a batch of songs.",
            )
            for i in range(2, SONGS + 1)
        ]
        return io.Schema(
            node_id="AS15_BatchSongs",
            display_name="Batch Songs",
            category=SONG,
            description="Combines several songs into one batch for Sample Song, in this order.",
            inputs=[
                io.Conditioning.Input(
                    "song_1", tooltip="Conditioning of the first song, from Encode Song, or a batch of songs."
                ),
                *further,
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="Conditioning of all songs, for Sample Song."
                )
            ],
        )

    @classmethod
    def execute(cls, song_1, **further) -> io.NodeOutput:
        from .conditioning import batch_of

        songs = [song_1, *(further[f"song_{i}"] for i in range(2, SONGS + 1) if further.get(f"song_{i}") is not None)]
        return io.NodeOutput(batch_of(songs))
