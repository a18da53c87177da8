"""ComfyUI's Context Windows: a long song in pieces, each of what the song has there."""

from __future__ import annotations

import inspect

import comfy.sample
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_context_windows import ContextWindowsManualNode, WanContextWindowsManualNode
from pack_under_test.acestep_core.models.dit import DiT
from pack_under_test.nodes.comfy_runtime.model import SongCondition
from pack_under_test.nodes.conditioning import EDIT
from pack_under_test.nodes.cover import CoverNode

from .edits import latent_of, task
from .odd_inputs import refusal, with_data
from .world import FRAMES, SEED, World, difference, network_of, shown

USUAL = {"context_stride": 1, "closed_loop": False, "fuse_method": "pyramid", "dim": 2, "freenoise": False}


def windowed(world: World, length: int, overlap: int = 0, schedule: str = "batched", **changes):
    """The MODEL behind the node, with what it has in this version."""
    given = {**USUAL, "context_length": length, "context_overlap": overlap, "context_schedule": schedule, **changes}
    known = inspect.signature(ContextWindowsManualNode.execute).parameters
    own = {name: value for name, value in given.items() if name in known}
    return ContextWindowsManualNode.execute(world.model, **own).args[0]


def noise() -> torch.Tensor:
    return comfy.sample.prepare_noise(torch.zeros(1, 64, FRAMES), SEED)


def made_of(world: World, noise: torch.Tensor, conditioning: list, model=None) -> torch.Tensor:
    usual = (4, 1.0, "euler", "simple", conditioning, [], torch.zeros_like(noise))
    return comfy.sample.sample(model or world.model, noise, *usual, seed=SEED, disable_pbar=True)


def cover(world: World, frames: slice = slice(None)) -> list:
    """The conditioning of a cover of that part of the recording, following its sound, in the words for all of it."""
    whole = world.encode(task(world, CoverNode, through_codes=False))
    source = {"samples": latent_of(world)["samples"][..., frames]}
    ((_, data),) = world.encode(task(world, CoverNode, latent=source, through_codes=False))
    return [[caption, {**entry, EDIT: data[EDIT]}] for caption, entry in whole]


def check_windows_as_long_as_the_song_change_nothing(world: World) -> None:
    for schedule in ("standard_static", "standard_uniform", "looped_uniform", "batched"):
        model = windowed(world, FRAMES, FRAMES // 2, schedule)
        assert difference(world.ksample(model), world.ksample()) == 0, schedule


def check_each_window_is_made_of_what_the_song_has_there(world: World) -> None:
    """Windows that do not overlap are as songs of their own, here of an odd length."""
    parts, model = (slice(0, 75), slice(75, FRAMES)), windowed(world, 75, causal_window_fix=False)
    windows = made_of(world, noise(), cover(world), model)
    alone = [made_of(world, noise()[..., part], cover(world, part)) for part in parts]
    assert difference(windows, torch.cat(alone, dim=-1)) <= 1e-5
    assert difference(windows, made_of(world, noise(), cover(world))) > 1e-3
    swapped = made_of(world, noise()[..., parts[1]], cover(world, parts[0]))
    assert difference(swapped, alone[1]) > 1e-3


def check_shorter_windows_make_a_whole_song(world: World) -> None:
    plain = world.ksample(cfg=3.0)
    for schedule in ("standard_static", "standard_uniform", "looped_uniform", "batched"):
        song = world.ksample(windowed(world, 61, 20, schedule, context_stride=2, closed_loop=True), cfg=3.0)
        assert song.shape == plain.shape and song.isfinite().all(), schedule
        assert difference(song, plain) > 1e-2, schedule
    wan = {"context_length": 161, "context_overlap": 40, "context_schedule": "standard_static"}
    rest = {"context_stride": 1, "closed_loop": False, "fuse_method": "pyramid", "freenoise": True}
    known = inspect.signature(WanContextWindowsManualNode.execute).parameters
    rest = {name: value for name, value in rest.items() if name in known}
    song = world.ksample(WanContextWindowsManualNode.execute(world.model, **wan, **rest).args[0])
    assert song.shape == plain.shape and song.isfinite().all()


def check_a_source_is_cut_by_frames_in_any_order(world: World) -> None:
    """Some windows go on at the song's beginning, or take every second frame only; some keep frames of the song's."""
    given = {"context_stride": 2, "closed_loop": True, "cond_retain_index_list": "3"}
    model, seen = windowed(world, 61, 20, "looped_uniform", **given), []
    kept = (
        {"retain_index_list": [3]} if hasattr(model.model_options["context_handler"], "cond_retain_index_list") else {}
    )

    def noting(run, x, t, prepared, options):
        seen.append((options["context_window"], prepared))
        return run(x, t, prepared, options)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "noting", noting)
    conditions, made = [], SongCondition.__init__

    def keeping(self, *arguments):
        made(self, *arguments)
        conditions.append(self)

    SongCondition.__init__ = keeping
    try:
        made_of(world, noise(), cover(world), model)
    finally:
        SongCondition.__init__ = made
    song = conditions[0]
    assert len(seen) > 8 and any(window.index_list != sorted(window.index_list) for window, _ in seen)
    assert any(window.index_list[1] - window.index_list[0] == 2 for window, _ in seen)
    for window, prepared in seen:
        frames = torch.arange(FRAMES)[None]
        context = song.context[:, window.get_tensor(frames, dim=1, **kept)[0]]
        assert difference(prepared.patches, network_of(world.model).decoder.prepare(context, song.encoded).patches) == 0


def check_keys_and_values_of_the_words_are_made_once(world: World) -> None:
    rows, prepare = [], DiT.prepare

    def noting(self, context, condition, *others):
        rows.append(condition.shape[1])
        return prepare(self, context, condition, *others)

    DiT.prepare = noting
    try:
        world.ksample(windowed(world, 50, 10, "standard_static"))
    finally:
        DiT.prepare = prepare
    assert len(rows) > 8 and sum(count > 1 for count in rows) == 1


def check_what_windows_cannot_do_is_refused(world: World) -> None:
    for dim in (0, 1):
        sentence = refusal(lambda dim=dim: world.ksample(windowed(world, 50, dim=dim)))
        assert sentence == "Context Windows would not cut this song along its time: set its dim to 2"
    for part in ({"area": ("percentage", 0.5, 0.5)}, {"mask": torch.ones(1, FRAMES)}):
        entry = with_data(world, **part)
        sentence = refusal(lambda entry=entry: world.ksample(windowed(world, 50), conditioning=entry))
        assert "Context Windows do not go with an area or a mask" in sentence


def check_sample_song_says_that_it_has_no_windows(world: World) -> None:
    with shown() as texts:
        assert difference(world.sample(windowed(world, 50)), world.sample()) == 0
    assert texts[-1] == "Sample Song does not follow Context Windows on its model; KSampler does"
