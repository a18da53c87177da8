"""Sampling against diffusers' AceStepPipeline: same weights, condition inputs and noise, float32 on the CPU.

The last tests name where we follow another source than diffusers and show both results.
"""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from diffusers import (
    AceStepPipeline,
    AceStepTransformer1DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.pipelines.ace_step.modeling_ace_step import AceStepConditionEncoder

from acestep_core.callbacks import Callbacks
from acestep_core.config import MIN_FRAMES, ModelConfig
from acestep_core.models.model import AceStepModel
from acestep_core.pipeline import frames_of, recommended
from acestep_core.sampling.context import context_latents, frames_to_run
from acestep_core.sampling.guidance import APG
from acestep_core.sampling.loop import denoise
from acestep_core.sampling.noise import draw_noise
from acestep_core.sampling.prepare import prepare
from acestep_core.sampling.request import SampleRequest
from acestep_core.sampling.schedule import make_schedule
from acestep_core.sampling.settings import SamplingSettings
from acestep_core.sampling.velocity import network_velocity
from acestep_core.text.encoder import TextCondition

TURBO = ModelConfig(
    hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    encoder_hidden_size=64, encoder_intermediate_size=96, encoder_num_attention_heads=4, encoder_num_key_value_heads=2,
    num_lyric_encoder_hidden_layers=2, num_timbre_encoder_hidden_layers=2, num_attention_pooler_hidden_layers=1,
    head_dim=16, text_hidden_dim=24, fsq_dim=64, sliding_window=8,
)  # fmt: skip
BASE = replace(TURBO, is_turbo=False, model_version="base")
FRAMES = 151  # odd, and above the minimum length
RENAMES = {
    "proj_in.1": "proj_in_conv", "proj_out.1": "proj_out_conv", "q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v",
    "o_proj": "to_out.0", "q_norm": "norm_q", "k_norm": "norm_k",
}  # fmt: skip


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_error(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def make_network(config):
    """Return random weights, large enough for condition, context, time and window to change the result."""
    network = AceStepModel(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter.normal_(generator=generator, std=1.5 * fan_in**-0.5)
    network.silence_latent = random(2, 1, 1000, 64)
    return network.eval()


def as_diffusers(network, prefix):
    state = {}
    for name, tensor in network.state_dict().items():
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            for ours, theirs in RENAMES.items():
                name = name.replace(ours, theirs)
            state[name] = tensor
    return state


def make_pipeline(network):
    config = network.config
    shared = {
        "sliding_window": config.sliding_window,
        "head_dim": config.head_dim,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_norm_eps,
    }
    transformer = AceStepTransformer1DModel(
        hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers, num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads, encoder_hidden_size=config.encoder_hidden_size,
        is_turbo=config.is_turbo, model_version=config.model_version, **shared,
    )  # fmt: skip
    transformer.load_state_dict(as_diffusers(network, "decoder."))
    condition_encoder = AceStepConditionEncoder(
        hidden_size=config.encoder_hidden_size, intermediate_size=config.encoder_intermediate_size,
        text_hidden_dim=config.text_hidden_dim, num_attention_heads=config.encoder_num_attention_heads,
        num_key_value_heads=config.encoder_num_key_value_heads,
        num_lyric_encoder_hidden_layers=config.num_lyric_encoder_hidden_layers,
        num_timbre_encoder_hidden_layers=config.num_timbre_encoder_hidden_layers, **shared,
    )  # fmt: skip
    condition_encoder.load_state_dict(
        as_diffusers(network, "encoder.")
        | {"null_condition_emb": network.null_condition_emb, "silence_latent": network.silence(15000)}
    )
    pipeline = AceStepPipeline(
        vae=None, text_encoder=None, tokenizer=None, transformer=transformer, condition_encoder=condition_encoder,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_prompts(text_lengths=(7, 7), lyric_lengths=(11, 11)):
    """Return a random (caption states, lyric embeddings) pair per item."""
    lengths = zip(text_lengths, lyric_lengths, strict=True)
    return [(random(10 + i, 1, text, 24), random(20 + i, 1, lyrics, 24)) for i, (text, lyrics) in enumerate(lengths)]


def sample_ours(network, prompts, settings, frames=FRAMES):
    """Sample text2music latents with seeds 0, 1, … at the length of the run."""
    run = frames_to_run(frames)
    resolved = settings.resolve(recommended(network))
    with torch.no_grad():
        timbre = network.silence(network.config.timbre_fix_frame)[None]
        conditions = [network.encoder(text, lyrics, timbre) for text, lyrics in prompts]
    context = context_latents(network, None, len(prompts), run)
    velocity = network_velocity(network, conditions, context, guided=resolved.guidance.enabled)
    seeds = range(len(prompts))
    return denoise(
        velocity, draw_noise(seeds, run), resolved.schedule, solver=resolved.solver, guidance=resolved.guidance,
        seeds=seeds,
    )  # fmt: skip


def padded(tensors):
    longest = max(tensor.shape[1] for tensor in tensors)
    mask = torch.stack([torch.arange(longest) < tensor.shape[1] for tensor in tensors])
    return torch.cat([torch.nn.functional.pad(t, (0, 0, 0, longest - t.shape[1])) for t in tensors]), mask


def sample_diffusers(network, prompts, frames=FRAMES, **arguments):
    pipeline = make_pipeline(network)
    encoded = (*padded([text for text, _ in prompts]), *padded([lyrics for _, lyrics in prompts]))
    pipeline.encode_prompt = lambda **_: encoded
    count = len(prompts)
    arguments = {"latents": draw_noise(range(count), frames)} | arguments
    return pipeline(
        prompt=[""] * count, lyrics=[""] * count, audio_duration=(frames - 0.5) / 25, output_type="latent", **arguments
    ).audios


@pytest.fixture(scope="module")
def turbo():
    return make_network(TURBO)


@pytest.fixture(scope="module")
def base():
    return make_network(BASE)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_turbo_eight_steps(turbo, shift):
    prompts = make_prompts()
    expected = sample_diffusers(turbo, prompts, num_inference_steps=8, shift=shift, guidance_scale=1.0)
    assert relative_error(sample_ours(turbo, prompts, SamplingSettings(shift=shift)), expected) < 1e-4


def test_context_latents(turbo, monkeypatch):
    contexts, forward = [], AceStepTransformer1DModel.forward
    monkeypatch.setattr(
        AceStepTransformer1DModel,
        "forward",
        lambda self, *args, **options: contexts.append(options["context_latents"]) or forward(self, *args, **options),
    )
    sample_diffusers(turbo, make_prompts(), num_inference_steps=1, guidance_scale=1.0)
    (expected,) = contexts
    assert torch.equal(context_latents(turbo, None, 2, FRAMES), expected)


def test_guidance_on_turbo_is_forced_off_by_both(turbo):
    prompts = make_prompts()
    expected = sample_diffusers(turbo, prompts, num_inference_steps=8, guidance_scale=7.0)
    assert relative_error(sample_ours(turbo, prompts, SamplingSettings(guidance_scale=7.0)), expected) < 1e-4


@pytest.mark.parametrize("scale", [2.0, 7.0])
def test_base_with_apg(base, scale):
    prompts = make_prompts()
    expected = sample_diffusers(base, prompts, num_inference_steps=8, shift=3.0, guidance_scale=scale)
    actual = sample_ours(base, prompts, SamplingSettings(steps=8, guidance_scale=scale))
    assert relative_error(actual, expected) < 1e-4


def test_custom_timesteps_that_do_not_start_at_one(base):
    prompts = make_prompts()
    timesteps = [0.97, 0.76, 0.615, 0.5, 0.395, 0.28, 0.18, 0.085]
    expected = sample_diffusers(base, prompts, timesteps=timesteps, guidance_scale=3.0)
    actual = sample_ours(base, prompts, SamplingSettings(timesteps=timesteps, guidance_scale=3.0))
    assert relative_error(actual, expected) < 1e-4


@pytest.mark.parametrize("config", [TURBO, BASE], ids=["turbo", "base"])
def test_bfloat16_stays_close_to_float32(config):
    prompts, settings = make_prompts(), SamplingSettings(steps=8)
    expected = sample_ours(make_network(config), prompts, settings)
    actual = sample_ours(make_network(config).bfloat16(), prompts, settings)
    assert actual.dtype == torch.float32
    assert torch.cosine_similarity(actual.flatten(1), expected.flatten(1)).min() > 0.999


@pytest.mark.parametrize("low, high", [(0.0, 0.6), (0.4, 1.0), (0.35, 0.8)])
def test_divergence_guidance_interval_runs_on_t_where_diffusers_runs_on_one_minus_t(base, low, high):
    prompts = make_prompts()
    settings = SamplingSettings(steps=8, guidance_scale=5.0, guidance_interval=(low, high))
    actual = sample_ours(base, prompts, settings)
    shared = {"num_inference_steps": 8, "guidance_scale": 5.0}
    mirrored = sample_diffusers(base, prompts, cfg_interval_start=1 - high, cfg_interval_end=1 - low, **shared)
    same_numbers = sample_diffusers(base, prompts, cfg_interval_start=low, cfg_interval_end=high, **shared)
    assert relative_error(actual, mirrored) < 1e-4
    assert relative_error(actual, same_numbers) > 1e-2


def test_divergence_padded_conditions_are_not_attended_where_diffusers_attends_them(base):
    prompts = make_prompts(text_lengths=(5, 9), lyric_lengths=(12, 4))
    actual = sample_ours(base, prompts, SamplingSettings(steps=8))
    batched = sample_diffusers(base, prompts, num_inference_steps=8)
    assert relative_error(actual[0], batched[0]) > 1e-3  # item 0 is followed by padding there; item 1 too
    for k, prompt in enumerate(prompts):
        pipeline_noise = draw_noise([k], FRAMES)
        alone = sample_diffusers(base, [prompt], num_inference_steps=8, latents=pipeline_noise)
        assert relative_error(actual[k : k + 1], alone) < 1e-4


def test_divergence_short_songs_run_at_the_minimum_length_where_diffusers_runs_them_as_they_are(turbo):
    prompts = make_prompts()
    actual = sample_ours(turbo, prompts, SamplingSettings(), frames=40)
    assert actual.shape[1] == MIN_FRAMES
    as_they_are = sample_diffusers(turbo, prompts, frames=40, num_inference_steps=8)
    assert as_they_are.shape[1] == 40
    assert relative_error(actual[:, :40], as_they_are) > 1e-2
    at_minimum = sample_diffusers(turbo, prompts, frames=MIN_FRAMES, num_inference_steps=8)
    assert relative_error(actual, at_minimum) < 1e-4


def test_divergence_a_duration_is_rounded_to_frames_where_diffusers_rounds_it_up(turbo):
    """`sample_diffusers` requests half a frame less than FRAMES. Ours rounds to the even neighbour."""
    assert frames_of((FRAMES - 0.5) / 25) == 150
    assert sample_diffusers(turbo, make_prompts(), num_inference_steps=1).shape[1] == FRAMES == 151


def test_items_are_the_same_alone_and_in_a_batch_of_other_lengths(base):
    prompts = make_prompts(text_lengths=(5, 9, 7), lyric_lengths=(12, 4, 7))
    settings = SamplingSettings(steps=6, solver="heun")
    batch = sample_ours(base, prompts, settings)
    assert relative_error(sample_ours(base, prompts[:1], settings), batch[:1]) < 1e-5


def test_one_condition_serves_all_items(turbo):
    prompt = make_prompts()[0]
    with torch.no_grad():
        condition = turbo.encoder(*prompt, turbo.silence(750)[None])
    context = context_latents(turbo, None, 2, 128)
    shared = network_velocity(turbo, [condition], context, guided=False)
    repeated = network_velocity(turbo, [condition, condition], context, guided=False)
    x = draw_noise([1, 2], 128)
    assert torch.equal(shared(x, 0.5, False), repeated(x, 0.5, False))
    with pytest.raises(ValueError, match="conditions.* 3 for a batch of 2"):
        network_velocity(turbo, [condition] * 3, context, guided=False)


def test_unguided_rows_are_the_same_with_and_without_the_null_branch(base):
    with torch.no_grad():
        condition = base.encoder(*make_prompts()[0], base.silence(750)[None])
    velocity = network_velocity(base, [condition], context_latents(base, None, 2, 128), guided=True)
    x = draw_noise([1, 2], 128)
    both = velocity(x, 0.5, True)
    assert both.shape == (4, 128, 64) and both.dtype == torch.float32
    assert relative_error(both[:2], velocity(x, 0.5, False)) < 1e-5
    assert relative_error(both[2:], both[:2]) > 1e-2


@pytest.mark.parametrize("magnitude", [1e-3, 0.3, 1.0, 50.0])
@pytest.mark.parametrize("seed", range(5))
def test_apg_function(magnitude, seed):
    ours, momentum = APG(), MomentumBuffer(-0.75)
    for step in range(6):
        cond, null = (magnitude * random(1000 * seed + 10 * step + i, 3, 37, 64) for i in (0, 1))
        expected = normalized_guidance(cond, null, 6.0, momentum, 0.0, 2.5, True, (1,))
        assert relative_error(ours.combine(cond, 0.5, cond, null, 7.0), expected) < 1e-6


@pytest.mark.parametrize("steps, shift", [(8, 1.0), (8, 2.0), (8, 3.0), (50, 3.0), (50, 1.0), (27, 4.5)])
def test_schedule(turbo, steps, shift):
    expected = make_pipeline(turbo)._get_timestep_schedule(steps, shift, "cpu", torch.float32)
    assert relative_error(make_schedule(steps, shift)[:-1], expected) < 2e-7


@pytest.mark.parametrize("steps, shift", [(15, 1.0), (20, 3.0)])
def test_dpmpp_3m(turbo, steps, shift):
    """diffusers lowers the order of the last two steps for less than 15 steps, ours of the last step alone."""
    prompts, noise = make_prompts(), draw_noise(range(2), FRAMES)
    settings = SamplingSettings(steps=steps, shift=shift, solver="dpmpp_3m")
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, solver_order=3, solver_type="heun"
    )
    scheduler.set_timesteps(steps)
    schedule = make_schedule(steps, shift)
    scheduler.sigmas = schedule.double()
    with torch.no_grad():
        timbre = turbo.silence(turbo.config.timbre_fix_frame)[None]
        conditions = [turbo.encoder(text, lyrics, timbre) for text, lyrics in prompts]
    velocity = network_velocity(turbo, conditions, context_latents(turbo, None, 2, FRAMES), guided=False)
    x = noise
    for timestep, t in zip(scheduler.timesteps, schedule.tolist(), strict=False):
        x = scheduler.step(velocity(x, t, False), timestep, x).prev_sample
    assert relative_error(sample_ours(turbo, prompts, settings), x) < 1e-4


def test_a_negative_text_takes_the_place_of_the_null_condition(base):
    """diffusers has no negative text; its guider takes the velocity of any second prompt."""
    (wanted, unwanted), noise = make_prompts(text_lengths=(7, 5), lyric_lengths=(11, 3)), draw_noise([0], FRAMES)
    with torch.no_grad():
        timbre = base.silence(base.config.timbre_fix_frame)[None]
        rows = [base.encoder(*prompt, timbre) for prompt in (wanted, unwanted)]
    context = context_latents(base, None, 1, FRAMES)
    schedule, momentum, x = make_schedule(6, 3.0), MomentumBuffer(-0.75), noise
    velocities = [network_velocity(base, [row], context, guided=False) for row in rows]
    for t, t_next in pairwise(schedule.tolist()):
        cond, null = (velocity(x, t, False) for velocity in velocities)
        x = x - (t - t_next) * normalized_guidance(cond, null, 4.0, momentum, 0.0, 2.5, True, (1,))

    texts = [TextCondition(*prompt, caption_prompt="", lyric_prompt="") for prompt in (wanted, unwanted)]
    settings = SamplingSettings(steps=6, guidance_scale=5.0).resolve(recommended(base))
    request = SampleRequest(base.config, settings, [0], FRAMES / 25)
    plan = prepare(base, request, texts[:1], torch.device("cpu"), Callbacks(), texts[1:])
    actual = plan.run(Callbacks())
    assert relative_error(actual, x) < 1e-4
    null = prepare(base, request, texts[:1], torch.device("cpu"), Callbacks()).run(Callbacks())
    assert relative_error(actual, null) > 1e-2


@pytest.mark.parametrize(
    "start, end, guided", [(0.0, 0.5, range(4)), (0.25, 0.8, range(2, 6)), (0.3, 1.0, range(2, 8))]
)
def test_guidance_of_a_share_of_the_steps(base, start, end, guided):
    """The guided steps of diffusers are an interval of 1 − t."""
    prompts, schedule = make_prompts(), make_schedule(8, 3.0)
    settings = SamplingSettings(steps=8, guidance_scale=5.0, guidance_start=start, guidance_end=end)
    expected = sample_diffusers(
        base, prompts, num_inference_steps=8, guidance_scale=5.0,
        cfg_interval_start=max(0, float(1 - schedule[guided[0]]) - 1e-4),
        cfg_interval_end=float(1 - schedule[guided[-1]]) + 1e-4,
    )  # fmt: skip
    assert relative_error(sample_ours(base, prompts, settings), expected) < 1e-4
