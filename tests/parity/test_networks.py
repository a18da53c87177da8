"""Each network against diffusers' with the same weights, one call in float32, and the divergences."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel

from acestep_core.config import ModelConfig
from acestep_core.models.condition import stack_conditions
from acestep_core.models.model import AceStepModel
from tests.parity import diffusers_maps
from tests.support import tiny
from tests.support.tiny import cosine, draw, relative_error

LIMIT = 1e-5
CONFIGS = {
    "standard": tiny.STANDARD,
    "xl": tiny.XL,
    "many heads": tiny.MANY_HEADS,
    "one key head": tiny.ONE_KEY_HEAD,
    "equal heads, wide window": tiny.EQUAL_HEADS,
}
TIMES = (1.0, 0.9545454545, 0.5, 0.3, 0.02)


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def config(request) -> ModelConfig:
    return request.param


def reference_velocity(reference: AceStepTransformer1DModel, x, t, context, condition):
    return reference(
        hidden_states=x,
        timestep=t,
        timestep_r=t,
        encoder_hidden_states=condition,
        context_latents=context,
        return_dict=False,
    )[0]


def reference_condition(model: AceStepModel, text, lyrics, timbre, text_mask=None, lyric_mask=None):
    """Encode with one reference per item."""
    return diffusers_maps.condition_encoder(model)(
        text_hidden_states=text,
        text_attention_mask=torch.ones(text.shape[:2], dtype=torch.long) if text_mask is None else text_mask,
        lyric_hidden_states=lyrics,
        lyric_attention_mask=torch.ones(lyrics.shape[:2], dtype=torch.long) if lyric_mask is None else lyric_mask,
        refer_audio_acoustic_hidden_states_packed=timbre,
        refer_audio_order_mask=torch.arange(len(timbre)),
    )


@pytest.mark.parametrize("frames", [1, 2, 13, 14, 15, 27, 64, 101])
def test_velocity(config, frames):
    model = tiny.model(config)
    x, context = draw(2, frames, 64, seed=1), draw(2, frames, 128, seed=2)
    condition = draw(2, 9, config.encoder_hidden_size, seed=3)
    prepared, reference = model.decoder.prepare(context, condition), diffusers_maps.transformer(model)
    for time in TIMES:
        t = torch.tensor([time, 1 - time])
        got = model.decoder(x, t, prepared)
        assert got.dtype == torch.float32
        assert relative_error(got, reference_velocity(reference, x, t, context, condition)) <= LIMIT


def test_velocity_with_and_without_the_condition(config):
    model = tiny.model(config)
    x, context = draw(2, 33, 64, seed=1), draw(2, 33, 128, seed=2)
    condition, null = draw(2, 7, config.encoder_hidden_size, seed=3), model.null_condition_emb
    prepared, reference = model.decoder.prepare(context, condition, null=null), diffusers_maps.transformer(model)
    t = torch.tensor([0.7, 0.2])
    got = model.decoder(torch.cat((x, x)), t, prepared)
    assert relative_error(got[:2], reference_velocity(reference, x, t, context, condition)) <= LIMIT
    assert relative_error(got[2:], reference_velocity(reference, x, t, context, null.expand_as(condition))) <= LIMIT
    assert torch.allclose(model.decoder(x, t, prepared), got[:2], atol=1e-5)


def test_gradients(config):
    """Gradients are equal, so training is as well."""
    model = tiny.model(config)
    reference = diffusers_maps.transformer(model).requires_grad_()
    decoder = model.decoder.requires_grad_()
    x, context, aim = draw(2, 27, 64, seed=1), draw(2, 27, 128, seed=2), draw(2, 27, 64, seed=4)
    condition, t = draw(2, 9, config.encoder_hidden_size, seed=3), torch.tensor([0.9, 0.4])
    (decoder(x, t, decoder.prepare(context, condition)) - aim).square().mean().backward()
    (reference_velocity(reference, x, t, context, condition) - aim).square().mean().backward()
    theirs = dict(reference.named_parameters())
    for name, parameter in diffusers_maps.renamed(decoder.named_parameters()).items():
        assert relative_error(parameter.grad, theirs[name].grad) <= 1e-4, name


def test_velocity_in_bfloat16(config):
    model = tiny.model(config)
    x, context = draw(2, 51, 64, seed=1), draw(2, 51, 128, seed=2)
    condition, t = draw(2, 9, config.encoder_hidden_size, seed=3), torch.tensor([0.9, 0.4])
    expected = model.decoder(x, t, model.decoder.prepare(context, condition))
    model.bfloat16()
    got = model.decoder(x, t, model.decoder.prepare(context, condition))
    assert got.dtype == torch.float32
    assert cosine(got, expected) >= 0.999


@pytest.mark.parametrize("lyric_tokens", [1, 6, 7, 8, 31])
def test_condition(config, lyric_tokens):
    model = tiny.model(config if not config.is_xl else tiny.STANDARD)  # for XL see the divergence below
    width = config.text_hidden_dim
    text, lyrics, timbre = draw(2, 5, width, seed=1), draw(2, lyric_tokens, width, seed=2), draw(2, 1, 23, 64, seed=3)
    expected, mask = reference_condition(model, text, lyrics, timbre[:, 0])
    assert mask.all()
    assert relative_error(model.encoder(text, lyrics, timbre), expected) <= LIMIT


def test_condition_with_several_references():
    model = tiny.model()
    text, lyrics, timbre = draw(2, 5, 24, seed=1), draw(2, 11, 24, seed=2), draw(2, 3, 23, 64, seed=3)
    expected, _ = diffusers_maps.condition_encoder(model)(
        text_hidden_states=text,
        text_attention_mask=torch.ones(2, 5, dtype=torch.long),
        lyric_hidden_states=lyrics,
        lyric_attention_mask=torch.ones(2, 11, dtype=torch.long),
        refer_audio_acoustic_hidden_states_packed=timbre.flatten(0, 1),
        refer_audio_order_mask=torch.tensor([0, 0, 0, 1, 1, 1]),
    )
    assert relative_error(model.encoder(text, lyrics, timbre), expected) <= LIMIT


def test_condition_of_padded_items():
    """Items that are encoded alone and stacked equal the rows of diffusers' padded batch."""
    model = tiny.model()
    text, lyrics, timbre = draw(2, 5, 24, seed=1), draw(2, 19, 24, seed=2), draw(2, 1, 23, 64, seed=3)
    text_lengths, lyric_lengths = torch.tensor([5, 3]), torch.tensor([8, 19])
    expected, expected_mask = reference_condition(
        model,
        text,
        lyrics,
        timbre[:, 0],
        (torch.arange(5) < text_lengths[:, None]).long(),
        (torch.arange(19) < lyric_lengths[:, None]).long(),
    )
    got, mask = stack_conditions(
        [
            model.encoder(text[i : i + 1, : text_lengths[i]], lyrics[i : i + 1, : lyric_lengths[i]], timbre[i : i + 1])
            for i in range(2)
        ]
    )
    length = got.shape[1]  # diffusers pads to the sum of the longest parts
    assert torch.equal(mask, expected_mask[:, :length]) and not expected_mask[:, length:].any()
    assert relative_error(got[mask], expected[:, :length][mask]) <= LIMIT


def test_condition_in_bfloat16(config):
    model = tiny.model(config)
    width = config.text_hidden_dim
    inputs = draw(1, 5, width, seed=1), draw(1, 40, width, seed=2), draw(1, 1, 30, 64, seed=3)
    expected = model.encoder(*inputs)
    model.bfloat16()
    assert cosine(model.encoder(*inputs), expected) >= 0.999


@pytest.mark.parametrize("frames", [1, 4, 5, 23, 60])
def test_tokenizer(config, frames):
    model = tiny.model(config)
    latents = 2 * draw(2, frames, 64, seed=1)
    embeddings, codes = diffusers_maps.audio_tokenizer(model).tokenize(latents, model.silence_latent)
    got_codes, got_embeddings = model.tokenizer(latents, model.silence_latent)
    assert torch.equal(got_codes, codes.squeeze(-1))
    assert relative_error(got_embeddings, embeddings) <= LIMIT
    assert torch.equal(model.tokenize(latents), got_codes)


def test_detokenizer(config):
    model = tiny.model(config)
    codes = torch.randint(64000, (2, 7), generator=torch.Generator().manual_seed(1))
    embeddings = diffusers_maps.audio_tokenizer(model).quantizer.get_output_from_indices(codes)
    assert relative_error(model.tokenizer.embed(codes), embeddings) <= LIMIT
    assert relative_error(model.detokenize(codes), diffusers_maps.detokenizer(model)(embeddings)) <= LIMIT


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_vae_decode(frames):
    vae = tiny.vae()
    latents = draw(2, frames, 8, seed=1)
    expected = diffusers_maps.autoencoder(vae).decode(latents.transpose(1, 2)).sample
    assert relative_error(vae.decode(latents), expected) <= LIMIT


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_vae_encode(frames):
    vae = tiny.vae()
    waveform = draw(2, 2, 1920 * frames, seed=1)
    expected = diffusers_maps.autoencoder(vae).encode(waveform).latent_dist
    assert relative_error(vae.encode(waveform), expected.mean.transpose(1, 2)) <= LIMIT
    assert relative_error(vae.posterior(waveform)[1], expected.std.transpose(1, 2)) <= LIMIT


def test_vae_in_bfloat16():
    vae = tiny.vae()
    latents, waveform = draw(1, 4, 8, seed=1), draw(1, 2, 7680, seed=2)
    decoded, encoded = vae.decode(latents), vae.encode(waveform)
    vae.bfloat16()
    assert cosine(vae.decode(latents), decoded) >= 0.999
    assert cosine(vae.encode(waveform), encoded) >= 0.999


def test_divergence_xl_timbre_row():
    """The original reads the learned row before the frames of an XL reference, diffusers the first frame."""
    model = tiny.model(tiny.XL)
    text, lyrics, timbre = draw(1, 5, 24, seed=1), draw(1, 9, 24, seed=2), draw(1, 1, 23, 64, seed=3)
    theirs, _ = reference_condition(model, text, lyrics, timbre[:, 0])
    ours = model.encoder(text, lyrics, timbre)
    same = torch.arange(ours.shape[1]) != 9  # the timbre row follows nine lyric rows
    assert relative_error(ours[:, same], theirs[:, same]) <= LIMIT
    assert relative_error(ours[:, 9], theirs[:, 9]) > 0.1
    # What diffusers' encoder gives when the row is put there by hand.
    encoder = diffusers_maps.condition_encoder(model).timbre_encoder
    rows = torch.cat((encoder.special_token, encoder.embed_tokens(timbre[:, 0])), dim=1)
    encoder.embed_tokens = torch.nn.Identity()
    expected, _ = encoder(rows, torch.tensor([0]))
    assert relative_error(ours[:, 9:10], expected) <= LIMIT


def test_divergence_padded_condition_rows():
    """diffusers attends to padding, so an item's velocity depends on its batch. Ours does not."""
    model = tiny.model()
    x, context, t = draw(2, 21, 64, seed=1), draw(2, 21, 128, seed=2), torch.tensor([0.6, 0.6])
    conditions = [draw(1, 12, 48, seed=3), draw(1, 7, 48, seed=4)]
    stacked, mask = stack_conditions(conditions)
    together = model.decoder(x, t, model.decoder.prepare(context, stacked, mask))
    reference = diffusers_maps.transformer(model)
    alone = reference_velocity(reference, x[1:], t[1:], context[1:], conditions[1])
    theirs = reference_velocity(reference, x, t, context, stacked)
    assert relative_error(together[1:], alone) <= LIMIT
    assert relative_error(theirs[1:], alone) > 1e-3
    assert relative_error(together[:1], theirs[:1]) <= LIMIT


def test_divergence_times_in_bfloat16():
    """diffusers rounds times to the model's dtype, which makes these two equal. Ours are float32."""
    model = tiny.model().bfloat16()
    x, context, condition = (draw(2, 21, 64, seed=1), draw(2, 21, 128, seed=2), draw(2, 9, 48, seed=3))
    prepared, reference = model.decoder.prepare(context, condition), diffusers_maps.transformer(model).bfloat16()
    low = [each.bfloat16() for each in (x, context, condition)]
    ours, theirs = [], []
    for time in (0.9545, 0.9530):
        t = torch.tensor([time, time])
        ours.append(model.decoder(x, t, prepared))
        theirs.append(reference_velocity(reference, low[0], t.bfloat16(), *low[1:]))
    assert torch.equal(*theirs)
    assert relative_error(*ours) > 1e-4


def test_divergence_encoded_audio_is_the_mean():
    """diffusers samples the posterior with the global generator, so results differ between calls."""
    vae, waveform = tiny.vae(), draw(1, 2, 1920 * 7, seed=1)
    reference = diffusers_maps.autoencoder(vae)
    first, second = (reference.encode(waveform).latent_dist.sample().transpose(1, 2) for _ in range(2))
    ours = vae.encode(waveform)
    assert relative_error(first, second) > 0.01 and relative_error(first, ours) > 0.01
    assert torch.equal(ours, vae.encode(waveform))
