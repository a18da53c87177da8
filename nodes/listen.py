"""Listen: a recording as a song, with caption, lyrics and metadata."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..acestep_core.errors import RequestError
from .comfy_runtime.versions import search_aliases
from .sockets import PLANNER, PlannerSocket, SongSocket, seed_input, temperature_input
from .source import require_source, source_inputs

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
            **search_aliases("transcribe, understand, describe, analyze, detect bpm"),
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
                seed_input("Random seed of the planner. Each seed gives another description of the audio."),
                temperature_input(
                    0.3,
                    "Sampling temperature. Higher values vary the description; 0 always takes the likeliest token. "
                    "0.3 is the default.",
                ),
            ],
            outputs=[
                SongSocket.Output(
                    display_name="song",
                    tooltip="Song that describes the audio, for Polish Song, Plan Song, Encode Song or Edit Song.",
                ),
                io.String.Output(
                    display_name="codes",
                    tooltip="Audio codes of the audio, five per second, for Encode Song or Cover.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, planner, seed, temperature, model=None, audio=None, vae=None, latent=None, codes=None
    ) -> io.NodeOutput:
        from ..acestep_core.planner.writing import LISTENING, understand
        from ..acestep_core.song.codes import format_codes
        from .comfy_runtime.planner import LYRICS_TOKENS
        from .comfy_runtime.progress import node_callbacks

        song_codes = source_codes(model, audio, vae, latent, codes)
        placed = planner.with_room(new_tokens=len(song_codes) + LYRICS_TOKENS)
        with node_callbacks() as callbacks:
            sampling = replace(LISTENING, temperature=temperature)
            (described,) = understand(placed, song_codes, [seed], sampling=sampling, callbacks=callbacks)
        return io.NodeOutput(described.song, format_codes(song_codes))


def source_codes(model, audio, vae, latent, codes: str | None) -> Codes:
    """Return the audio codes of the first connected song. Show notes on inputs that are not used."""
    from ..acestep_core.song.codes import parse_code_lines
    from .comfy_runtime.model import extract_codes
    from .comfy_runtime.notes import listen_notes
    from .comfy_runtime.progress import show_notes

    has_source = audio is not None or latent is not None
    songs = parse_code_lines(codes or "")
    if codes is not None and not songs and not has_source:
        raise RequestError("codes: empty. Connect audio codes, audio with vae, or a latent.")
    has_codes = bool(songs)
    if not has_codes:
        if model is None:
            raise RequestError("model: missing. Audio needs the one of Load Model; codes do not.")
        songs = extract_codes(model, require_source(audio, vae, latent).latents)
    show_notes(*listen_notes(len(songs), has_source, has_codes))
    return songs[0]
