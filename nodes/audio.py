"""Between latents and sound, both ways."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.config import SAMPLE_RATE
from .latents import from_latent, to_latent
from .sockets import CATEGORY


class DecodeNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Decode",
            display_name="Decode Song",
            category=CATEGORY,
            description="Turns latents into sound: stereo, 48 kHz.",
            inputs=[
                io.Vae.Input("vae", tooltip="What turns latents into sound, from Load Model."),
                io.Latent.Input("latent", tooltip="The song to hear, from Sample Song or any ACE-Step 1.5 sampler."),
                io.Boolean.Input(
                    "normalize",
                    default=True,
                    tooltip="On, the loudest moment of the song comes just below full scale; off, the song is as loud "
                    "as the model made it, only kept from clipping.",
                ),
            ],
            outputs=[io.Audio.Output(display_name="audio", tooltip="The song.")],
        )

    @classmethod
    def execute(cls, vae, latent, normalize) -> io.NodeOutput:
        from .comfy_runtime import song_vae, watched

        latents = from_latent(latent)
        with watched() as hooks:
            waveform = song_vae(vae).to_waveform(latents, hooks, normalize)
        return io.NodeOutput({"waveform": waveform, "sample_rate": SAMPLE_RATE})


class EncodeAudioNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_EncodeAudio",
            display_name="Encode Audio",
            category=CATEGORY,
            description="Turns a recording into latents; any sample rate, mono or stereo.",
            inputs=[
                io.Vae.Input("vae", tooltip="What turns sound into latents, from Load Model."),
                io.Audio.Input("audio", tooltip="The recording."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The recording as the model hears it.")],
        )

    @classmethod
    def execute(cls, vae, audio) -> io.NodeOutput:
        from .comfy_runtime import song_vae, watched

        with watched() as hooks:
            latents = song_vae(vae).to_latents(audio["waveform"], audio["sample_rate"], hooks)
        return io.NodeOutput(to_latent(latents))
