"""The song that a task works on, as AUDIO with a VAE or as LATENT: the same sockets on every node that takes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ..acestep_core.config import MAX_SECONDS, SAMPLE_RATE
from ..acestep_core.edit.source import check_latents, extend, source_waveform
from ..acestep_core.errors import RequestError
from .latents import from_latent

if TYPE_CHECKING:
    from ..acestep_core.edit.edit import Edit

MAX_EDIT_SECONDS = float(MAX_SECONDS)


@dataclass(frozen=True)
class SourceSong:
    """latents [batch, frames, 64], waveform [batch, 2, samples] at 48 kHz or None; `added` are the regions of the room
    made around them; notes say what was ignored; noise_mask is that of a latent, where the node follows it."""

    latents: torch.Tensor
    waveform: torch.Tensor | None
    added: tuple[tuple[float, float], ...]
    notes: tuple[str, ...]
    noise_mask: torch.Tensor | None = None


def source_inputs() -> list[io.Input]:
    return [
        io.Audio.Input("audio", optional=True, tooltip="Source audio, any sample rate. Needs vae as well."),
        io.Vae.Input("vae", optional=True, tooltip="VAE that encodes audio, from Load Model."),
        io.Latent.Input(
            "latent",
            optional=True,
            tooltip="Source latents instead of audio, from Encode Audio or Sample Song.",
        ),
    ]


def find_source(
    audio, vae, latent, room: tuple[float, float] | None = None, *, in_part: bool = False
) -> SourceSong | None:
    """The source among a node's inputs, with room of so many seconds before and after it, or None where nothing is
    connected. `in_part` tells that the node follows the noise mask of a latent. Raises RequestError for a source that
    cannot be used."""
    from ..acestep_core.audio import dropped_channels
    from .comfy_runtime import song_vae, watched

    added: tuple[tuple[float, float], ...] = ()
    if audio is not None:
        if vae is None:
            raise RequestError("audio needs a vae beside it: connect the one from Load Model")
        waveform = source_waveform(audio["waveform"], audio["sample_rate"])
        if room:
            waveform, added = extend(waveform, *room)
        with watched() as callbacks:
            latents = song_vae(vae).to_latents(waveform, SAMPLE_RATE, callbacks)
        ignored = ["the latent is ignored: the song to work on is the audio"] if latent is not None else []
        return SourceSong(latents, waveform, added, (*dropped_channels(audio["waveform"]), *ignored))
    if latent is None:
        return None
    latents = check_latents(from_latent(latent))
    if room:
        latents, added = extend(latents, *room)
    notes = ["the vae is ignored: a latent needs none"] if vae is not None else []
    mask = latent.get("noise_mask")
    if mask is not None and not in_part:
        notes.append("the latent's noise mask is ignored: it does not say what this node works on")
    return SourceSong(latents, None, added, tuple(notes), mask if in_part else None)


def need_source(audio, vae, latent, room: tuple[float, float] | None = None, *, in_part: bool = False) -> SourceSong:
    source = find_source(audio, vae, latent, room, in_part=in_part)
    if source is None:
        raise RequestError("there is no song to work on: connect audio and vae, or a latent")
    return source


def parts(
    source: SourceSong, mask: torch.Tensor | None, start: float, end: float, more_ranges: str, *, whole: bool = False
) -> tuple[dict[str, object], list[str]]:
    """What of the source is to be made, as `regions` or `mask` of an Edit, and sentences on what is ignored for it.

    `whole` lets start and end, both 0, stand for no range of their own.
    """
    from ..acestep_core.edit.regions import frames_mask, noise_mask, parse_regions

    frames, given = source.latents.shape[1], start or end or more_ranges.strip()
    if mask is None and source.noise_mask is None:
        ranges = parse_regions(more_ranges)
        return {"regions": ranges if whole and not (start or end) else ((start, end or None), *ranges)}, []
    if mask is not None and mask.ndim == 2:  # one picture, as some nodes give it
        mask = mask[None]
    made = noise_mask(source.noise_mask, frames) if mask is None else frames_mask(mask, frames)
    notes = ["start, end and more ranges are ignored: the mask says what is made"] if given else []
    return {"mask": made}, notes


def task_output(edit: Edit, source: SourceSong | None, ignored: Sequence[str] = ()) -> io.NodeOutput:
    """The task for its socket; what the node has ignored is said on it."""
    from .comfy_runtime import show_note

    show_note(*(source.notes if source else ()), *ignored, *edit.ignored_options())
    return io.NodeOutput(edit)
