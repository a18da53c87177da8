"""The notes of every node: which of its inputs do not affect the song.

Each function returns sentences for `progress.show_notes`. Inputs that cannot work raise RequestError instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...acestep_core.config import FRAME_RATE, FRAMES_PER_CODE

if TYPE_CHECKING:
    import torch

    from ...acestep_core.edit.edit import Edit
    from ...acestep_core.sampling.settings import SamplingSettings, VariantDefaults
    from ...acestep_core.song.song import Song
    from .conditioning import Conditioning, SongEntry
    from .latents import EditRuns

NOISE_SIGMA = 0.9  # schedules for pure noise start above it: ACE-Step's own at 0.97 or 1
# Keys that ComfyUI's nodes add to a conditioning. Only its own samplers follow them.
KSAMPLER_KEYS = {"area", "control", "end_percent", "hooks", "mask", "start_percent", "strength"}
# Keys for other models, which no sampler follows here, and what to use instead.
FOREIGN_KEYS = {
    "guidance": "guidance of the conditioning is ignored: set guidance in Sample Song or cfg in KSampler",
    "reference_latents": "reference latents are ignored: use Timbre for the sound of a recording, Cover for its melody",
}


def graphs_notes(graphs: bool, disabled: bool) -> list[str]:
    """Notes on the widget graphs. disabled: ComfyUI was started without CUDA graphs."""
    return ["graphs is ignored: ComfyUI was started with --disable-cuda-graphs"] if graphs and disabled else []


def _applying(*notes: tuple[object, str]) -> list[str]:
    return [note for applies, note in notes if applies]


# -- sampling ----------------------------------------------------------------------------------------------------------


def sample_notes(
    songs: Sequence[SongEntry],
    latent: dict | None,
    batch_size: int,
    sigmas: torch.Tensor | None,
    solver: str,
    retake_variance: float,
    retake_seed: int,
) -> list[str]:
    """Notes on the widgets and sockets of Sample Song."""
    morphed = any(song.morph for song in songs)
    edited = morphed or any(song.edit for song in songs)
    items = 0 if latent is None else len(latent["samples"])
    return _applying(
        (
            sigmas is not None and 0 < sigmas[0] < NOISE_SIGMA and not edited,
            "sigmas start below 1, but sampling starts from pure noise: use noise_strength of Cover, or KSampler, to "
            "keep a part of a song",
        ),
        (items > batch_size and not edited, "latent sets the duration only: use batch_size for several takes"),
        (items and edited, "latent is ignored: the song is as long as its source"),
        (solver != "euler" and morphed, f"solver {solver} is ignored: a morph has its own steps"),
        (
            latent is not None and latent.get("noise_mask") is not None,
            "noise mask of the latent is ignored: use Repaint to regenerate a part of a song",
        ),
        (retake_seed and not retake_variance, "retake_seed is ignored: retake_variance is 0"),
    )


def auto_values(settings: SamplingSettings, defaults: VariantDefaults) -> str:
    """Return the values that Sample Song uses for widgets on auto."""
    values = _applying(
        (settings.steps is None and settings.timesteps is None, f"{defaults.steps} steps"),
        (settings.shift is None and settings.timesteps is None, f"shift {defaults.shift:g}"),
        (settings.guidance_scale is None and not defaults.is_turbo, f"guidance {defaults.guidance_scale:g}"),
    )
    return f"auto: {', '.join(values)}" if values else ""


def conditioning_notes(conditioning: Conditioning) -> list[str]:
    """Notes on the keys that Sample Song does not follow."""
    keys = {key for _, data in conditioning for key in data}
    names = ", ".join(sorted(keys & KSAMPLER_KEYS))
    foreign = dict.fromkeys(note for _, data in conditioning for note in foreign_key_notes(data))
    return [*_applying((names, f"Sample Song does not follow {names} of its conditioning; KSampler does")), *foreign]


def negative_notes(negative: SongEntry | None) -> list[str]:
    """Notes on the parts of a negative conditioning that Sample Song does not follow."""
    if negative is None:
        return []
    parts = _applying((negative.edit, "its task"), (negative.morph, "its morph"), (negative.timbre, "its timbre"))
    return _applying((parts, f"of negative, only the text is used, not {' and '.join(parts)}"))


def foreign_key_notes(data: Mapping[str, Any]) -> list[str]:
    """Notes on the keys of a conditioning entry that belong to other models."""
    return [note for key, note in FOREIGN_KEYS.items() if data.get(key) is not None]


def ksampler_notes(edit: Edit | None, frames: int, data: Mapping[str, Any]) -> list[str]:
    """Notes on the parts of an edit, and the keys of an entry, that KSampler does not follow."""
    names = [] if edit is None else edit.unsupported_by_ksampler()
    tolerance = FRAMES_PER_CODE - 1 if edit is not None and edit.source is None else 0  # codes last whole 0.2 s
    if edit is not None and abs(frames - edit.frames) > tolerance:
        names.append("the length of the source")
    listed = ", ".join(names)
    return [*_applying((names, f"KSampler does not follow {listed}; Sample Song does")), *foreign_key_notes(data)]


def patch_notes(kinds: Sequence[str]) -> list[str]:
    """A note on patches for parts that our network does not have."""
    return _applying((kinds, f"patches of the MODEL are ignored ({', '.join(kinds)}): the network has no such parts"))


def wrapper_notes(names: Sequence[str]) -> list[str]:
    """A note on wrappers and functions of a MODEL that only KSampler runs."""
    return _applying((names, f"Sample Song does not follow {', '.join(names)} of its MODEL; KSampler does"))


# -- text and audio ----------------------------------------------------------------------------------------------------


def duration_notes(songs: Iterable[Song | None], seconds: float) -> list[str]:
    """Notes on songs with another duration than their source."""
    durations = {song.metadata.duration for song in songs if song is not None and song.metadata.duration is not None}
    return [
        f"duration of {duration:g} seconds is ignored: the song is as long as its source, {seconds:g} seconds"
        for duration in sorted(durations)
        if abs(duration - seconds) >= 1 / FRAME_RATE
    ]


def decode_notes(edits: EditRuns, latent_edits: EditRuns, normalize: bool) -> list[str]:
    """Notes on the kept part of an edit. `latent_edits` are the latent's, `edits` those that still fit it."""
    restores = any(edit is not None and edit.restores_source for edit, _ in edits)
    restored = any(edit is not None and edit.restores_source for edit, _ in latent_edits)
    return _applying(
        (restored and not restores, "the kept part is decoded as well: the latent was changed after Sample Song"),
        (restores and normalize, "normalize is ignored: the kept part keeps its level"),
    )


def save_notes(peak: float, format: str, is_long: bool) -> list[str]:
    """Notes on a song to save. is_long: the graph has more bytes than ComfyUI's page reads from Opus files."""
    return _applying(
        (peak > 1, f"audio: its peak of {peak:.3g} is above 1 and clips in the file; connect Finish Song before"),
        (is_long and format == "opus", "workflow: too long to open from an Opus file; choose flac or mp3"),
    )


def source_notes(audio: object, latent: dict | None, follows_mask: bool) -> list[str]:
    """Notes on the source of an edit. `follows_mask`: the node follows the latent's noise mask."""
    if latent is None:
        return []
    masked = audio is None and latent.get("noise_mask") is not None and not follows_mask
    return _applying(
        (audio is not None, "latent is ignored: audio is connected"),
        (masked, "noise mask of the latent is ignored: this node does not use it"),
    )


def mask_notes(has_ranges: bool) -> list[str]:
    """A note on seconds that a mask replaces."""
    return _applying((has_ranges, "start, end and more_ranges are ignored: a mask is connected"))


def where_notes(where: str, masked: bool) -> list[str]:
    """A note on a place by name that a mask replaces."""
    return _applying((where.strip() and masked, "where is ignored: a mask is connected"))


def seam_notes(where: str, after: float) -> list[str]:
    """A note on the place to continue from, if nothing continues there."""
    return _applying((where.strip() and not after, "where is ignored: after is 0, so nothing is added at that place"))


def stems_notes(operation: str, has_more_tracks: bool, has_region: bool) -> list[str]:
    """Notes on the inputs of Stems that another operation uses."""
    return _applying(
        (has_more_tracks and operation != "complete", f"more_tracks is ignored: {operation} takes one track"),
        (
            has_region and operation != "add",
            f"start, end, more_ranges and mask are ignored: {operation} uses the whole song",
        ),
    )


def listen_notes(songs: int, has_source: bool, has_codes: bool) -> list[str]:
    return _applying(
        (has_source and has_codes, "audio and latent are ignored: codes are connected"),
        (songs > 1, f"only the first of {songs} songs is described"),
    )


def pick_notes(keep: int, takes: int, songs: int) -> list[str]:
    """Notes on Pick Best."""
    return _applying(
        (keep > takes > 1, f"keep: the batch has {takes} takes, so all of them are kept"),
        (takes == 1, "latent: it has one take, so there is nothing to choose; raise batch_size of Sample Song"),
        (songs > 1, "conditioning: scores of different lyrics are compared"),
    )


def plan_notes(
    song: Song, rewrite_caption: bool, generate_codes: bool, code_options: Mapping[str, bool], guidance: float
) -> list[str]:
    """Notes on Plan Song. `code_options`: the options of audio codes, true if given."""
    from ...acestep_core.planner.planning import ignored_options

    return ignored_options(
        song,
        rewrite_caption=rewrite_caption,
        negative_prompt="given" if code_options["negative_prompt"] else "",
        guidance=guidance,
        without_codes=[] if generate_codes else [name for name, given in code_options.items() if given],
    )
