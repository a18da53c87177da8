"""diffusers' modules with the weights of our networks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from diffusers.models import AutoencoderOobleck
from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel
from diffusers.pipelines.ace_step.modeling_ace_step import (
    AceStepAudioTokenDetokenizer,
    AceStepAudioTokenizer,
    AceStepConditionEncoder,
)
from torch import Tensor, nn

from acestep_core.models.model import AceStepModel
from acestep_core.models.oobleck import OobleckVAE

_RENAMES = (
    ("proj_in.1.", "proj_in_conv."),
    ("proj_out.1.", "proj_out_conv."),
    ("attn.q_proj.", "attn.to_q."),
    ("attn.k_proj.", "attn.to_k."),
    ("attn.v_proj.", "attn.to_v."),
    ("attn.o_proj.", "attn.to_out.0."),
    ("attn.q_norm.", "attn.norm_q."),
    ("attn.k_norm.", "attn.norm_k."),
)


def renamed(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Rename the tensors of one part of AceStepModel to diffusers' names."""
    result = {}
    for name, tensor in tensors:
        for ours, theirs in _RENAMES:
            name = name.replace(ours, theirs)
        result[name] = tensor
    return result


def transformer(model: AceStepModel) -> AceStepTransformer1DModel:
    config = model.config
    module = AceStepTransformer1DModel(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        in_channels=config.in_channels,
        audio_acoustic_hidden_dim=config.audio_acoustic_hidden_dim,
        patch_size=config.patch_size,
        rope_theta=config.rope_theta,
        rms_norm_eps=config.rms_norm_eps,
        sliding_window=config.sliding_window,
        encoder_hidden_size=config.encoder_hidden_size,
        is_turbo=config.is_turbo,
        model_version=config.model_version,
    )
    return _filled(module, renamed(model.decoder.state_dict().items()))


def condition_encoder(model: AceStepModel) -> AceStepConditionEncoder:
    config = model.config
    module = AceStepConditionEncoder(
        **_encoder_sizes(model),
        text_hidden_dim=config.text_hidden_dim,
        timbre_hidden_dim=config.timbre_hidden_dim,
        num_lyric_encoder_hidden_layers=config.num_lyric_encoder_hidden_layers,
        num_timbre_encoder_hidden_layers=config.num_timbre_encoder_hidden_layers,
    )
    module.silence_latent = torch.zeros_like(model.silence_latent)
    extra = {"null_condition_emb": model.null_condition_emb, "silence_latent": model.silence_latent}
    return _filled(module, renamed(model.encoder.state_dict().items()) | extra)


def audio_tokenizer(model: AceStepModel) -> AceStepAudioTokenizer:
    config = model.config
    module = AceStepAudioTokenizer(
        **_encoder_sizes(model),
        audio_acoustic_hidden_dim=config.audio_acoustic_hidden_dim,
        pool_window_size=config.pool_window_size,
        fsq_dim=config.fsq_dim,
        fsq_input_levels=list(config.fsq_input_levels),
        num_attention_pooler_hidden_layers=config.num_attention_pooler_hidden_layers,
    )
    return _filled(module, renamed(model.tokenizer.state_dict().items()))


def detokenizer(model: AceStepModel) -> AceStepAudioTokenDetokenizer:
    config = model.config
    module = AceStepAudioTokenDetokenizer(
        **_encoder_sizes(model),
        audio_acoustic_hidden_dim=config.audio_acoustic_hidden_dim,
        pool_window_size=config.pool_window_size,
        num_attention_pooler_hidden_layers=config.num_attention_pooler_hidden_layers,
    )
    return _filled(module, renamed(model.detokenizer.state_dict().items()))


def autoencoder(vae: OobleckVAE) -> AutoencoderOobleck:
    """Remove diffusers' weight norm, so that both have plain weights."""
    config = vae.config
    module = AutoencoderOobleck(
        encoder_hidden_size=config.encoder_hidden_size,
        downsampling_ratios=list(config.downsampling_ratios),
        channel_multiples=list(config.channel_multiples),
        decoder_channels=config.decoder_channels,
        decoder_input_channels=config.decoder_input_channels,
        audio_channels=config.audio_channels,
        sampling_rate=config.sampling_rate,
    )
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            nn.utils.remove_weight_norm(layer)
    return _filled(module, vae.state_dict())


def _encoder_sizes(model: AceStepModel) -> dict[str, object]:
    config = model.config
    return {
        "hidden_size": config.encoder_hidden_size,
        "intermediate_size": config.encoder_intermediate_size,
        "num_attention_heads": config.encoder_num_attention_heads,
        "num_key_value_heads": config.encoder_num_key_value_heads,
        "head_dim": config.head_dim,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_norm_eps,
        "sliding_window": config.sliding_window,
    }


def _filled(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    module.load_state_dict(state, strict=True)
    return module.eval().requires_grad_(False)
