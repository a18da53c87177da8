"""Decode Song and Encode Audio: between latents and audio."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.config import SAMPLE_RATE
from .comfy_runtime.versions import search_aliases
from .sockets import AUDIO


class DecodeNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Decode",
            display_name="Decode Song",
            category=AUDIO,
            description="Decodes latents to stereo audio at 48 kHz.",
            **search_aliases("vae decode audio, latent to audio"),
            inputs=[
                io.Vae.Input("vae", tooltip="VAE, from Load Model."),
                io.Latent.Input(
                    "latent", tooltip="Latents to decode, from Sample Song, KSampler or any other ACE-Step 1.5 sampler."
                ),
                io.Boolean.Input(
                    "normalize",
                    default=True,
                    tooltip="Peak normalization. On, the loudest peak is −1 dBFS. Off, the level stays as generated "
                    "and only clipping is prevented.",
                ),
            ],
            outputs=[
                io.Audio.Output(
                    display_name="audio", tooltip="Audio of the song, for Save Song, Finish Song or Compare Takes."
                )
            ],
        )

    @classmethod
    def execute(cls, vae, latent, normalize) -> io.NodeOutput:
        import torch

        from .comfy_runtime.latents import EDITS_KEY, edits_of, from_latent
        from .comfy_runtime.notes import decode_notes
        from .comfy_runtime.progress import node_callbacks, show_notes
        from .comfy_runtime.vae import song_vae

        latents, edits = from_latent(latent), edits_of(latent)
        show_notes(*decode_notes(edits, latent.get(EDITS_KEY) or (), normalize))
        parts = latents.split([count for _, count in edits])
        with node_callbacks() as callbacks:
            waveforms = [
                song_vae(vae).to_waveform(part, callbacks, normalize, edit=edit)
                for part, (edit, _) in zip(parts, edits, strict=True)
            ]
        # A source that ends within a frame shortens its song by less than a frame. A batch has one length.
        length = min(waveform.shape[-1] for waveform in waveforms)
        waveform = torch.cat([waveform[..., :length] for waveform in waveforms])
        return io.NodeOutput({"waveform": waveform, "sample_rate": SAMPLE_RATE})


class EncodeAudioNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_EncodeAudio",
            display_name="Encode Audio",
            category=AUDIO,
            description="Encodes audio to latents. Any sample rate, mono or stereo.",
            **search_aliases("vae encode audio, audio to latent"),
            inputs=[
                io.Vae.Input("vae", tooltip="VAE, from Load Model."),
                io.Audio.Input("audio", tooltip="Audio to encode."),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="Latents of the audio, for Cover, Repaint and other edits."
                )
            ],
        )

    @classmethod
    def execute(cls, vae, audio) -> io.NodeOutput:
        from .comfy_runtime.latents import to_latent
        from .comfy_runtime.progress import node_callbacks
        from .comfy_runtime.vae import song_vae

        with node_callbacks() as callbacks:
            latents = song_vae(vae).to_latents(audio["waveform"], audio["sample_rate"], callbacks)
        return io.NodeOutput(to_latent(latents))
