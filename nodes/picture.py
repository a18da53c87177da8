"""Song Picture: a song as an image."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.audio.picture import KINDS, LARGEST, SMALLEST
from .comfy_runtime.versions import search_aliases
from .sockets import AUDIO


class SongPictureNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_SongPicture",
            display_name="Song Picture",
            category=AUDIO,
            description="Draws the waveform or the spectrogram of a song as an image, for thumbnails and for masks.",
            **search_aliases("waveform image, spectrogram image, audio to image, mask, thumbnail, cover art"),
            inputs=[
                io.Audio.Input("audio", tooltip="Audio to draw. Each song of a batch becomes an image."),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default=KINDS[0],
                    tooltip="Kind of picture. waveform shows peaks and level, spectrogram the frequencies from 40 Hz "
                    "to 16 kHz.",
                ),
                size_input("width", 1024, "Width of the image in pixels, from the beginning of the song to its end."),
                size_input("height", 256, "Height of the image in pixels."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="Image of the song, for Save Image or Preview Image.")
            ],
        )

    @classmethod
    def execute(cls, audio, kind, width, height) -> io.NodeOutput:
        import torch

        from ..acestep_core.audio.picture import draw_song
        from .comfy_runtime.audios import songs_of

        songs, rate = songs_of(audio)
        return io.NodeOutput(torch.stack([draw_song(song, rate, kind, width, height) for song in songs]))


def size_input(name: str, default: int, tooltip: str) -> io.Input:
    return io.Int.Input(
        name, default=default, min=SMALLEST, max=LARGEST, step=8, tooltip=f"{tooltip} {default} is typical."
    )
