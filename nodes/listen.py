"""What a recording is, in words: caption, lyrics and facts of a song that can be played anew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..acestep_core.errors import RequestError
from .comfy_runtime.versions import advanced
from .sample import MAX_SEED
from .sockets import PLANNER, PlannerSocket, SongSocket
from .source import need_source, source_inputs

if TYPE_CHECKING:
    from ..acestep_core.song.codes import Codes


class ListenNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_Listen",
            display_name="Listen",
            category=PLANNER,
            description="Describes a recording with the planner (5 Hz LM): caption, lyrics, tempo, key and time "
            "signature.",
            inputs=[
                PlannerSocket.Input("planner", tooltip="Planner, from Load Planner."),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Diffusion model that extracts audio codes, from Load Model. Not needed if codes are "
                    "connected.",
                ),
                *source_inputs(),
                io.String.Input(
                    "codes",
                    optional=True,
                    force_input=True,
                    tooltip="Audio codes instead of audio, from Plan Song, Audio Codes or a file.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Random seed of the planner. Each seed gives another description of the audio.",
                ),
                advanced(
                    io.Float.Input(
                        "temperature",
                        default=0.3,
                        min=0.0,
                        max=2.0,
                        step=0.05,
                        round=0.01,
                        tooltip="Sampling temperature. Higher values vary the description; 0 always takes the "
                        "likeliest token. 0.3 is the default.",
                    )
                ),
            ],
            outputs=[
                SongSocket.Output(
                    display_name="song",
                    tooltip="Song that describes the audio, for Polish Song, Plan Song, Encode Song or Show Song.",
                ),
                io.String.Output(
                    display_name="codes", tooltip="Audio codes of the audio, five per second, for Encode Song or Cover."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, planner, seed, temperature, model=None, audio=None, vae=None, latent=None, codes=None
    ) -> io.NodeOutput:
        from ..acestep_core.planner.functions import LISTENING, understand
        from ..acestep_core.song.codes import format_codes
        from .comfy_runtime import LYRICS_TOKENS, watched

        heard = heard_codes(model, audio, vae, latent, codes)
        ready = planner.ready(more=len(heard) + LYRICS_TOKENS)
        with watched() as callbacks:
            sampling = replace(LISTENING, temperature=temperature)
            (found,) = understand(ready, heard, [seed], sampling=sampling, callbacks=callbacks)
        return io.NodeOutput(found.song, format_codes(heard))


def heard_codes(model, audio, vae, latent, codes: str | None) -> Codes:
    """The codes of the first song there is; what is ignored is said on the node."""
    from ..acestep_core.song.codes import parse_songs
    from .comfy_runtime import show_note, tokenized

    notes: list[str] = []
    songs = parse_songs(codes or "")
    if codes is not None and not songs and audio is None and latent is None:
        raise RequestError("there is nothing to listen to: the codes are empty")
    if songs:
        if audio is not None or latent is not None:
            notes.append("audio and latent are ignored: the codes are listened to")
    else:
        if model is None:
            raise RequestError("listening to audio needs a model: connect the one from Load Model, or give codes")
        source = need_source(audio, vae, latent)
        notes += source.notes
        songs = tokenized(model, source.latents)
    if len(songs) > 1:
        notes.append(f"only the first of the {len(songs)} songs is listened to")
    show_note(*notes)
    return songs[0]
