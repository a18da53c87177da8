"""The source of an edit: audio with a VAE, or a latent. Every edit node has the same inputs for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from ..acestep_core.audio import dropped_channels
from ..acestep_core.config import FRAME_RATE, MAX_SECONDS, SAMPLE_RATE
from ..acestep_core.edit.source import check_latents, cut, extend, source_waveform
from ..acestep_core.errors import RequestError
from .comfy_runtime.latents import from_latent
from .comfy_runtime.versions import advanced
from .sockets import TaskSocket, share_input

if TYPE_CHECKING:
    from ..acestep_core.edit.edit import Edit
    from ..acestep_core.edit.regions import OpenRegions
    from ..acestep_core.lyrics.times import LyricTimes

MAX_EDIT_SECONDS = float(MAX_SECONDS)
MODES = ["balanced", "conservative", "aggressive"]


@dataclass(frozen=True)
class EditSource:
    """The encoded source of an edit.

    latents: [batch, frames, 64]. waveform: [batch, 2, samples] at 48 kHz, or None for a latent. recording, seconds: the
    waveform and its length, before an extension cuts it and adds silence. added: the regions that an extension adds.
    noise_mask: the mask of a latent, if the node follows it.
    """

    latents: torch.Tensor
    waveform: torch.Tensor | None
    recording: torch.Tensor | None
    seconds: float
    added: tuple[tuple[float, float], ...] = ()
    noise_mask: torch.Tensor | None = None


def source_inputs() -> list[io.Input]:
    return [
        io.Audio.Input("audio", optional=True, tooltip="Source audio, any sample rate. Needs vae as well."),
        io.Vae.Input("vae", optional=True, tooltip="VAE that encodes audio, from Load Model."),
        io.Latent.Input(
            "latent", optional=True, tooltip="Source latents instead of audio, from Encode Audio or Sample Song."
        ),
    ]


def mode_inputs() -> list[io.Input]:
    """The transition between new and kept parts."""
    return [
        advanced(
            io.Combo.Input(
                "mode",
                options=MODES,
                default="balanced",
                tooltip="Mode of the transition. conservative keeps everything outside the new part, aggressive lets "
                "the model change it as well, balanced (default) lies in between.",
            )
        ),
        advanced(
            share_input(
                "mode_strength",
                0.5,
                "Strength of the balanced mode. 0 equals conservative, 0.5 is the default, 1 equals aggressive.",
            )
        ),
    ]


def task_output() -> io.Output:
    return TaskSocket.Output(display_name="task", tooltip="Edit task with its source, for Encode Song.")


def find_source(
    audio,
    vae,
    latent,
    padding: tuple[float, float] | None = None,
    *,
    end: float | None = None,
    follows_mask: bool = False,
) -> EditSource | None:
    """Return the connected source, or None. Show notes on inputs that are not used.

    padding: seconds to add before and after it. end: seconds of the source to keep, or None for all. follows_mask: the
    node uses the noise mask of a latent. Raises RequestError.
    """
    from .comfy_runtime.notes import source_notes
    from .comfy_runtime.progress import node_callbacks, show_notes
    from .comfy_runtime.vae import song_vae

    show_notes(*source_notes(audio, latent, follows_mask))
    added: tuple[tuple[float, float], ...] = ()
    if audio is not None:
        if vae is None:
            raise RequestError("vae: missing. Connect the VAE of Load Model to encode the audio.")
        recording = source_waveform(audio["waveform"], audio["sample_rate"])
        show_notes(*dropped_channels(audio["waveform"]))
        waveform = cut(recording, end)
        if padding:
            waveform, added = extend(waveform, *padding)
        with node_callbacks() as callbacks:
            latents = song_vae(vae).to_latents(waveform, SAMPLE_RATE, callbacks)
        return EditSource(latents, waveform, recording, recording.shape[-1] / SAMPLE_RATE, added)
    if latent is None:
        return None
    latents = check_latents(from_latent(latent))
    seconds = latents.shape[1] / FRAME_RATE
    latents = cut(latents, end)
    if padding:
        latents, added = extend(latents, *padding)
    return EditSource(latents, None, None, seconds, added, latent.get("noise_mask") if follows_mask else None)


def require_source(
    audio,
    vae,
    latent,
    padding: tuple[float, float] | None = None,
    *,
    end: float | None = None,
    follows_mask: bool = False,
) -> EditSource:
    source = find_source(audio, vae, latent, padding, end=end, follows_mask=follows_mask)
    if source is None:
        raise RequestError("audio or latent: missing. Connect audio and vae, or a latent.")
    return source


def edit_region(
    source: EditSource,
    mask: torch.Tensor | None,
    start: float,
    end: float,
    more_ranges: str,
    *,
    may_be_whole: bool = False,
) -> dict[str, Any]:
    """Return `regions` or `mask` of an Edit. Show a note if a mask replaces the seconds.

    may_be_whole: start and end, both 0, are no range of their own.
    """
    from ..acestep_core.edit.masks import frames_mask, noise_mask
    from ..acestep_core.edit.regions import parse_regions
    from .comfy_runtime.notes import mask_notes
    from .comfy_runtime.progress import show_notes

    frames = source.latents.shape[1]
    masks = mask if mask is not None else source.noise_mask
    if masks is None:
        ranges = parse_regions(more_ranges)
        return {"regions": ranges if may_be_whole and not (start or end) else ((start, end or None), *ranges)}
    show_notes(*mask_notes(bool(start or end or more_ranges.strip())))
    if mask is None:
        return {"mask": noise_mask(masks, frames)}
    return {"mask": frames_mask(mask[None] if mask.ndim == 2 else mask, frames)}  # some nodes give one picture


def edit_output(
    edit: Edit, source: EditSource | None = None, times: LyricTimes | None = None, where: str = ""
) -> io.NodeOutput:
    """Return the edit for its socket. Show notes on options that do not affect it, and the source as a waveform."""
    from .comfy_runtime.progress import show_notes

    show_notes(*edit.ignored_options())
    return io.NodeOutput(
        edit, ui=None if source is None else source_shown(source, tuple(edit.regions or ()), times, where)
    )


def source_shown(source: EditSource, regions: OpenRegions, times: LyricTimes | None, where: str) -> dict[str, Any]:
    """Return what web/js/ranges_widget.js draws and plays: the first song of the source, and the regions of `where`."""
    from .comfy_runtime.waveforms import source_view

    song = None if source.recording is None else source.recording[0]
    return {"waveform": [source_view(song, SAMPLE_RATE, source.seconds, times, regions, where)]}
