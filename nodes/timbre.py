"""Timbre: the sound of a reference recording."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy_runtime.versions import search_aliases, zero_shown_as
from .sockets import EDITS, seconds_input

MAX_REFERENCE_SECONDS = 3600.0


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
                seconds_input(
                    "start",
                    0.0,
                    MAX_REFERENCE_SECONDS,
                    0.1,
                    "Start of the part of the audio to use, in seconds. Usually 0; the waveform sets it.",
                    optional=True,
                ),
                zero_shown_as(
                    "end",
                    seconds_input(
                        "end",
                        0.0,
                        MAX_REFERENCE_SECONDS,
                        0.1,
                        "End of the part of the audio to use, in seconds. 0 is the end of the audio; 10 to 30 seconds "
                        "after start is typical.",
                        optional=True,
                    ),
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
    def execute(cls, conditioning, vae, audio, start=0.0, end=0.0) -> io.NodeOutput:
        from ..acestep_core.audio import dropped_channels, to_stereo
        from ..acestep_core.audio.reference import reference_audio
        from ..acestep_core.config import SAMPLE_RATE
        from .comfy_runtime.conditioning import add_timbre
        from .comfy_runtime.placement import intermediate_device
        from .comfy_runtime.progress import node_callbacks, show_notes
        from .comfy_runtime.vae import song_vae
        from .comfy_runtime.waveforms import source_view

        waveform, rate = audio["waveform"], audio["sample_rate"]
        excerpts = reference_audio(waveform, rate, start, end or None)
        show_notes(*dropped_channels(waveform))
        with node_callbacks() as callbacks:
            latents = song_vae(vae).to_latents(excerpts, SAMPLE_RATE, callbacks)
        view = source_view(to_stereo(waveform)[0], round(rate), waveform.shape[-1] / rate)
        return io.NodeOutput(add_timbre(conditioning, latents.to(intermediate_device())), ui={"waveform": [view]})
