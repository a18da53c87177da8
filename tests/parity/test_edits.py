"""Edits against diffusers' AceStepPipeline: the same weights, text states, noise and recordings, float32.

The last tests name where we follow another source than diffusers and show both results.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import AceStepPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel

from acestep_core import pipeline
from acestep_core.audio.reference import reference_audio
from acestep_core.config import SAMPLE_RATE, VAEConfig
from acestep_core.edit.edit import Edit
from acestep_core.edit.source import extend
from acestep_core.edit.tasks import COMPLETE, COVER, EXTRACT, LEGO, REPAINT, TASKS, TEXT2MUSIC, TRACKS, instruction
from acestep_core.pipeline import Model, recommended
from acestep_core.sampling.context import context_latents
from acestep_core.sampling.noise import draw_noise
from acestep_core.sampling.settings import SamplingSettings
from acestep_core.song.codes import format_codes
from acestep_core.text.encoder import TextCondition
from tests.parity import diffusers_maps
from tests.support import tiny
from tests.support.tiny import relative_error

LIMIT = 1e-4
SECONDS = 6.0
FRAMES = 150
TURBO = replace(tiny.STANDARD, timbre_fix_frame=750)
VAE = VAEConfig(encoder_hidden_size=4, decoder_channels=2, channel_multiples=(1, 1, 1, 1, 1))
BASE = replace(TURBO, is_turbo=False, model_version="base")


def recording(seconds: float, seed: int = 1) -> torch.Tensor:
    """Return three amplitude-modulated tones, [1, 2, samples]."""
    t = torch.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tones = torch.stack(
        [torch.sin(2 * torch.pi * (220 * (seed + i)) * t + i) * torch.sin(t * (i + 1)) for i in range(3)]
    )
    return 0.3 * torch.stack([tones.sum(0), tones[0] - tones[1]])[None]


class Ours:
    """Our networks, a song's text states, and the latents of both sides."""

    def __init__(self, config):
        network = tiny.model(config)
        network.silence_latent = tiny.draw(1, 1000, 64, seed=2)
        self.model = Model(network, vae=tiny.vae(VAE), defaults=recommended(network))
        self.text = TextCondition(
            tiny.draw(1, 7, config.text_hidden_dim, seed=3), tiny.draw(1, 11, config.text_hidden_dim, seed=4), "", "",
            text_only=tiny.draw(1, 6, config.text_hidden_dim, seed=5),
        )  # fmt: skip
        self.source = pipeline.encode_audio(self.model, recording(SECONDS), SAMPLE_RATE)

    def sample(self, edit: Edit | None, seconds: float | None = None, scale: float = 1.0, **options) -> torch.Tensor:
        settings = SamplingSettings(steps=4, shift=3.0, guidance_scale=scale)
        return pipeline.sample(
            self.model, self.text, seconds=seconds, seeds=[0], settings=settings, edit=edit, **options
        )


class OurVAE:
    """Replaces diffusers' VAE, which samples the posterior and has no small config. test_networks compares both."""

    dtype = torch.float32

    def __init__(self, vae):
        self.encode = lambda sound: SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda: vae.encode(sound).mT))


class Theirs:
    """diffusers with the same weights. Records the inputs of its transformer in `contexts` and `conditions`."""

    def __init__(self, ours: Ours, monkeypatch):
        network = ours.model.network
        self.contexts, self.conditions, self.texts = [], [], []
        self.pipe = AceStepPipeline(
            vae=None,
            text_encoder=None,
            tokenizer=None,
            transformer=diffusers_maps.transformer(network),
            condition_encoder=diffusers_maps.condition_encoder(network),
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
            audio_tokenizer=diffusers_maps.audio_tokenizer(network),
            audio_token_detokenizer=diffusers_maps.detokenizer(network),
        )
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.vae = OurVAE(ours.model.vae)

        def encode_prompt(*_, instruction: str, **__):
            self.texts.append(instruction)
            caption = ours.text.text_only if instruction == TEXT2MUSIC.instruction else ours.text.caption
            ones = [torch.ones(each.shape[:2], dtype=torch.long) for each in (caption, ours.text.lyrics)]
            return caption, ones[0], ours.text.lyrics, ones[1]

        self.pipe.encode_prompt = encode_prompt
        forward = AceStepTransformer1DModel.forward

        def watched(module, *args, **options):
            self.contexts.append(options["context_latents"])
            self.conditions.append(options["encoder_hidden_states"])
            return forward(module, *args, **options)

        monkeypatch.setattr(AceStepTransformer1DModel, "forward", watched)

    def sample(self, task: str, sound: torch.Tensor | None, frames: int = FRAMES, scale: float = 1.0, **options):
        return self.pipe(
            prompt=[""], lyrics=[""], task_type=task, src_audio=None if sound is None else sound[0],
            num_inference_steps=4, shift=3.0, guidance_scale=scale, latents=draw_noise([0], frames),
            output_type="latent", **options,
        ).audios  # fmt: skip


@pytest.fixture(scope="module")
def turbo() -> Ours:
    return Ours(TURBO)


@pytest.fixture(scope="module")
def base() -> Ours:
    return Ours(BASE)


def assert_equal(ours: Ours, theirs: Theirs, edit: Edit, task: str, sound, scale: float = 1.0, **options) -> None:
    """Compare contexts, instruction and latents."""
    expected = theirs.sample(task, sound, edit.frames, scale, **options)
    context = context_latents(ours.model.network, edit, 1, edit.frames)
    assert relative_error(context[..., :64], theirs.contexts[0][:1, :, :64]) <= 1e-5
    assert torch.equal(context[..., 64:], theirs.contexts[0][:1, :, 64:])
    assert theirs.texts[0] == instruction(edit.task, edit.tracks)
    assert relative_error(ours.sample(edit, scale=scale), expected) <= LIMIT


def test_instructions_are_equal():
    for task in TASKS.values():
        for tracks in ((), *((track,) for track in TRACKS), TRACKS, ("vocals", "drums")):
            if len(tracks) > task.max_tracks:
                continue
            expected = AceStepPipeline._get_task_instruction(task.name, tracks[0] if tracks else None, list(tracks))
            assert instruction(task, tracks) == expected


# diffusers restores nothing, like the mode aggressive.
REPAINTS = {"middle": (1.5, 3.0), "start": (0.0, 2.01), "to the end": (4.0, 6.0), "all": (0.0, 6.0)}


@pytest.mark.parametrize("start, end", REPAINTS.values(), ids=REPAINTS.keys())
def test_repaint(turbo, monkeypatch, start, end):
    edit = Edit(REPAINT, turbo.source, regions=[(start, end)], mode="aggressive")
    times = {"repainting_start": start, "repainting_end": end}
    assert_equal(turbo, Theirs(turbo, monkeypatch), edit, "repaint", recording(SECONDS), **times)


def test_repaint_with_guidance(base, monkeypatch):
    edit = Edit(REPAINT, base.source, regions=[(1.0, None)], mode="aggressive")
    assert_equal(base, Theirs(base, monkeypatch), edit, "repaint", recording(SECONDS), 7.0, repainting_start=1.0)


@pytest.mark.parametrize("before, after", [(0, 2), (1.6, 0), (1, 1)])
def test_extend_is_a_repaint_of_a_longer_recording(turbo, monkeypatch, before, after):
    sound, regions = extend(recording(SECONDS), before, after)
    regions = regions[-1:]  # diffusers knows one only
    edit = Edit(REPAINT, pipeline.encode_audio(turbo.model, sound, SAMPLE_RATE), regions=regions, mode="aggressive")
    times = {"repainting_start": regions[0][0], "repainting_end": regions[0][1]}
    assert_equal(turbo, Theirs(turbo, monkeypatch), edit, "repaint", sound, **times)


def test_cover(turbo, base, monkeypatch):
    for ours, scale in ((turbo, 1.0), (base, 7.0)):
        with monkeypatch.context() as patch:
            assert_equal(ours, Theirs(ours, patch), Edit(COVER, ours.source), "cover", recording(SECONDS), scale)


def test_audio_codes(turbo, monkeypatch):
    codes = tuple(range(0, 64000, 2000))[:30]
    edit = Edit(TEXT2MUSIC, codes=[codes])
    theirs = Theirs(turbo, monkeypatch)
    expected = theirs.sample("text2music", None, audio_codes=format_codes(codes))
    assert theirs.texts == [COVER.instruction]
    assert relative_error(context_latents(turbo.model.network, edit, 1, FRAMES), theirs.contexts[0]) <= 1e-5
    assert relative_error(turbo.sample(edit), expected) <= LIMIT


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_blend_is_diffusers_cover_strength(base, monkeypatch, share):
    theirs = Theirs(base, monkeypatch)
    expected = theirs.sample("cover", recording(SECONDS), scale=5.0, audio_cover_strength=1 - share)
    assert theirs.texts == [COVER.instruction, TEXT2MUSIC.instruction]
    assert relative_error(base.sample(Edit(COVER, base.source, blend=share), scale=5.0), expected) <= LIMIT


STEMS = {
    "extract": (EXTRACT, ("backing_vocals",), {"track_name": "backing_vocals"}),
    "lego": (LEGO, ("drums",), {"track_name": "drums"}),
    "complete": (COMPLETE, ("bass", "vocals"), {"complete_track_classes": ["bass", "vocals"]}),
    "no track": (COMPLETE, (), {}),
}


@pytest.mark.parametrize("task, tracks, named", STEMS.values(), ids=STEMS.keys())
def test_stems(base, monkeypatch, task, tracks, named):
    edit = Edit(task, base.source, tracks=tracks)
    assert_equal(base, Theirs(base, monkeypatch), edit, task.name, recording(SECONDS), 7.0, **named)


def test_lego_in_a_region(base, monkeypatch):
    edit = Edit(LEGO, base.source, regions=[(2.0, 4.5)], tracks=("guitar",), mode="aggressive")
    named = {"track_name": "guitar", "repainting_start": 2.0, "repainting_end": 4.5}
    assert_equal(base, Theirs(base, monkeypatch), edit, "lego", recording(SECONDS), **named)


@pytest.mark.parametrize("seconds", [7.0, 33.0])
def test_reference_audio(turbo, monkeypatch, seconds):
    sound = recording(seconds, seed=2)
    theirs = Theirs(turbo, monkeypatch)
    expected = theirs.sample("text2music", None, audio_duration=SECONDS, reference_audio=sound[0])
    reference = pipeline.encode_audio(turbo.model, reference_audio(sound, SAMPLE_RATE), SAMPLE_RATE)
    text = replace(turbo.text, caption=turbo.text.text_only)
    (ours,) = pipeline.encode_conditions(turbo.model.network, [text], "cpu", [reference])
    assert relative_error(ours, theirs.conditions[0]) <= 1e-5
    (silent,) = pipeline.encode_conditions(turbo.model.network, [text], "cpu")
    assert relative_error(silent, theirs.conditions[0]) > 1e-3
    got = pipeline.sample(
        turbo.model, text, seconds=SECONDS, seeds=[0], settings=SamplingSettings(steps=4), timbre=[reference]
    )
    assert relative_error(got, expected) <= LIMIT


# --- where we differ --------------------------------------------------------------------------------------------------


def test_divergence_cover_strength_switches_where_diffusers_blends(turbo, monkeypatch):
    """As in the original, the first steps follow the source and the rest the text alone, with a silent context."""
    theirs = Theirs(turbo, monkeypatch).sample("cover", recording(SECONDS), audio_cover_strength=0.5)
    ours = turbo.sample(Edit(COVER, turbo.source, strength=0.5))
    assert relative_error(ours, theirs) > 1e-2
    none = turbo.sample(Edit(COVER, turbo.source, strength=0.0))
    alone = pipeline.sample(
        turbo.model, replace(turbo.text, caption=turbo.text.text_only), seconds=SECONDS, seeds=[0],
        settings=SamplingSettings(steps=4),
    )  # fmt: skip
    assert torch.equal(none, alone)


def test_divergence_kept_parts_are_the_source_where_diffusers_regenerates_them(turbo, monkeypatch):
    """As in the balanced mode of the newer original, the source is restored beyond the crossfade."""
    times = {"repainting_start": 2.0, "repainting_end": 3.0}
    theirs = Theirs(turbo, monkeypatch).sample("repaint", recording(SECONDS), **times)
    edit = Edit(REPAINT, turbo.source, regions=[(2.0, 3.0)])
    ours = turbo.sample(edit)
    outside = slice(0, 50 - edit.crossfade_frames)
    assert torch.equal(ours[:, outside], turbo.source[:, outside])
    assert relative_error(theirs[:, outside], turbo.source[:, outside]) > 1e-2


def test_divergence_missing_codes_are_silence_where_diffusers_fills_up_with_code_zero(turbo, monkeypatch):
    """As in the original, silence follows codes that are too few, and batching does not change an item."""
    long, short = tuple(range(100, 130)), tuple(range(200, 226))
    both = context_latents(turbo.model.network, Edit(COVER, turbo.source, codes=[long, short]), 2, FRAMES)
    assert torch.equal(both[1:, 130:, :64], turbo.model.network.silence(FRAMES)[:, 130:])
    pipe = Theirs(turbo, monkeypatch).pipe
    theirs, _ = pipe.prepare_src_latents("cpu", torch.float32, 2, audio_codes=[format_codes(long), format_codes(short)])
    assert relative_error(both[0, :, :64], theirs[0]) <= 1e-5
    assert relative_error(both[1, :130, :64], theirs[1, :130]) <= 1e-5
    assert relative_error(both[1, 130:, :64], theirs[1, 130:]) > 0.1


def test_divergence_a_region_ends_at_its_frame_in_seconds_of_the_sample_grid(turbo, monkeypatch):
    """1.16 s is sample 55680, the start of frame 29. diffusers multiplies 1.16 by 25 and gets 28.999…"""
    edit = Edit(REPAINT, turbo.source, regions=[(0.0, 1.16)])
    pipe = Theirs(turbo, monkeypatch).pipe
    theirs = pipe._build_chunk_mask("repaint", FRAMES, 1, "cpu", torch.float32, 1, 0.0, 1.16, True)
    assert (int(edit.generated_mask().sum()), int(theirs.sum())) == (29, 28)
