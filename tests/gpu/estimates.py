"""The memory estimates that ComfyUI gets, against the measured peaks of all tasks and lengths."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

import acestep_core
from acestep_core import Edit, Morph, SamplingSettings, sample, tokenize
from acestep_core.load import Model
from acestep_core.models.layers import materialises_scores
from acestep_core.models.model import AceStepModel
from acestep_core.models.tiling import decode_tiled, encode_tiled
from acestep_core.planner.decode_batch import CodeRow
from acestep_core.planner.decoding import generate_tokens
from acestep_core.planner.load_planner import Planner
from acestep_core.planner.network import PlannerNetwork, planner_bytes
from acestep_core.planner.token_sampling import TokenSampling
from acestep_core.planner.vocabulary import Vocabulary
from acestep_core.runtime.placement import Resident
from acestep_core.sampling.code_latents import CODES_PER_CHUNK
from acestep_core.sampling.context import codes_in_context, frames_to_run
from acestep_core.sampling.settings import TURBO, VariantDefaults
from acestep_core.text.encoder import TextCondition, build_qwen3

from .context import Context
from .networks import Shape, build_model, draw, randomised, with_few_layers
from .registry import FAILED, PASSED, Line, check, not_run, shown
from .songs import released_vae

LENGTHS = (30, 120, 240, 600)
BASE = VariantDefaults(steps=2, shift=1.0, guidance_scale=4.0, is_turbo=False)
CAPTION, LYRICS = 256, 2048  # tokens, at most
SLACK = 2 * 2**20  # ComfyUI keeps hundreds of MiB free beside the estimate
WASTEFUL = 3  # an estimate above this multiple of the peak moves other models off the GPU for nothing
FLOOR = 64 * 2**20  # bytes; below, fixed parts such as a preview dominate, and a wrong estimate is harmless


@cache
def estimates() -> ModuleType:
    """Return `nodes.comfy_runtime.estimates`, which needs no ComfyUI, without its packages, which do."""
    root = Path(acestep_core.__file__).parents[1]
    names = {
        "acestep_estimates": root,
        "acestep_estimates.nodes": root / "nodes",
        "acestep_estimates.nodes.comfy_runtime": root / "nodes" / "comfy_runtime",
    }
    for name, folder in names.items():
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return importlib.import_module("acestep_estimates.nodes.comfy_runtime.estimates")


def compared(what: str, estimate: int, peak: int) -> Line:
    """Return the line of a peak: too low an estimate fails, too high a one is noted."""
    ratio = estimate / max(peak, 1)
    wasteful = estimate > max(WASTEFUL * peak, FLOOR)
    too_low = peak > estimate + SLACK
    note = f"ComfyUI frees {ratio:.1f} times the peak, which moves weights off the GPU too early" if wasteful else ""
    if too_low:
        note = "the estimate is too low: ComfyUI may run out of memory here"
    result = FAILED if too_low or wasteful else PASSED
    return Line(what, result, shown(peak, "B"), f"≤ {shown(estimate, 'B')}", note, float(peak))


@dataclass(frozen=True)
class Task:
    """A song to sample: its edit, if it is guided, its timbre references, and the number of songs.

    morph: True starts from another text and a source. Tasks of two texts have the rows of both.
    """

    edit: Callable[[Tensor], Edit | None] = lambda _: None
    guided: bool = False
    references: int = 0
    songs: int = 1
    morph: bool = False
    texts: int = 1


TASKS = {
    "text to music": Task(),
    "guided": Task(guided=True),
    "batch of 2": Task(songs=2),
    "cover with audio codes": Task(lambda source: Edit("cover", source)),
    "cover of latents, guided": Task(lambda source: Edit("cover", source, use_codes=False), guided=True),
    "half a cover": Task(lambda source: Edit("cover", source, strength=0.5), texts=2),
    "repaint": Task(lambda source: Edit("repaint", source, regions=[(1.0, 3.0)])),
    "lego, guided": Task(lambda source: Edit("lego", source, tracks=("drums",)), guided=True),
    "morph": Task(morph=True, texts=2),
    "4 timbre references": Task(references=4),
}


def _sampling_model(context: Context, shape: Shape) -> Model:
    # A base model knows all tasks. Turbo differs in its sampling alone, which `TASKS` sets.
    config = replace(with_few_layers(shape.network), is_turbo=False, model_version="base")
    network = randomised(build_model(config, context.torch_device, context.dtype))
    assert isinstance(network, AceStepModel)
    network.silence_latent = draw(1, 60, 64).to(context.torch_device)
    return Model(network=network, placement=Resident(context.torch_device))


def _condition(shape: Shape, context: Context) -> TextCondition:
    width = shape.network.text_hidden_dim
    rows = (20, 30) if context.quick else (CAPTION, LYRICS)
    caption, lyrics = (draw(1, each, width).to(context.torch_device, context.dtype) for each in rows)
    return TextCondition(caption, lyrics, "", "", text_only=caption)


@check("memory.sampling", "device memory of sampling, against the estimate for ComfyUI", 90)
def sampling(context: Context) -> Iterator[Line]:
    """The peak does not depend on the number of layers, except for their keys and values: few layers are enough."""
    for shape in context.shapes:
        yield from _sampling_lines(context, shape)


def _sampling_lines(context: Context, shape: Shape) -> Iterator[Line]:
    model, condition = _sampling_model(context, shape), _condition(shape, context)
    lengths = (6, 12) if context.quick else LENGTHS
    for name, task in TASKS.items():
        if context.quick and shape is not context.shapes[0] and not task.guided:
            continue
        model.defaults = BASE if task.guided else TURBO
        for seconds in lengths if name == "text to music" else lengths[-1:]:
            source = draw(1, 25 * seconds, 64, seed=2)
            edit, morph = task.edit(source), Morph(condition, source) if task.morph else None
            timbre = [draw(1, 750, 64, seed=4 + i) for i in range(task.references)] or None
            work = partial(
                sample,
                model,
                condition,
                seconds=None if edit or morph else float(seconds),
                seeds=[*range(task.songs)],
                settings=SamplingSettings(steps=2),
                edit=edit,
                morph=morph,
                timbre=timbre,
            )
            estimate = estimates().sampling_bytes(
                model.network.config,  # type: ignore[union-attr]
                task.songs * (2 if task.guided else 1),
                frames_to_run(25 * seconds),
                task.texts * (condition.caption.shape[1] + condition.lyrics.shape[1] + max(1, task.references)),
                context.dtype.itemsize,
                references=max(1, task.references),
                codes=codes_in_context(edit),
                scores=materialises_scores(context.torch_device),
            )
            yield _measured(context, f"{shape.name}, {name}, {seconds} s", work, estimate)


def _measured(context: Context, what: str, work: Callable[[], object], estimate: int) -> Line:
    free = context.device.free_bytes()
    if free is not None and estimate > free:
        return not_run(what, f"it needs {shown(estimate, 'B')}, and {shown(free, 'B')} are free")
    return compared(what, estimate, context.device.peak(work))


@check("memory.stages", "device memory of the other stages, against the estimate for ComfyUI", 40)
def stages(context: Context) -> Iterator[Line]:
    module, device, shape, dtype = estimates(), context.torch_device, context.shapes[0], context.dtype
    with torch.inference_mode():
        vae = released_vae(context)
        tile = 48 if context.quick else 512
        latents, waveform = draw(1, tile, 64), 0.1 * draw(1, 2, tile * vae.config.hop)
        estimate = module.tile_bytes(vae.config, tile, vae.dtype.itemsize)
        yield _measured(context, "decode a tile", lambda: decode_tiled(vae, latents, tile, device=device), estimate)
        yield _measured(context, "encode a tile", lambda: encode_tiled(vae, waveform, tile, device=device), estimate)
        encoder = randomised(build_qwen3(shape.text, device, dtype))
        tokens = torch.arange(CAPTION)[None].to(device) % shape.text.vocab_size
        estimate = module.text_encoding_bytes(
            shape.text.hidden_size, shape.text.intermediate_size, CAPTION, dtype.itemsize
        )
        yield _measured(context, "encode text", lambda: encoder(input_ids=tokens, use_cache=False), estimate)
        model = _sampling_model(context, shape)
        codes = 60 if context.quick else CODES_PER_CHUNK
        source = draw(1, 5 * codes, 64)
        estimate = module.tokenizing_bytes(model.network.config, codes, dtype.itemsize)  # type: ignore[union-attr]
        yield _measured(context, "audio codes", lambda: tokenize(model, source), estimate)


@check("memory.planner", "device memory of the planner, against the estimate for ComfyUI", 30)
def planner(context: Context) -> Iterator[Line]:
    shape, device, dtype = context.shapes[0], context.torch_device, context.dtype
    network = randomised(PlannerNetwork(shape.planner, device=device, dtype=dtype))
    assert isinstance(network, PlannerNetwork)
    config = network.config
    count = 60 if context.quick else 600
    placed = Planner(network, Vocabulary(None, {}, config.audio_base, config.audio_codes), Resident(device))  # type: ignore[arg-type]
    rows = [CodeRow(list(range(1, 120)), seed, count, negative_prompt=[1, 2, 3]) for seed in (1, 2)]
    sampling = TokenSampling(temperature=0.85, top_p=0.9, guidance=2.0)
    estimate = planner_bytes(config, 4, 120 + count, dtype.itemsize)
    yield _measured(
        context, f"{count} codes of 2 songs, guided", lambda: generate_tokens(placed, rows, sampling, "codes"), estimate
    )
