"""Edits through the whole pipeline, with networks small enough for tests."""

from dataclasses import replace

import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.config import VAEConfig
from acestep_core.edit import kept_parts
from acestep_core.edit.edit import Edit
from acestep_core.edit.morph import Morph, MorphSettings
from acestep_core.edit.source import extend
from acestep_core.edit.tasks import COMPLETE, COVER, EXTRACT, LEGO, REPAINT, TEXT2MUSIC
from acestep_core.errors import NonFiniteError, RequestError
from acestep_core.pipeline import Model, decode, encode, encode_audio, generate, sample, tokenize
from acestep_core.sampling.context import context_latents, silent_context
from acestep_core.sampling.loop import denoise
from acestep_core.sampling.noise import draw_noise
from acestep_core.sampling.settings import SamplingSettings, VariantDefaults
from acestep_core.sampling.velocity import network_velocity
from acestep_core.song.song import Metadata, Song
from acestep_core.text.prompts import STEMS
from tests.support import tiny, tiny_checkpoint, tiny_text
from tests.support.tiny import draw, relative_error

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder

FRAMES = 140
SOURCE = draw(1, FRAMES, 64, seed=5)
OTHER = draw(1, FRAMES, 64, seed=6)
SONG = Song("warm lo-fi piano", "[Verse]\nslow river", Metadata(duration=FRAMES / 25))
STEPS = SamplingSettings(steps=4)
VAE = VAEConfig(encoder_hidden_size=4, decoder_channels=2, channel_multiples=(1, 1, 1, 1, 1), decoder_input_channels=64)
REGION = [(2.0, 3.0)]


@pytest.fixture(scope="module")
def model(tiny_encoder) -> Model:
    return Model(tiny.model(tiny_checkpoint.NETWORK), tiny_encoder, tiny.vae(VAE))


@pytest.fixture(scope="module")
def base(model) -> Model:
    network = tiny.model(replace(tiny_checkpoint.NETWORK, is_turbo=False, model_version="base"))
    return replace(model, network=network, defaults=VariantDefaults(4, 3.0, 7.0, is_turbo=False))


@pytest.fixture(scope="module")
def text(model):
    """The song's states under the instruction of a cover. Tests use them for other tasks as well."""
    return encode(model, SONG, COVER)


def latents(model, text, edit=None, seeds=(3,), settings=STEPS, **options):
    options = {"seconds": FRAMES / 25} | options if edit is None and "morph" not in options else options
    return sample(model, text, seeds=seeds, settings=settings, edit=edit, **options)


def differ(first, second) -> bool:
    return (first - second).abs().max() > 1e-4


# --- cover ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["model", "base"])
def test_strength_0_is_a_song_from_text_and_strength_1_the_whole_cover(request, which, text):
    model = request.getfixturevalue(which)
    plain = latents(model, encode(model, SONG))
    assert torch.equal(latents(model, text, Edit(COVER, SOURCE, strength=0.0)), plain)
    whole = latents(model, text, Edit(COVER, SOURCE))
    velocity = network_velocity(
        model.network,
        [model.network.encoder(text.caption, text.lyrics, model.network.silence(30)[None])],
        context_latents(model.network, Edit(COVER, SOURCE), 1, FRAMES),
        guided=which == "base",
    )
    resolved = STEPS.resolve(model.defaults)
    by_hand = denoise(velocity, draw_noise([3], FRAMES), resolved.schedule, guidance=resolved.guidance)
    assert torch.equal(whole, by_hand) and differ(whole, plain)
    assert torch.equal(whole, latents(model, text, Edit(COVER, SOURCE, strength=1.0)))


def test_strength_switches_text_and_context_after_that_part_of_the_steps(model, text):
    edit, network = Edit(COVER, SOURCE, strength=0.5), model.network
    voice, schedule = network.silence(30)[None], STEPS.resolve(model.defaults).schedule
    first, second = (
        network_velocity(network, [network.encoder(caption, text.lyrics, voice)], context, guided=False)
        for caption, context in (
            (text.caption, context_latents(network, edit, 1, FRAMES)),
            (text.text_only, silent_context(network, edit, 1, FRAMES)),
        )
    )
    by_hand = denoise(second, denoise(first, draw_noise([3], FRAMES), schedule[:3]), schedule[2:])
    assert torch.equal(latents(model, text, edit), by_hand)


def test_noise_strength_begins_between_source_and_noise_at_the_nearest_time(model, text):
    settings = SamplingSettings(timesteps=[1.0, 0.8, 0.4, 0.2])
    near = latents(model, text, Edit(COVER, SOURCE, noise_strength=0.7), settings=settings)
    start = 0.4 * draw_noise([3], FRAMES) + 0.6 * SOURCE
    late = SamplingSettings(timesteps=[0.4, 0.2]).resolve(model.defaults).schedule
    velocity = network_velocity(
        model.network,
        [model.network.encoder(text.caption, text.lyrics, model.network.silence(30)[None])],
        context_latents(model.network, Edit(COVER, SOURCE), 1, FRAMES),
        guided=False,
    )
    assert relative_error(near, denoise(velocity, start, late)) < 1e-5


def test_the_codes_of_a_source_make_the_cover_of_it(model, text):
    (codes,) = tokenize(model, SOURCE)
    assert len(codes) == FRAMES / 5
    sampled = latents(model, text, Edit(TEXT2MUSIC, codes=[codes]))
    assert torch.equal(sampled, latents(model, text, Edit(COVER, SOURCE)))
    changed = (*codes[:-1], (codes[-1] + 1) % 64000)
    assert differ(sampled, latents(model, text, Edit(COVER, codes=[changed])))


def test_codes_may_be_fewer_or_more_than_the_song_needs(model, text):
    edit = Edit(COVER, codes=[tuple(range(100, 140))])
    assert latents(model, text, edit).shape[1] == 200
    assert latents(model, text, edit, seconds=6).shape[1] == 150
    assert latents(model, text, edit, seconds=9).shape[1] == 225


# --- repaint ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode, strength, margin", [("conservative", 0.5, 25), ("balanced", 0.5, 12), ("balanced", 0.99, 0)]
)
def test_kept_latents_are_those_of_the_source(model, text, mode, strength, margin):
    sampled = latents(model, text, Edit(REPAINT, SOURCE, regions=REGION, mode=mode, mode_strength=strength))
    assert torch.equal(sampled[:, : 50 - margin], SOURCE[:, : 50 - margin])
    assert torch.equal(sampled[:, 75 + margin :], SOURCE[:, 75 + margin :])
    assert all(differ(sampled[:, frame], SOURCE[:, frame]) for frame in (50 - margin, 50, 60, 74, 74 + margin))


def test_injection_steers_the_generated_part(model, text):
    """Both have crossfades of 12 frames. 25 of 50 steps inject the source, or 24."""
    first, second = (Edit(REPAINT, SOURCE, regions=REGION, mode_strength=strength) for strength in (0.5, 0.52))
    assert first.crossfade_frames == second.crossfade_frames == 12
    results = [latents(model, text, edit, settings=SamplingSettings(steps=50))[:, 50:75] for edit in (first, second)]
    assert differ(*results)


def test_lego_keeps_what_is_outside_of_its_region_too(base, text):
    sampled = latents(base, text, Edit(LEGO, SOURCE, regions=REGION, tracks="drums"))
    assert torch.equal(sampled[:, :38], SOURCE[:, :38]) and differ(sampled[:, 50:75], SOURCE[:, 50:75])


def test_the_length_is_that_of_the_source_with_its_partial_last_frame(model, text):
    sound = SOUND[..., : 100 * 1920 + 10]
    edit = Edit(COVER, encode_audio(model, sound, 48000), waveform=sound)
    assert latents(model, text, edit, seconds=edit.seconds).shape[1] == edit.frames == 101


def test_short_sources_run_at_the_minimum_length(model, text):
    sampled = latents(model, text, Edit(REPAINT, SOURCE[:, :60], regions=[(1.0, 2.0)]))
    assert sampled.shape[1] == 60 and torch.equal(sampled[:, :13], SOURCE[:, :13])
    assert latents(model, text, Edit(COVER, SOURCE[:, :7])).shape[1] == 7


SOUND = 0.1 * draw(1, 2, FRAMES * 1920 - 100, seed=7)  # the last frame is not full


def edit_of_sound(model, **options) -> Edit:
    return Edit(REPAINT, encode_audio(model, SOUND, 48000), waveform=SOUND, regions=REGION, **options)


@pytest.mark.parametrize("normalize, strength", [(True, 0.5), (False, 0.5), (True, 0.99)])
def test_kept_samples_are_those_of_the_source_at_its_own_level(model, text, normalize, strength):
    edit = edit_of_sound(model, mode_strength=strength)
    waveform = decode(model, latents(model, text, edit, seeds=[3, 4]), edit=edit, normalize=normalize)
    assert waveform.shape == (2, 2, SOUND.shape[-1])
    fade = int(0.025 * 48000)
    for part in (slice(0, 96000 - fade), slice(144000 + fade, None)):
        assert torch.equal(waveform[..., part], SOUND[..., part].expand(2, -1, -1))
    assert differ(waveform[0, :, 96000:144000], SOUND[0, :, 96000:144000]) and differ(waveform[0], waveform[1])


@pytest.mark.parametrize("regions", [[(0, 5.598)], [(0, SOUND.shape[-1] / 48000)], [(0, 2), (2, 5.5999)]])
def test_ranges_that_reach_the_last_sample_keep_nothing(model, text, regions):
    """The source ends within a frame, and the rest of the frame has no sample to keep."""
    sampled = latents(model, text, Edit(REPAINT, SOURCE, regions=[(0, None)]))
    edit = Edit(REPAINT, SOURCE, waveform=SOUND, regions=regions)
    assert torch.equal(latents(model, text, edit), sampled)
    assert torch.equal(decode(model, sampled, edit=edit), decode(model, sampled))


def test_non_finite_restored_audio_raises(model, text, monkeypatch):
    edit = edit_of_sound(model)
    sampled = latents(model, text, edit)
    monkeypatch.setattr(kept_parts, "restore_source", lambda generated, *_: generated * float("nan"))
    with pytest.raises(NonFiniteError, match="decode.*NaN"):
        decode(model, sampled, edit=edit)


@pytest.mark.parametrize("peak", [3, 0.3])
@pytest.mark.parametrize("normalize", [True, False])
def test_without_the_waveform_of_the_source_nothing_is_restored(model, text, peak, normalize):
    edit, model = replace(edit_of_sound(model), waveform=None), replace(model, vae=tiny.vae(VAE))
    sampled = latents(model, text, edit, seeds=[3, 4])
    model.vae.decoder.conv2.weight.mul_(peak / model.vae.decode(sampled).abs().max())
    got = decode(model, sampled, edit=edit, normalize=normalize)
    assert torch.equal(got, decode(model, sampled, normalize=normalize))
    assert got.abs().max() == pytest.approx(0.8912509 if normalize else min(peak, 1))


def test_latents_that_no_longer_fit_their_edit_are_decoded_without_it(model, text, caplog):
    edit = edit_of_sound(model)
    sampled = latents(model, text, edit)[:, :100]
    assert torch.equal(decode(model, sampled, edit=edit), decode(model, sampled, normalize=False))
    assert "length or number" in caplog.text


def test_an_extended_song_begins_as_its_source(model):
    sound, regions = extend(SOUND, after=1.0)
    edit = Edit(REPAINT, encode_audio(model, sound, 48000), waveform=sound, regions=regions)
    result = generate(model, SONG, seed=1, settings=STEPS, edit=edit)
    assert result.songs[0].metadata.duration == pytest.approx(SOUND.shape[-1] / 48000 + 1)
    assert result.waveform.shape[-1] == SOUND.shape[-1] + 48000
    part = SOUND.shape[-1] - int(0.025 * 48000) - 1
    assert torch.equal(result.waveform[..., :part], SOUND[..., :part])
    assert result.waveform[..., SOUND.shape[-1] :].abs().max() > 1e-3


# --- batches ----------------------------------------------------------------------------------------------------------


def test_items_of_a_batch_are_as_they_are_alone(base):
    """Captions, lyrics, sources, codes, masks, seeds and retakes of their own."""
    songs = [SONG, Song("drum bass guitar", "[Chorus]\nfire", Metadata(duration=5.6)), Song("slow night")]
    mask = torch.zeros(3, FRAMES)
    mask[0, 20:40], mask[1, 100:], mask[2, 60:70] = 1, 1, 1
    sources = draw(3, FRAMES, 64, seed=8)
    for whole, alone in (
        (Edit(COVER, sources, strength=0.5), lambda i: Edit(COVER, sources[i : i + 1], strength=0.5)),
        (Edit(COVER, SOURCE, blend=0.3), lambda i: Edit(COVER, SOURCE, blend=0.3)),
        (Edit(REPAINT, sources, mask=mask), lambda i: Edit(REPAINT, sources[i : i + 1], mask=mask[i])),
        (
            Edit(COVER, codes=[range(28), range(500, 528), ()]),
            lambda i: Edit(COVER, codes=[[range(28), range(500, 528)][i]]) if i < 2 else None,
        ),
    ):
        texts = [encode(base, song, whole.task) for song in songs]
        batch = latents(base, texts, whole, seeds=[5, 9, 2], retake=([1, 2, 3], 0.4))
        for i in range(3):
            one = latents(base, texts[i], alone(i), seeds=[[5, 9, 2][i]], retake=([1, 2, 3][i], 0.4))
            assert relative_error(batch[i : i + 1], one) < 1e-5


def test_generate_follows_the_codes_of_each_song(model):
    songs, codes = [SONG, Song("drum bass guitar", metadata=SONG.metadata)], [tuple(range(28)), tuple(range(900, 928))]
    batch = generate(model, songs, batch=2, seed=[4, 5, 6, 7], settings=STEPS, edit=Edit(COVER, codes=codes))
    alone = generate(model, songs[1], seed=6, settings=STEPS, edit=Edit(COVER, codes=codes[1:]))
    assert batch.seeds == (4, 5, 6, 7) and batch.songs == (songs[0], songs[0], songs[1], songs[1])
    assert relative_error(batch.latents[2:3], alone.latents) < 1e-5


@pytest.mark.parametrize("options", [{}, {"strength": 0.5}], ids=["whole", "half"])
def test_a_song_without_codes_among_songs_with_some_is_one_from_text(base, options):
    songs, codes = [SONG, Song("drum bass guitar", metadata=SONG.metadata)], [tuple(range(28)), ()]
    batch = generate(base, songs, seed=[4, 5], settings=STEPS, edit=Edit(COVER, codes=codes, **options))
    covered = generate(base, songs[0], seed=4, settings=STEPS, edit=Edit(COVER, codes=codes[:1], **options))
    alone = generate(base, songs[1], seed=5, settings=STEPS)
    assert relative_error(batch.latents[:1], covered.latents) < 1e-5
    assert relative_error(batch.latents[1:], alone.latents) < 1e-5


# --- every input matters ----------------------------------------------------------------------------------------------

MASK = torch.zeros(FRAMES)
MASK[10:40] = 1
CODES = [tuple(range(28))]
MATTERS = {
    "task": (Edit(COVER, SOURCE, use_codes=False), Edit(COVER, SOURCE)),
    "source": (Edit(COVER, SOURCE), Edit(COVER, OTHER)),
    "source itself": (Edit(COVER, SOURCE, use_codes=False), Edit(COVER, OTHER, use_codes=False)),
    "codes": (Edit(COVER, codes=CODES), Edit(COVER, codes=[tuple(range(50, 78))])),
    "regions": (Edit(REPAINT, SOURCE, regions=REGION), Edit(REPAINT, SOURCE, regions=[(2.0, 3.04)])),
    "second region": (Edit(REPAINT, SOURCE, regions=REGION), Edit(REPAINT, SOURCE, regions=[*REGION, (0, 1)])),
    "mask": (Edit(REPAINT, SOURCE, regions=REGION), Edit(REPAINT, SOURCE, mask=MASK)),
    "strength": (Edit(COVER, SOURCE), Edit(COVER, SOURCE, strength=0.75)),
    "blend": (Edit(COVER, SOURCE), Edit(COVER, SOURCE, blend=0.25)),
    "noise strength": (Edit(COVER, SOURCE), Edit(COVER, SOURCE, noise_strength=0.4)),
    "mode": (Edit(REPAINT, SOURCE, regions=REGION), Edit(REPAINT, SOURCE, regions=REGION, mode="aggressive")),
    "mode strength": (
        Edit(REPAINT, SOURCE, regions=REGION),
        Edit(REPAINT, SOURCE, regions=REGION, mode_strength=0.3),
    ),
    "auto mask": (Edit(COVER, SOURCE), Edit(COVER, SOURCE, auto_mask=True)),
}


@pytest.mark.parametrize("first, second", MATTERS.values(), ids=MATTERS.keys())
def test_every_input_of_an_edit_matters(model, text, first, second):
    assert differ(latents(model, text, first), latents(model, text, second))


def test_tracks_and_tasks_matter_through_the_text(base):
    def sampled(task, tracks):
        return latents(base, encode(base, SONG, task, tracks), Edit(task, SOURCE, tracks=tracks))

    cases = [(EXTRACT, ["vocals"]), (EXTRACT, ["drums"]), (COMPLETE, ["drums"]), (LEGO, ["drums"])]
    results = [sampled(task, tracks) for task, tracks in cases]
    assert all(differ(a, b) for i, a in enumerate(results) for b in results[i + 1 :])


def test_timbre_and_retake_matter(model, text):
    plain = latents(model, text)
    one, two = latents(model, text, timbre=[OTHER]), latents(model, text, timbre=[OTHER, SOURCE])
    assert differ(plain, one) and differ(one, two)
    near, far = latents(model, text, retake=(8, 0.1)), latents(model, text, retake=(8, 0.9))
    assert torch.equal(latents(model, text, retake=(8, 0.0)), plain)
    assert 1e-4 < (near - plain).norm() < (far - plain).norm()
    assert torch.equal(latents(model, text, retake=(8, 1.0)), latents(model, text, seeds=[8]))
    assert differ(near, latents(model, text, retake=(9, 0.1)))


def test_a_morph_changes_the_source_towards_the_target(base):
    here, there = encode(base, SONG), encode(base, Song("drum bass guitar", metadata=SONG.metadata))
    moved = latents(base, there, morph=Morph(here, SOURCE))
    assert moved.shape == SOURCE.shape and differ(moved, SOURCE)
    assert torch.allclose(latents(base, here, morph=Morph(here, SOURCE)), SOURCE, atol=1e-4)  # the same words
    assert differ(moved, latents(base, there, morph=Morph(here, OTHER)))
    assert differ(moved, latents(base, there, morph=Morph(here, SOURCE, MorphSettings(0.25, 1.0))))
    assert differ(moved, latents(base, there, morph=Morph(here, SOURCE), edit=Edit(COVER, OTHER)))


# --- invalid requests -------------------------------------------------------------------------------------------------


def test_a_morph_ignores_the_retake_variance(model, text, caplog):
    def morphed(retake):
        return latents(model, text, morph=Morph(replace(text, caption=text.text_only), SOURCE), retake=retake)

    assert torch.equal(morphed((8, 0.0)), morphed(None)) and differ(morphed((8, 1.0)), morphed(None))
    assert "variance is ignored" not in caplog.text
    assert torch.equal(morphed((8, 0.01)), morphed((8, 1.0)))
    assert "the retake variance is ignored" in caplog.text


def test_invalid_requests(model, base, text):
    plain = encode(model, SONG)
    for message, call in (
        ("seconds", lambda: sample(model, text, seeds=[1])),
        ("5.6 seconds, not 7", lambda: latents(model, text, Edit(COVER, SOURCE), seconds=7)),
        ("3 songs", lambda: latents(model, text, Edit(COVER, draw(3, 30, 64)), seeds=[1, 2])),
        ("edit's task", lambda: latents(model, plain, Edit(COVER, SOURCE, strength=0.5))),
        ("not trained for extract", lambda: latents(model, text, Edit(EXTRACT, SOURCE))),
        ("variance of a retake", lambda: latents(model, text, retake=(1, 1.5))),
        ("2 for", lambda: latents(model, text, retake=([1, 2], 0.5))),
        ("must be latents", lambda: latents(model, text, timbre=[draw(1, 64, 30)])),
        (
            "morph.*lego",
            lambda: latents(base, text, Edit(LEGO, SOURCE), morph=Morph(text, SOURCE)),
        ),
    ):
        with pytest.raises(RequestError, match=message):
            call()
    with pytest.raises(RequestError, match="not trained for lego"):  # before any work
        generate(replace(model, text_encoder=None), SONG, edit=Edit(LEGO, SOURCE))


def test_warnings_of_ignored_options_and_untrained_models(model, text, caplog):
    warnings = []
    latents(
        model, text, Edit(REPAINT, SOURCE, regions=REGION, strength=0.5), callbacks=Callbacks(warning=warnings.append)
    )
    assert "strength and blend are ignored" in caplog.text and "strength and blend are ignored" in warnings[0]
    latents(model, text, Edit(EXTRACT, SOURCE, allow_untrained=True))
    assert "not trained for extract" in caplog.text


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_the_prompt_contains_task_and_duration(model, monkeypatch):
    encoded = []
    inner = model.text_encoder.encode
    monkeypatch.setattr(model.text_encoder, "encode", lambda *a, **k: encoded.append(inner(*a, **k)) or encoded[-1])
    generate(model, Song("x"), seed=1, settings=STEPS, edit=Edit(REPAINT, SOURCE, regions=REGION))
    assert "Repaint the mask area" in encoded[0].caption_prompt and "- duration: 5 seconds" in encoded[0].caption_prompt
    stems = replace(model, style=STEMS)
    generate(stems, Song("x"), seed=1, settings=STEPS, edit=Edit(COVER, SOURCE, auto_mask=True))
    assert "# Caption\nGlobal: \nLocal: x\nMask Control: false\n" in encoded[1].caption_prompt
    assert encoded[0].text_only is not None and encode(model, SONG).text_only is None
    expected = encode(model, Song("x", metadata=Metadata(duration=FRAMES / 25))).caption
    assert torch.equal(encoded[1].text_only, expected)  # of text alone, in any model
