"""Every edit from its node to audio: each input changes the result, kept parts stay, and errors are raised."""

from __future__ import annotations

from functools import partial

import torch
from pack_under_test.nodes.codes import AudioCodesNode
from pack_under_test.nodes.comfy_runtime import conditioning as our_conditioning
from pack_under_test.nodes.cover import CoverNode
from pack_under_test.nodes.encode import BatchSongsNode
from pack_under_test.nodes.morph import MorphNode
from pack_under_test.nodes.repaint import ExtendNode, RepaintNode
from pack_under_test.nodes.stems import StemsNode
from pack_under_test.nodes.timbre import TimbreNode

from .odd_inputs import refusal
from .world import FRAMES, World, difference

RATE = 48_000
SECONDS = FRAMES / 25
EDGE = RATE // 20  # no crossfade is longer


def recording(seed: int = 0, seconds: float = SECONDS, level: float = 0.3) -> dict:
    """Return bursts of noise, different for each seed and below the level of normalized audio."""
    noise = torch.randn(1, 2, round(seconds * RATE), generator=torch.Generator().manual_seed(seed))
    beat = (torch.arange(noise.shape[-1]) % (RATE // 2) < RATE // 8).float()
    return {"waveform": (level * noise * beat).clamp(-1, 1), "sample_rate": RATE}


SOURCE = recording()


_LATENTS: dict[int, dict] = {}


def latent_of(world: World, seed: int = 0) -> dict:
    """Return the encoded recording of that seed. Encoding is slow, so it is cached."""
    if seed not in _LATENTS:
        _LATENTS[seed] = {"samples": world.encode_audio(recording(seed)["waveform"])}
    return _LATENTS[seed]


def task(world: World, node, seed: int = 0, **inputs):
    """Return the edit of a node for the recording of that seed, given as a latent by default."""
    usual = {} if {"audio", "latent", "vae"} & inputs.keys() else {"latent": latent_of(world, seed)}
    return node.execute(**{**DEFAULTS[node], **usual, **inputs}).args[0]


DEFAULTS = {
    CoverNode: {"strength": 1.0, "noise_strength": 0.0},
    RepaintNode: {"start": 2.0, "end": 4.0, "more_ranges": "", "mode": "balanced", "mode_strength": 0.5},
    ExtendNode: {"after": 2.0, "before": 0.0, "overlap": 0.0, "mode": "balanced", "mode_strength": 0.5},
    StemsNode: {"operation": "extract", "track": "vocals", "more_tracks": "", "start": 0.0, "end": 0.0,
                "mode": "balanced", "mode_strength": 0.5},
}  # fmt: skip


def latents_of(world: World, node, model=None, steps: int = 2, **inputs) -> torch.Tensor:
    return world.sample(model, steps=steps, conditioning=world.encode(task(world, node, **inputs)))


def edited_audio(world: World, node, **inputs) -> torch.Tensor:
    """Return the decoded edit of the recording, [1, 2, N]."""
    conditioning = world.encode(task(world, node, **{"audio": SOURCE, "vae": world.vae, **inputs}))
    return world.decode_latent(world.sample_latent(steps=2, conditioning=conditioning))


def all_differ(*results: torch.Tensor) -> None:
    for i, result in enumerate(results):
        assert torch.isfinite(result).all()
        for other in results[:i]:
            assert difference(result, other) > 1e-3


# -- cover -------------------------------------------------------------------------------------------------------------


def check_every_input_of_a_cover_changes_the_song(world: World) -> None:
    cover = partial(latents_of, world, CoverNode, steps=4)
    all_differ(
        cover(),
        cover(seed=1),
        cover(strength=0.5),
        cover(strength=0.5, blend=True),
        cover(noise_strength=0.5),
        cover(use_codes=False),
        world.sample(),
    )


def check_a_cover_of_no_strength_is_a_song_from_text(world: World) -> None:
    for blend in (False, True):
        assert difference(latents_of(world, CoverNode, steps=4, strength=0.0, blend=blend), world.sample()) == 0


def check_a_cover_from_codes_equals_one_from_their_source(world: World) -> None:
    codes = codes_of(world, latent=latent_of(world))
    assert codes.count("<|audio_code_") == FRAMES // 5 and "\n" not in codes
    by_codes = latents_of(world, CoverNode, latent=None, codes=codes)
    assert difference(by_codes, latents_of(world, CoverNode)) == 0
    numbers = [int(number) for number in codes.replace("<|audio_code_", "").split("|>") if number]
    listed = ", ".join(str(number) for number in reversed(numbers))
    assert difference(by_codes, latents_of(world, CoverNode, latent=None, codes=listed)) > 1e-3


def check_codes_for_each_song_of_a_batch(world: World) -> None:
    first, second = (codes_of(world, latent=latent_of(world, i)) for i in (0, 1))
    cover = partial(task, world, CoverNode, latent=None)
    both = world.sample(steps=2, conditioning=world.encode(cover(codes=f"{first}\n{second}")))
    assert both.shape == (2, 64, FRAMES)
    for i, codes in enumerate((first, second)):
        alone = world.sample(steps=2, seed=11 + i, conditioning=world.encode(cover(codes=codes)))
        assert difference(both[i : i + 1], alone) < 1e-4


def check_a_latent_source_equals_its_audio(world: World) -> None:
    for node, room in ((CoverNode, 0), (RepaintNode, 0), (ExtendNode, 50)):
        by_sound = task(world, node, audio=SOURCE, vae=world.vae)
        by_latent = task(world, node)
        assert by_sound.regions == by_latent.regions and by_sound.frames == by_latent.frames == FRAMES + room
        # The padding of a latent is zeros, that of audio encoded silence, whose receptive field reaches into the song.
        same = slice(0, FRAMES - 10) if room else slice(None)
        assert difference(by_sound.source[:, same], by_latent.source[:, same]) < 1e-4
    assert codes_of(world, audio=SOURCE, vae=world.vae) == codes_of(world, latent=latent_of(world))


def codes_of(world: World, **source) -> str:
    return AudioCodesNode.execute(world.model, **source).args[0]


def check_ksampler_gives_the_same_cover(world: World) -> None:
    usual, world.conditioning = world.conditioning, world.encode(task(world, CoverNode))
    try:
        ours, theirs = world.sample(), world.ksample()
    finally:
        world.conditioning = usual
    assert difference(ours, theirs) <= 1e-4
    assert difference(ours, world.sample()) > 1e-3


# -- repaint and extend ------------------------------------------------------------------------------------------------


def check_a_repaint_keeps_the_rest_sample_for_sample(world: World) -> None:
    before, after = slice(0, 2 * RATE - EDGE), slice(4 * RATE + EDGE, None)
    for mode in ("balanced", "conservative"):
        sound = edited_audio(world, RepaintNode, mode=mode)
        assert sound.shape == SOURCE["waveform"].shape
        for kept in (before, after):
            assert torch.equal(sound[..., kept], SOURCE["waveform"][..., kept])
        inside = slice(2 * RATE + EDGE, 4 * RATE - EDGE)
        assert difference(sound[..., inside], SOURCE["waveform"][..., inside]) > 1e-2


def late_mask() -> torch.Tensor:
    """Return the last third of a song as an image mask."""
    late = torch.zeros(1, 4, 120)
    late[..., 80:] = 1
    return late


def check_every_input_of_a_repaint_changes_the_song(world: World) -> None:
    all_differ(
        latents_of(world, RepaintNode),
        latents_of(world, RepaintNode, seed=1),
        latents_of(world, RepaintNode, start=1.0),
        latents_of(world, RepaintNode, end=0.0),
        latents_of(world, RepaintNode, more_ranges="0-1"),
        latents_of(world, RepaintNode, mode="aggressive"),
        latents_of(world, RepaintNode, mode="conservative"),
        latents_of(world, RepaintNode, mode_strength=0.9),
        latents_of(world, RepaintNode, mask=late_mask()),
    )


def check_a_mask_equals_seconds(world: World) -> None:
    mask = torch.zeros(1, 1, FRAMES)
    mask[..., 50:100] = 1
    by_mask = latents_of(world, RepaintNode, mask=mask)
    assert difference(by_mask, latents_of(world, RepaintNode)) == 0
    assert difference(latents_of(world, RepaintNode, mask=mask[0].expand(4, -1)), by_mask) == 0  # [height, width]
    latent = {**latent_of(world), "noise_mask": mask[:, None]}
    assert difference(latents_of(world, RepaintNode, latent=latent), by_mask) == 0


def check_an_extension_keeps_the_song(world: World) -> None:
    sound = edited_audio(world, ExtendNode, before=1.0)
    song = SOURCE["waveform"]
    assert sound.shape[-1] == round((SECONDS + 3) * RATE)
    kept = slice(RATE + EDGE, RATE + song.shape[-1] - EDGE)
    assert torch.equal(sound[..., kept], song[..., EDGE:-EDGE])
    for new in (sound[..., :RATE], sound[..., -2 * RATE :]):
        assert new.std() > 1e-3


def check_every_input_of_an_extension_changes_the_song(world: World) -> None:
    all_differ(
        latents_of(world, ExtendNode),
        latents_of(world, ExtendNode, seed=1),
        latents_of(world, ExtendNode, overlap=1.0),
        latents_of(world, ExtendNode, mode="aggressive"),
        latents_of(world, ExtendNode, after=0.0, before=2.0),
    )
    assert latents_of(world, ExtendNode, after=3.0).shape[-1] == FRAMES + 75


def check_a_changed_latent_is_not_overwritten_by_its_source(world: World) -> None:
    repaint = task(world, RepaintNode, audio=SOURCE, vae=world.vae)
    latent = world.sample_latent(steps=2, conditioning=world.encode(repaint))
    assert torch.equal(world.decode_latent(latent)[..., :RATE], SOURCE["waveform"][..., :RATE])
    changed = {**latent, "samples": latent["samples"] * 0.9}
    assert difference(world.decode_latent(changed)[..., :RATE], SOURCE["waveform"][..., :RATE]) > 1e-2
    assert any("the latent was changed" in line for line in world.log.lines)


def check_one_take_of_a_batch_keeps_the_rest(world: World) -> None:
    repaint = task(world, RepaintNode, audio=SOURCE, vae=world.vae)
    latent = world.sample_latent(steps=2, batch=2, conditioning=world.encode(repaint))
    alone = {**latent, "samples": latent["samples"][1:]}  # as LatentFromBatch does
    for sound in (world.decode_latent(latent), world.decode_latent(alone)):
        assert torch.equal(sound[:1, :, :RATE], SOURCE["waveform"][..., :RATE])


# -- stems -------------------------------------------------------------------------------------------------------------


def check_every_input_of_stems_changes_the_song(world: World) -> None:
    base, _, _ = world.load(variant="base")
    stems = partial(latents_of, world, StemsNode, base)
    all_differ(
        stems(),
        stems(seed=1),
        stems(track="drums"),
        stems(operation="add"),
        stems(operation="add", start=1.0, end=3.0),
        stems(operation="add", start=1.0, end=3.0, more_ranges="4-5"),
        stems(operation="add", start=1.0, end=3.0, mode="aggressive"),
        stems(operation="add", more_ranges="4-5"),
        stems(operation="add", mask=late_mask()),
        stems(operation="complete"),
        stems(operation="complete", more_tracks="drums, Backing vocals"),
    )


def check_a_track_is_added_in_its_regions(world: World) -> None:
    """Regions come from more_ranges, a mask, or the noise mask of a latent. The song stays outside of them."""
    stems = partial(task, world, StemsNode, operation="add")
    by_seconds = stems(start=0.0, end=1.0, more_ranges="4-")
    mask = torch.zeros(1, 1, 1, FRAMES)
    mask[..., :25], mask[..., 100:] = 1, 1
    masked = {**latent_of(world), "noise_mask": mask}
    for same in (stems(more_ranges="0-1, 4-"), stems(mask=mask[:, 0]), stems(latent=masked)):
        assert torch.equal(same.generated_mask(), by_seconds.generated_mask()) and same.generated_mask().sum() == 75
    assert not stems().is_partial
    base, _, _ = world.load(variant="base")
    edited = latents_of(world, StemsNode, base, operation="add", more_ranges="0-1, 4-")
    kept = slice(25 + 12, 100 - 12)
    assert torch.equal(edited[..., kept], latent_of(world)["samples"][..., kept])


def check_stems_on_a_turbo_model_are_refused(world: World) -> None:
    sentence = refusal(lambda: latents_of(world, StemsNode))
    assert "turbo" in sentence and "extract" in sentence and "base or sft" in sentence


# -- timbre, morph, retake ---------------------------------------------------------------------------------------------


def with_timbre(conditioning, seed: int):
    """Add a random timbre reference, without encoding audio."""
    latents = torch.randn(1, 750, 64, generator=torch.Generator().manual_seed(seed))
    return our_conditioning.add_timbre(conditioning, latents)


def check_each_timbre_reference_changes_the_song(world: World) -> None:
    one = TimbreNode.execute(world.conditioning, world.vae, SOURCE).args[0]
    both = with_timbre(one, 4)
    results = [world.sample(steps=2, conditioning=c) for c in (world.conditioning, one, both)]
    all_differ(*results, world.sample(steps=2, conditioning=with_timbre(world.conditioning, 4)))
    usual, world.conditioning = world.conditioning, both
    try:
        assert difference(world.ksample(steps=2), results[2]) <= 1e-4
    finally:
        world.conditioning = usual


def check_a_timbre_uses_only_its_part(world: World) -> None:
    def latents(**part) -> torch.Tensor:
        output = TimbreNode.execute(world.conditioning, world.vae, SOURCE, **part)
        assert output.ui["waveform"][0]["seconds"] == FRAMES / 25, "the whole recording is shown"
        return output.args[0][0][1][our_conditioning.TIMBRE_KEY][-1]

    cut = {**SOURCE, "waveform": SOURCE["waveform"][..., 2 * RATE : 5 * RATE]}
    expected = TimbreNode.execute(world.conditioning, world.vae, cut).args[0][0][1][our_conditioning.TIMBRE_KEY][-1]
    assert torch.equal(latents(start=2.0, end=5.0), expected) and difference(latents(), expected) > 1e-3
    assert "at most 6 seconds" in refusal(lambda: latents(start=2.0, end=7.0))


def check_a_timbre_works_with_a_task(world: World) -> None:
    plain = world.encode(task(world, CoverNode))
    all_differ(*(world.sample(steps=2, conditioning=c) for c in (plain, with_timbre(plain, 4))))


def check_a_morph_changes_what_differs_between_its_captions(world: World) -> None:
    other = world.encode(caption="a brass band in the rain")

    def morphed(target, seed: int = 0, **inputs) -> torch.Tensor:
        usual = {"start": 0.0, "end": 1.0, "draws": 1, "latent": latent_of(world, seed)}
        conditioning = MorphNode.execute(target, world.conditioning, **{**usual, **inputs}).args[0]
        return world.sample(conditioning=conditioning)

    source = latent_of(world)["samples"]
    assert difference(morphed(world.conditioning), source) < 1e-4
    all_differ(
        source,
        morphed(other),
        morphed(other, start=0.5),
        morphed(other, end=0.5),
        morphed(other, draws=2),
        morphed(other, seed=1),
    )


def check_ksampler_refuses_morphs_and_batches(world: World) -> None:
    morph = {"start": 0.0, "end": 1.0, "draws": 1, "latent": latent_of(world)}
    usual = world.conditioning
    cases = [
        (MorphNode.execute(usual, usual, **morph).args[0], "Morph"),
        (BatchSongsNode.execute(usual, song_2=usual).args[0], "batch"),
    ]
    for world.conditioning, word in cases:
        try:
            assert word in refusal(world.ksample)
        finally:
            world.conditioning = usual


def check_the_retake_variance_sets_the_distance(world: World) -> None:
    usual = world.sample()
    near, far, other = (world.sample(retake_variance=v, retake_seed=s) for v, s in ((0.1, 5), (0.5, 5), (0.5, 6)))
    all_differ(usual, near, far, other)
    assert (near - usual).norm() < (far - usual).norm()
    assert difference(world.sample(retake_variance=1.0, retake_seed=5), world.sample(seed=5)) == 0
    assert difference(world.sample(retake_variance=0.0, retake_seed=5), usual) == 0


# -- batches -----------------------------------------------------------------------------------------------------------


def check_a_batch_equals_its_songs_alone(world: World) -> None:
    cover = task(world, CoverNode)
    timbre = with_timbre(world.encode(caption="piano"), 4)
    songs = [
        world.encode(),
        world.encode(caption="a brass band", lyrics="[Verse]\nother, and rather more, words"),
        world.encode(cover, caption="a choir"),
        world.encode(cover, caption="bagpipes"),
        timbre,
    ]
    nested = BatchSongsNode.execute(songs[0], song_2=songs[1]).args[0]
    batch = BatchSongsNode.execute(nested, song_3=songs[2], song_5=songs[3], song_8=songs[4]).args[0]
    batched = world.sample(steps=2, conditioning=batch, batch=2)
    assert batched.shape == (10, 64, FRAMES)
    for i, song in enumerate(songs):
        alone = world.sample(steps=2, conditioning=song, batch=2, seed=11 + 2 * i)
        assert difference(batched[2 * i : 2 * i + 2], alone) < 1e-4


def check_a_batch_of_edits_keeps_each_source(world: World) -> None:
    tasks = [task(world, RepaintNode, audio=recording(i), vae=world.vae) for i in (0, 1)]
    batch = BatchSongsNode.execute(world.encode(tasks[0]), song_2=world.encode(tasks[1])).args[0]
    sound = world.decode_latent(world.sample_latent(steps=2, conditioning=batch))
    for i in (0, 1):
        assert torch.equal(sound[i, :, :RATE], recording(i)["waveform"][0, :, :RATE])


def check_every_caption_is_sampled_for_every_source(world: World) -> None:
    both = {"samples": torch.cat([latent_of(world, seed)["samples"] for seed in (0, 1)])}
    cover = task(world, CoverNode, latent=both)
    songs = [world.encode(cover), world.encode(cover, caption="a choir"), world.encode(cover, caption="bagpipes")]
    batch = BatchSongsNode.execute(songs[0], song_2=songs[1], song_3=songs[2]).args[0]
    batched = world.sample(steps=2, conditioning=batch, batch=2)
    assert batched.shape == (12, 64, FRAMES)
    for i, song in enumerate(songs):
        alone = world.sample(steps=2, conditioning=song, batch=2, seed=11 + 4 * i)
        assert difference(batched[4 * i : 4 * i + 4], alone) < 1e-4


def check_a_batch_needs_one_duration(world: World) -> None:
    longer = world.encode(task(world, ExtendNode))
    batch = BatchSongsNode.execute(world.conditioning, song_2=longer).args[0]
    assert "6, 8 seconds" in refusal(lambda: world.sample(conditioning=batch))
