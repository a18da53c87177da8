"""Networks small enough for tests, with random weights everywhere."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from acestep_core.config import ModelConfig, VAEConfig
from acestep_core.models.model import AceStepModel
from acestep_core.models.oobleck import OobleckVAE

STANDARD = ModelConfig(
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    encoder_hidden_size=48,
    encoder_intermediate_size=72,
    encoder_num_attention_heads=4,
    encoder_num_key_value_heads=2,
    num_lyric_encoder_hidden_layers=3,
    num_timbre_encoder_hidden_layers=2,
    text_hidden_dim=24,
    timbre_fix_frame=30,
    fsq_dim=48,
    sliding_window=6,
)
# Wider than its condition encoder, as the XL checkpoints are, with four query heads to a key head.
XL = replace(STANDARD, hidden_size=64, num_attention_heads=8, intermediate_size=96, model_version="xl-turbo")
MANY_HEADS = replace(STANDARD, num_attention_heads=6, num_key_value_heads=3, encoder_num_attention_heads=6)
ONE_KEY_HEAD = replace(
    STANDARD, num_key_value_heads=1, encoder_num_key_value_heads=1, encoder_num_attention_heads=3, head_dim=8
)
EQUAL_HEADS = replace(STANDARD, num_key_value_heads=4, encoder_num_key_value_heads=4, sliding_window=128)

VAE = VAEConfig(encoder_hidden_size=16, decoder_channels=4, decoder_input_channels=8, channel_multiples=(1, 2, 2, 3, 4))


def randomise(module: nn.Module, seed: int = 0, gain: float = 1.0) -> nn.Module:
    """Randomise every parameter. Matrices and kernels scale their input by `gain`, norms are near one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith(("alpha", "beta")):
                parameter.copy_(0.3 * noise)
            elif "norm" in name:
                parameter.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif name.endswith(("table", "special_token", "special_tokens", "null_condition_emb")):
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(gain * noise / inputs_of(name, parameter) ** 0.5)
    return module.eval().requires_grad_(False)


def inputs_of(name: str, parameter: Tensor) -> int:
    """Return the number of inputs that one output of this matrix or kernel sums."""
    if "conv_t1" in name:
        return 2 * parameter.shape[0]  # the kernel is twice the stride
    if "proj_out.1" in name:
        return parameter.shape[0]
    return parameter[0].numel()


def model(config: ModelConfig = STANDARD, seed: int = 0) -> AceStepModel:
    network = randomise(AceStepModel(config), seed)
    network.silence_latent = draw(1, 60, config.audio_acoustic_hidden_dim, seed=seed + 1)
    return network


def vae(config: VAEConfig = VAE, seed: int = 0) -> OobleckVAE:
    # With a larger gain the residual units amplify a thousandfold, and a sine of a thousand is mostly rounding.
    return randomise(OobleckVAE(config), seed, gain=0.5)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Return the largest difference in units of the largest expected value."""
    assert result.shape == expected.shape, (result.shape, expected.shape)
    return ((result.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


def cosine(result: Tensor, expected: Tensor) -> float:
    return torch.cosine_similarity(result.double().flatten(), expected.double().flatten(), dim=0).item()
