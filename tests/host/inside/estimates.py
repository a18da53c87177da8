"""Memory estimates for ComfyUI, compared with the measured peak."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import comfy.model_management as mm
import torch
from pack_under_test.acestep_core import pipeline
from pack_under_test.acestep_core.models import layers
from pack_under_test.acestep_core.runtime.placement import Resident
from pack_under_test.nodes.codes import AudioCodesNode
from pack_under_test.nodes.comfy_runtime import model as model_module
from pack_under_test.nodes.comfy_runtime.conditioning import add_timbre
from pack_under_test.nodes.cover import CoverNode

from .world import World

STEPS = pipeline.SamplingSettings(steps=3)


def peak(work: Callable[[], object]) -> int:
    """Return the most bytes that tensors held at once during the work, beyond those before it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def within(estimate: int, measured: int, what: str) -> None:
    print(f"{what}: estimated {estimate / 2**20:.1f} MiB, took {measured / 2**20:.1f} MiB, {estimate / measured:.2f}")
    assert measured <= estimate <= 3 * measured, f"{what}: estimated {estimate}, took {measured}"


@contextmanager
def required_memory(placing: bool = True) -> Iterator[list[int]]:
    """Collect the memory that each load requires. Without `placing`, nothing is loaded: a CPU needs no copies."""
    required: list[int] = []
    original = mm.load_models_gpu

    def spied(models, memory_required=0, **options):
        required.append(memory_required)
        return original(models, memory_required=memory_required, **options) if placing else None

    mm.load_models_gpu = spied
    try:
        yield required
    finally:
        mm.load_models_gpu = original


def required_and_peak(work: Callable[[], object]) -> tuple[int, int]:
    """Return the largest required memory, and the peak of the work."""
    with required_memory(placing=False) as required:
        used = peak(work)
    return max(required), used


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def by_ksampler(world: World, conditioning: list, frames: int) -> torch.Tensor:
    return world.ksample(steps=2, latent=torch.zeros(1, 64, frames), conditioning=conditioning)


def on_cpu(part: pipeline.Model) -> pipeline.Model:
    """Return the model without ComfyUI's placement, whose loading makes copies."""
    return replace(part, placement=Resident(torch.device("cpu")))


def check_the_peak_is_measured(world: World) -> None:
    assert 4_000_000 <= peak(lambda: torch.zeros(1_000_000).add(0)) // 2 < 4_100_000


def check_sampling(world: World) -> None:
    for songs, frames in ((1, 3000), (3, 1500)):
        model = world.placed(world.model, songs, frames)
        seeds = list(range(songs))

        def work(model=model, seeds=seeds, frames=frames) -> None:
            pipeline.sample(on_cpu(model), world.text(), seconds=frames / 25, seeds=seeds)

        within(model.placement.memory, peak(work), f"{songs} songs of {frames} frames")


def check_guided_sampling(world: World) -> None:
    base, _, _ = world.load(variant="base")
    model = world.placed(base, 1, 1500)
    assert model.placement.memory > 1.5 * world.placed(world.model, 1, 1500).placement.memory
    within(
        model.placement.memory,
        peak(lambda: pipeline.sample(on_cpu(model), world.text(), seconds=60.0, seeds=[1], settings=STEPS)),
        "a guided song",
    )


def check_attention_scores_count_on_devices_that_materialise_them(world: World) -> None:
    """As on Metal, and on GPUs without flash attention."""
    usual = model_module.materialises_scores, layers.materialises_scores
    model_module.materialises_scores = layers.materialises_scores = lambda device: True
    try:
        model = world.placed(world.model, 1, 6000)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            used = peak(lambda: pipeline.sample(on_cpu(model), world.text(), seconds=240.0, seeds=[1], settings=STEPS))
        within(model.placement.memory, used, "a song with materialised scores")
    finally:
        model_module.materialises_scores, layers.materialises_scores = usual
    assert model.placement.memory > 1.5 * world.placed(world.model, 1, 6000).placement.memory


def check_every_timbre_reference_counts(world: World) -> None:
    """A preview is drawn as well, which is most of the memory of a short song."""
    for seconds, references in ((6, 0), (6, 4), (6, 12), (60, 12)):
        conditioning, frames = world.conditioning, 25 * seconds
        if references:
            conditioning = add_timbre(conditioning, draw(references, 750, 64))
        latent = {"samples": torch.zeros(1, 64, frames)}
        ours = required_and_peak(lambda c=conditioning, x=latent: world.sample(steps=2, conditioning=c, latent=x))
        theirs = required_and_peak(lambda c=conditioning, n=frames: by_ksampler(world, c, n))
        for name, sizes in (("ours", ours), ("KSampler", theirs)):
            within(*sizes, f"{name}: {seconds} s with {references} references")


def check_the_tokenizer_counts_for_a_cover(world: World) -> None:
    seconds = 120
    source = {"latent": {"samples": draw(1, 64, 25 * seconds)}}
    for name, inputs in (
        ("a cover", source),
        ("half a cover", {**source, "strength": 0.5}),
        ("a blended cover", {**source, "strength": 0.5, "blend": True}),
        ("given codes", {"codes": ", ".join(["7"] * 5 * seconds)}),
    ):
        task = CoverNode.execute(**{"strength": 1.0, "noise_strength": 0.0, **inputs}).args[0]
        conditioning = world.encode(task)
        ours = required_and_peak(lambda c=conditioning: world.sample(steps=2, conditioning=c))
        theirs = required_and_peak(lambda c=conditioning: by_ksampler(world, c, 25 * seconds))
        within(*ours, name)
        within(*theirs, f"KSampler: {name}")
    within(*required_and_peak(lambda: AudioCodesNode.execute(world.model, **source)), "audio codes")


def check_silence_is_encoded_in_one_small_tile(world: World) -> None:
    with world.without_silence() as encode_silence:
        within(*required_and_peak(encode_silence), "silence")


def check_ksampler_requires_the_same_memory(world: World) -> None:
    with required_memory() as required:
        world.sample(steps=1)
        world.ksample(steps=1)
    ours, theirs = required
    assert ours <= theirs <= 3 * ours, required  # KSampler always counts guidance


def check_the_vae_requires_one_tile_not_the_song(world: World) -> None:
    with required_memory(placing=False) as required:
        long = draw(1, 64, 700)
        sound = world.decode(long)
        world.encode_audio(sound)
        world.decode(long[..., :530])
        world.decode(long[..., :100])
    assert required[0] == required[1] == required[2] > 4 * required[3]
    vae, tile = world.vae.first_stage_model, world.vae.TILES[0]
    with torch.no_grad():
        within(required[0], peak(lambda: vae.decode(long.movedim(1, -1)[:, :tile])), "decoding a tile")
        within(required[1], peak(lambda: vae.encode(sound[..., : tile * 1920])), "encoding a tile")


def check_the_text_encoder(world: World) -> None:
    song = replace(world.song, caption="more text than a caption can hold " * 60)
    estimate = world.text_encoder.model.placement.memory
    within(estimate, peak(lambda: pipeline.encode(on_cpu(world.text_encoder.model), song)), "encoding the text")
