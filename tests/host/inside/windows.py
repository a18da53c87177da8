"""Context Windows: a long song in windows, each with its part of the context."""

from __future__ import annotations

import inspect

import comfy.sample
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_context_windows import ContextWindowsManualNode, WanContextWindowsManualNode
from pack_under_test.acestep_core.models.dit import DiT
from pack_under_test.nodes.comfy_runtime.conditioning import EDIT_KEY
from pack_under_test.nodes.comfy_runtime.conds import SongCond
from pack_under_test.nodes.cover import CoverNode

from .edits import latent_of, task
from .odd_inputs import refusal, with_data
from .world import FRAMES, SEED, World, difference, network_of, notes_of

USUAL = {"context_stride": 1, "closed_loop": False, "fuse_method": "pyramid", "dim": 2, "freenoise": False}


def windowed(world: World, length: int, overlap: int = 0, schedule: str = "batched", **changes):
    """Return the MODEL of the node, with the inputs of this ComfyUI version."""
    given = {**USUAL, "context_length": length, "context_overlap": overlap, "context_schedule": schedule, **changes}
    known = inspect.signature(ContextWindowsManualNode.execute).parameters
    own = {name: value for name, value in given.items() if name in known}
    return ContextWindowsManualNode.execute(world.model, **own).args[0]


def noise() -> torch.Tensor:
    return comfy.sample.prepare_noise(torch.zeros(1, 64, FRAMES), SEED)


def sample_from(world: World, noise: torch.Tensor, conditioning: list, model=None) -> torch.Tensor:
    usual = (4, 1.0, "euler", "simple", conditioning, [], torch.zeros_like(noise))
    return comfy.sample.sample(model or world.model, noise, *usual, seed=SEED, disable_pbar=True)


def cover(world: World, frames: slice = slice(None)) -> list:
    """Return a cover of a part of the recording, with the text of the whole, without audio codes."""
    whole = world.encode(task(world, CoverNode, use_codes=False))
    source = {"samples": latent_of(world)["samples"][..., frames]}
    ((_, data),) = world.encode(task(world, CoverNode, latent=source, use_codes=False))
    return [[caption, {**entry, EDIT_KEY: data[EDIT_KEY]}] for caption, entry in whole]


def check_windows_as_long_as_the_song_change_nothing(world: World) -> None:
    for schedule in ("standard_static", "standard_uniform", "looped_uniform", "batched"):
        model = windowed(world, FRAMES, FRAMES // 2, schedule)
        assert difference(world.ksample(model), world.ksample()) == 0, schedule


def check_each_window_has_its_part_of_the_context(world: World) -> None:
    """Windows without overlap equal songs of their own, here of an odd length."""
    parts, model = (slice(0, 75), slice(75, FRAMES)), windowed(world, 75, causal_window_fix=False)
    windows = sample_from(world, noise(), cover(world), model)
    alone = [sample_from(world, noise()[..., part], cover(world, part)) for part in parts]
    assert difference(windows, torch.cat(alone, dim=-1)) <= 1e-5
    assert difference(windows, sample_from(world, noise(), cover(world))) > 1e-3
    swapped = sample_from(world, noise()[..., parts[1]], cover(world, parts[0]))
    assert difference(swapped, alone[1]) > 1e-3


def check_shorter_windows_give_a_whole_song(world: World) -> None:
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


def check_a_context_is_cut_by_frames_in_any_order(world: World) -> None:
    """Windows may wrap around, skip frames, or retain frames of the start."""
    given = {"context_stride": 2, "closed_loop": True, "cond_retain_index_list": "3"}
    model, calls = windowed(world, 61, 20, "looped_uniform", **given), []
    retained = (
        {"retain_index_list": [3]} if hasattr(model.model_options["context_handler"], "cond_retain_index_list") else {}
    )

    def collecting(run, x, t, prepared, options):
        calls.append((options["context_window"], prepared))
        return run(x, t, prepared, options)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "collecting", collecting)
    conditions, usual = [], SongCond.__init__

    def collecting_conditions(self, *arguments):
        usual(self, *arguments)
        conditions.append(self)

    SongCond.__init__ = collecting_conditions
    try:
        sample_from(world, noise(), cover(world), model)
    finally:
        SongCond.__init__ = usual
    song = conditions[0]
    assert len(calls) > 8 and any(window.index_list != sorted(window.index_list) for window, _ in calls)
    assert any(window.index_list[1] - window.index_list[0] == 2 for window, _ in calls)
    for window, prepared in calls:
        frames = torch.arange(FRAMES)[None]
        context = song.context[:, window.get_tensor(frames, dim=1, **retained)[0]]
        assert difference(prepared.patches, network_of(world.model).decoder.prepare(context, song.encoded).patches) == 0


def check_keys_and_values_of_the_text_are_computed_once(world: World) -> None:
    rows, prepare = [], DiT.prepare

    def counting(self, context, condition, *others):
        rows.append(condition.shape[1])
        return prepare(self, context, condition, *others)

    DiT.prepare = counting
    try:
        world.ksample(windowed(world, 50, 10, "standard_static"))
    finally:
        DiT.prepare = prepare
    assert len(rows) > 8 and sum(count > 1 for count in rows) == 1


def check_unsupported_windows_are_refused(world: World) -> None:
    for dim in (0, 1):
        sentence = refusal(lambda dim=dim: world.ksample(windowed(world, 50, dim=dim)))
        assert sentence.startswith("dim of Context Windows")
    for part in ({"area": ("percentage", 0.5, 0.5)}, {"mask": torch.ones(1, FRAMES)}):
        entry = with_data(world, **part)
        sentence = refusal(lambda entry=entry: world.ksample(windowed(world, 50), conditioning=entry))
        assert "area and mask" in sentence


def check_windows_are_noted_by_sample_song(world: World) -> None:
    model = windowed(world, 50)
    (note,) = notes_of(lambda: world.sample(model))
    assert "context_handler" in note
    assert difference(world.sample(model), world.sample()) == 0
