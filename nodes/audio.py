"""Between latents and sound, both ways."""

from __future__ import annotations

from comfy_api.latest import io

from ..acestep_core.config import SAMPLE_RATE
from .latents import EDITS, Edits, edits_of, from_latent, to_latent
from .sockets import AUDIO


class DecodeNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Decode",
            display_name="Decode Song",
            category=AUDIO,
            description="Decodes latents to stereo audio at 48 kHz.",
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
                io.Audio.Output(display_name="audio", tooltip="Audio of the song, for Save Audio or Preview Audio.")
            ],
        )

    @classmethod
    def execute(cls, vae, latent, normalize) -> io.NodeOutput:
        import torch

        from .comfy_runtime import song_vae, watched

        latents, edits = from_latent(latent), edits_of(latent)
        parts = latents.split([count for _, count in edits])
        with watched(notes=notes_on(edits, latent, normalize)) as callbacks:
            waveforms = [
                song_vae(vae).to_waveform(part, callbacks, normalize, edit=edit)
                for part, (edit, _) in zip(parts, edits, strict=True)
            ]
        # A source that ends within a frame sets the length of what was made of it, and so that of its neighbours.
        length = min(waveform.shape[-1] for waveform in waveforms)
        waveform = waveforms[0] if len(waveforms) == 1 else torch.cat([each[..., :length] for each in waveforms])
        return io.NodeOutput({"waveform": waveform, "sample_rate": SAMPLE_RATE})


def notes_on(edits: Edits, latent: dict, normalize: bool) -> list[str]:
    keeps = any(edit is not None and edit.restores_source for edit, _ in edits)
    kept_before = any(edit is not None and edit.restores_source for edit, _ in latent.get(EDITS) or ())
    if kept_before and not keeps:
        return ["the kept part is decoded like the rest: the latent was changed since Sample Song made it"]
    if keeps and normalize:
        return ["normalize is ignored: the kept part stays as loud as it was"]
    return []


class EncodeAudioNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_EncodeAudio",
            display_name="Encode Audio",
            category=AUDIO,
            description="Encodes audio to latents. Any sample rate, mono or stereo.",
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
        from .comfy_runtime import song_vae, watched

        with watched() as callbacks:
            latents = song_vae(vae).to_latents(audio["waveform"], audio["sample_rate"], callbacks)
        return io.NodeOutput(to_latent(latents))
