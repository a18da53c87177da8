from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.errors import Cancelled, NonFiniteError, RequestError
from acestep_core.models import dit, tiling
from acestep_core.pipeline import Model, decode, encode, encode_audio, generate, sample
from acestep_core.sampling.settings import SamplingSettings, VariantDefaults
from acestep_core.sampling.solvers import SOLVERS
from acestep_core.song.song import Metadata, Song
from tests.support import tiny, tiny_checkpoint, tiny_text

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder

SONG = Song("warm lo-fi piano", "[Verse]\nslow river", Metadata(duration=1.0))
OTHER = Song("drum bass guitar", metadata=Metadata(duration=1.0))


@pytest.fixture(scope="module")
def model(tiny_encoder) -> Model:
    return Model(tiny.model(tiny_checkpoint.NETWORK), tiny_encoder, tiny.vae(tiny_checkpoint.VAE))


# --- generate -------------------------------------------------------------------------------------------------------


def test_a_seed_is_a_song(model):
    first, again, other = (generate(model, SONG, seed=seed) for seed in (7, 7, 8))
    assert first.waveform.shape == (1, 2, 48000) and first.waveform.dtype == torch.float32
    assert first.latents.shape == (1, 25, 64) and first.sample_rate == 48000
    assert torch.equal(first.waveform, again.waveform)
    assert (first.waveform - other.waveform).abs().max() > 0.01


def test_an_item_of_a_batch_is_the_song_of_its_own_seed(model):
    batch = generate(model, SONG, batch=3, seed=7)
    alone = generate(model, SONG, seed=9)
    assert batch.seeds == (7, 8, 9)
    assert tiny.relative_error(batch.latents[2:], alone.latents) < 1e-5


def test_different_songs_in_one_batch_are_as_they_are_alone(model):
    batch = generate(model, [SONG, OTHER], batch=2, seed=7)
    alone = generate(model, OTHER, seed=9)
    assert batch.songs == (SONG, SONG, OTHER, OTHER)
    assert tiny.relative_error(batch.latents[2:3], alone.latents) < 1e-5


def test_seeds_that_share_their_noise_are_refused(model):
    for seed, retake in ((7 + 2**32, None), ([7, 7 + 2**32], None), (7, (7 + 2**32, 0.5))):
        with pytest.raises(RequestError, match=r"seed .*2\*\*32"):
            generate(model, SONG, batch=2 if isinstance(seed, list) else 1, seed=seed, retake=retake)


def test_the_number_of_threads_changes_the_rounding_alone(model):
    threads = torch.get_num_threads()
    alone = generate(model, SONG, seed=7)
    try:
        torch.set_num_threads(3)
        assert tiny.relative_error(generate(model, SONG, seed=7).waveform, alone.waveform) < 1e-5
    finally:
        torch.set_num_threads(threads)


def test_threads_may_share_a_model(model):
    requests = [(song, seed) for song in (SONG, OTHER) for seed in (1, 2, 3)]
    alone = [generate(model, song, seed=seed).waveform for song, seed in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(lambda request: generate(model, request[0], seed=request[1]).waveform, requests))
    assert all(torch.equal(first, second) for first, second in zip(alone, together, strict=True))


def test_a_random_seed_is_recorded(model):
    first, second = generate(model, SONG), generate(model, SONG)
    assert first.seeds != second.seeds
    recipe = first.recipe()
    again = generate(model, recipe.song, seed=recipe.seed, settings=recipe.settings, normalize=recipe.normalize)
    assert torch.equal(first.waveform, again.waveform)


def test_text_changes_the_song(model):
    assert (generate(model, SONG, seed=1).latents - generate(model, OTHER, seed=1).latents).abs().max() > 0.01


def test_results_may_be_changed_by_the_caller(model):
    result = generate(model, SONG, seed=7)
    result.latents.mul_(2)
    result.waveform.mul_(2)


@pytest.mark.parametrize(
    ("songs", "batch", "message"),
    [
        (SONG, 0, "batch.* got 0"),
        ([], 1, "batch.* 0 songs"),
        ([SONG, Song("x", metadata=Metadata(duration=2.0))], 1, "one duration.* 1, 2 seconds"),
        ("piano", 1, "Song.* got 'piano'"),
        ([SONG, None], 1, "Song.* got None"),
    ],
)
def test_invalid_batches_are_refused(model, songs, batch, message):
    with pytest.raises(RequestError, match=message):
        generate(model, songs, batch=batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SamplingSettings(steps=0), "steps"),
        (SamplingSettings(shift=0), "shift"),
        (SamplingSettings(shift=-1.0), "shift"),
    ],
)
def test_invalid_settings_are_refused_before_any_work(model, settings, message):
    with pytest.raises(RequestError, match=message):
        generate(replace(model, text_encoder=None), SONG, settings=settings)


# --- stages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["settings", "edit", "morph"])
@pytest.mark.parametrize("given", [{}, {"steps": 2}, "repaint", 3, []])
def test_an_argument_of_another_type_is_refused(model, name, given):
    with pytest.raises(RequestError, match=f"^{name} must be"):
        generate(model, SONG, seed=7, **{name: given})
    with pytest.raises(RequestError, match=f"^{name} must be"):
        sample(model, [], seeds=[7], seconds=1, **{name: given})
    if name == "edit":
        with pytest.raises(RequestError, match="^edit must be"):
            decode(model, torch.rand(1, 5, 64), edit=given)


def test_lists_are_no_waveforms(model):
    with pytest.raises(RequestError, match="tensor .*list"):
        decode(model, [[0.0]])
    with pytest.raises(RequestError, match="tensor .*list"):
        encode_audio(model, [[0.0]], 48000)


def test_sampling_settings_default_to_the_variants_own(model):
    base = replace(model, defaults=VariantDefaults(3, 3.0, 7.0, is_turbo=False))
    assert generate(model, SONG, seed=1).settings.steps == 8
    settings = generate(base, SONG, seed=1).settings
    assert (settings.steps, settings.guidance_scale) == (3, 7.0)


def test_guidance_and_solver_change_the_song(model):
    base = replace(model, defaults=VariantDefaults(5, 3.0, 7.0, is_turbo=False))
    condition = encode(base, SONG)

    def latents(**settings):
        return sample(base, condition, seconds=1, seeds=[1], settings=SamplingSettings(**settings))

    results = [latents(), latents(guidance_scale=1.0), latents(guidance_method="cfg")]
    results += [latents(solver=name) for name in SOLVERS if name != "euler"]
    results += [latents(guidance_end=0.7), latents(dcw="double"), latents(negative_caption="noise")]
    for i, first in enumerate(results):
        for second in results[i + 1 :]:
            assert (first - second).abs().max() > 1e-4


def test_a_negative_caption_is_one_for_all_songs_without_lyrics_and_metadata(model, caplog):
    base = replace(model, defaults=VariantDefaults(3, 3.0, 7.0, is_turbo=False))
    song = Song("warm piano", "[Verse]\nla", Metadata(bpm=90, duration=1))
    settings = SamplingSettings(negative_caption="noise")
    made = generate(base, song, batch=2, seed=1, settings=settings)
    assert made.recipe(1).settings.negative_caption == "noise"
    again = generate(base, song, seed=2, settings=made.recipe(1).settings)
    assert tiny.relative_error(again.latents, made.latents[1:]) < 1e-5
    negative = encode(base, Song("noise", metadata=Metadata(duration=1)))
    given = sample(base, encode(base, song), seconds=1, seeds=[1, 2], negative=negative)
    assert (given - made.latents).abs().max() < 1e-5
    with pytest.raises(RequestError, match="negative.* 3 for 2"):
        sample(base, encode(base, song), seconds=1, seeds=[1, 2], negative=[negative] * 3)
    plain = sample(model, encode(model, song), seconds=1, seeds=[1])
    assert torch.equal(sample(model, encode(model, song), seconds=1, seeds=[1], settings=settings), plain)
    assert "negative caption is ignored" in caplog.text


def test_turbo_ignores_guidance_with_a_warning(model, caplog):
    condition = encode(model, SONG)
    plain = sample(model, condition, seconds=1, seeds=[1])
    guided = sample(model, condition, seconds=1, seeds=[1], settings=SamplingSettings(guidance_scale=7.0))
    assert torch.equal(plain, guided)
    assert "guidance 7 is ignored" in caplog.text


def test_what_does_not_depend_on_the_step_is_computed_once(model, monkeypatch):
    network, calls = tiny.model(tiny_checkpoint.NETWORK), Counter()
    decoder, cross = network.decoder, network.decoder.layers[-1].cross_attn
    parts = {
        "condition": network.encoder,
        "condition in the transformer's width": decoder.condition_embedder,
        "keys": cross.k_proj,
        "values": cross.v_proj,
        "second time": decoder.time_embed_r,
        "time": decoder.time_embed,
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: calls.update([name]))
    for name in ("rotary_tables", "make_band"):
        make = getattr(dit, name)
        monkeypatch.setattr(dit, name, lambda *args, name=name, make=make: calls.update([name]) or make(*args))
    patch = decoder._patch
    decoder._patch = lambda x: calls.update([f"patches of {x.shape[-1]} channels"]) or patch(x)
    sample(replace(model, network=network), encode(model, SONG), seconds=1, seeds=[1, 2])
    assert (calls.pop("time"), calls.pop("patches of 64 channels")) == (8, 8)
    assert calls == dict.fromkeys([*calls], 1) and len(calls) == 8  # with the patches of the context


def test_conditions_and_seeds_must_match(model):
    condition = encode(model, SONG)
    with pytest.raises(RequestError, match="conditions.* 2 for 3"):
        sample(model, [condition] * 2, seconds=1, seeds=[1, 2, 3])


def test_levels_after_decode(model):
    latents, vae = tiny.draw(2, 4, 64), tiny.vae(tiny_checkpoint.VAE)
    peaks = vae.decode(latents).abs().amax(dim=(1, 2))
    vae.decoder.conv2.weight.div_(peaks.prod().sqrt())  # now one item clips and the other does not
    raw = vae.decode(latents)
    quiet, loud = raw.abs().amax(dim=(1, 2)).argsort().tolist()
    model = replace(model, vae=vae)
    plain = decode(model, latents, normalize=False)
    assert plain[loud].abs().max() == pytest.approx(1) and raw[loud].abs().max() > 1.01
    assert tiny.relative_error(plain[quiet], raw[quiet]) < 1e-5
    assert decode(model, latents).abs().amax(dim=(1, 2)).tolist() == pytest.approx([0.8912509] * 2)


@pytest.mark.parametrize("shape", [(1, 0, 64), (0, 4, 64), (4, 64), (1, 64, 4)])
def test_latents_of_a_wrong_shape_are_refused(model, shape):
    with pytest.raises(RequestError, match=r"latents must be \[batch, frames, 64\]"):
        decode(model, torch.ones(shape))


def test_empty_latents_are_refused(model):
    with pytest.raises(RequestError, match="empty"):
        decode(model, torch.cat([torch.ones(1, 4, 64), torch.zeros(1, 4, 64)]))


def test_audio_of_any_rate_becomes_latents(model):
    tone = torch.cos(torch.arange(4410) / 20)[None, None]
    latents = encode_audio(model, tone, 44100)
    assert latents.shape == (1, 3, 64)  # 4800 samples at 48 kHz: two and a half frames
    stereo = torch.cat([tone, tone], dim=1)
    assert torch.equal(latents, encode_audio(model, stereo, 44100))
    assert encode_audio(model, stereo[..., :1], 48000).shape == (1, 1, 64)
    assert torch.equal(encode_audio(model, 3 * tone, 48000), encode_audio(model, (3 * tone).clamp(-1, 1), 48000))


def test_dropped_channels_are_reported(model, caplog):
    surround, warnings = torch.rand(1, 6, 1920), []
    latents = encode_audio(model, surround, 48000, callbacks=Callbacks(warning=warnings.append))
    assert torch.equal(latents, encode_audio(model, surround[:, :2], 48000))
    assert len(warnings) == 1 and "first 2 of 6 channels" in warnings[0]
    assert warnings[0] in caplog.text


@pytest.mark.parametrize("samples", [0, 100])
def test_silent_or_empty_audio_is_refused(model, samples):
    with pytest.raises(RequestError, match="silent|empty"):
        encode_audio(model, torch.zeros(1, 2, samples), 48000)


def test_a_missing_part_is_named():
    for stage, name in (
        (lambda: encode(Model(), SONG), "text encoder"),
        (lambda: sample(Model(), [], seconds=1, seeds=[1]), "diffusion model"),
        (lambda: decode(Model(), torch.zeros(1, 4, 64)), "VAE"),
    ):
        with pytest.raises(RequestError, match=name):
            stage()


# --- placement, callbacks, broken numbers -----------------------------------------------------------------------------


class LoggingPlacement:
    """A placement that logs the networks in use."""

    def __init__(self):
        self.log, self.inside = [], None

    @contextmanager
    def use(self, module):
        assert self.inside is None, "two networks in use at once"
        self.inside = module
        self.log.append(module)
        try:
            yield torch.device("cpu")
        finally:
            self.inside = None


def test_every_stage_places_its_network_only(model):
    placement = LoggingPlacement()
    generate(replace(model, placement=placement), SONG, seed=1)
    assert placement.log == [model.text_encoder.module, model.network, model.vae]


def test_every_stage_reports_progress(model):
    reports = []
    generate(model, SONG, seed=1, callbacks=Callbacks(progress=reports.append))
    last = {report.stage: (report.step, report.total) for report in reports}
    assert last == {"encode": (1, 1), "sample": (8, 8), "decode": (1, 1)}


@pytest.mark.parametrize("stage", ["encode", "sample", "decode"])
def test_a_cancel_stops_in_any_stage_and_frees_the_placement(model, stage):
    placement, callbacks = LoggingPlacement(), []
    order = ["encode", "sample", "decode"]
    reached = [model.text_encoder.module, model.network, model.vae][order.index(stage)]
    callbacks = Callbacks(cancelled=lambda: placement.inside is reached or (stage == "encode"))
    with pytest.raises(Cancelled, match=stage):
        generate(replace(model, placement=placement), SONG, seed=1, callbacks=callbacks)
    assert placement.inside is None


def test_non_finite_errors_name_the_stage(model):
    network = tiny.model(tiny_checkpoint.NETWORK)
    network.decoder.norm_out.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="sampling.*NaN"):
        generate(replace(model, network=network), SONG, seed=1)
    vae = tiny.vae(tiny_checkpoint.VAE)
    vae.decoder.conv2.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="decode.*float32"):
        generate(replace(model, vae=vae), SONG, seed=1)
    with pytest.raises(NonFiniteError, match="decode.*latents"):
        decode(model, torch.full((1, 4, 64), float("nan")))


@pytest.mark.parametrize(
    ("system", "torch_version", "frames"),
    [
        ("14.7.1", (2, 11), 32),
        ("15.0", (2, 11), 32),
        ("15.1", (2, 5), 32),
        ("15.1", (2, 6), 512),
        ("26.0", (2, 11), 512),
    ],
)
def test_tiles_on_metal_are_short_only_where_long_ones_fail(monkeypatch, system, torch_version, frames):
    monkeypatch.setattr(tiling.platform, "mac_ver", lambda: (system, ("", "", ""), "arm64"))
    monkeypatch.setattr(tiling, "TORCH", torch_version)
    assert tiling.fitting_tile(torch.device("mps"), 512) == frames
    assert tiling.fitting_tile(torch.device("mps"), 24) == 24
    assert tiling.fitting_tile(torch.device("cpu"), 512) == 512
