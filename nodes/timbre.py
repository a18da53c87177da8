"""Timbre: the sound of a reference recording."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy_runtime.versions import search_aliases
from .sockets import EDITS


class TimbreNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Timbre",
            display_name="Timbre",
            category=EDITS,
            description="Transfers the timbre of a recording: its voice, instruments and acoustics, not its melody.",
            **search_aliases("reference, reference audio, voice clone, style reference"),
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="Conditioning (positive), from Encode Song."),
                io.Vae.Input("vae", tooltip="VAE that encodes audio, from Load Model."),
                io.Audio.Input(
                    "audio",
                    tooltip="Reference audio for the timbre. Three excerpts of ten seconds are used: from the "
                    "start, from one third on, and from the end.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="Conditioning with the reference timbre, for Sample Song or KSampler.",
                )
            ],
        )

    @classmethod
    def execute(cls, conditioning, vae, audio) -> io.NodeOutput:
        from ..acestep_core.audio import dropped_channels
        from ..acestep_core.audio.reference import reference_audio
        from ..acestep_core.config import SAMPLE_RATE
        from .comfy_runtime.conditioning import add_timbre
        from .comfy_runtime.placement import intermediate_device
        from .comfy_runtime.progress import node_callbacks, show_notes
        from .comfy_runtime.vae import song_vae

        excerpts = reference_audio(audio["waveform"], audio["sample_rate"])
        show_notes(*dropped_channels(audio["waveform"]))
        with node_callbacks() as callbacks:
            latents = song_vae(vae).to_latents(excerpts, SAMPLE_RATE, callbacks)
        return io.NodeOutput(add_timbre(conditioning, latents.to(intermediate_device())))
