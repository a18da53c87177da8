"""Networks of the released sizes with random weights, made on the device, and each stage as one function of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from acestep_core.config import LATENT_CHANNELS, ModelConfig, PlannerConfig, TextEncoderConfig, VAEConfig
from acestep_core.models.cpu.plugins import install_cpu_plugins
from acestep_core.models.model import AceStepModel
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.models.ops import CastOps
from acestep_core.planner.network import PlannerNetwork
from acestep_core.text.encoder import build_qwen3
from benchmarks.dit_step import SIZES
from benchmarks.planner import SIZES as PLANNER_SIZES
from tests.support import tiny
from tests.support.tiny import inputs_of

from .bounds import ROUNDINGS

FEW_LAYERS = 4  # of the networks that a CPU computes as well: two windowed ones and two others
VAE_ROUNDINGS = 70  # five blocks of one strided convolution and three units of two convolutions and two activations


@dataclass(frozen=True)
class Shape:
    """The sizes of all networks of one release."""

    name: str
    network: ModelConfig
    text: TextEncoderConfig
    vae: VAEConfig
    planner: PlannerConfig


def released_shapes() -> list[Shape]:
    """Return the sizes of 2B with the 0.6B planner, and of XL."""
    text = replace(TextEncoderConfig(), num_hidden_layers=FEW_LAYERS)
    planner = replace(PLANNER_SIZES["0.6b"], num_hidden_layers=FEW_LAYERS)
    return [Shape(label, SIZES[name], text, VAEConfig(), planner) for label, name in (("2B", "2b"), ("XL", "xl"))]


def tiny_shapes() -> list[Shape]:
    """Return sizes for a CPU and for the simulated device."""
    planner = PlannerConfig(
        vocab_size=900, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=512, audio_base=300, audio_codes=600,
    )  # fmt: skip
    text = TextEncoderConfig(
        vocab_size=300, hidden_size=tiny.STANDARD.text_hidden_dim, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=12,
    )  # fmt: skip
    vae = VAEConfig(encoder_hidden_size=8, decoder_channels=8, channel_multiples=(1, 1, 2, 2, 2))
    networks = {"tiny": tiny.STANDARD, "tiny XL": tiny.XL}
    return [Shape(name, replace(config, num_hidden_layers=2), text, vae, planner) for name, config in networks.items()]


def with_few_layers(config: ModelConfig) -> ModelConfig:
    return replace(
        config,
        num_hidden_layers=min(FEW_LAYERS, config.num_hidden_layers),
        num_lyric_encoder_hidden_layers=min(2, config.num_lyric_encoder_hidden_layers),
        num_timbre_encoder_hidden_layers=min(2, config.num_timbre_encoder_hidden_layers),
    )


@torch.no_grad()
def randomised(module: nn.Module, gain: float = 1.0) -> nn.Module:
    """Fill every parameter on its device with values that bfloat16 holds exactly, as `tiny.randomise` does on a CPU.

    All dtypes then have the same weights.
    """
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        noise = torch.empty(parameter.shape, dtype=torch.float32, device=parameter.device).normal_()
        if name.endswith(("alpha", "beta")):
            noise = 0.3 * noise
        elif "norm" in name:
            noise = 1 + 0.3 * noise
        elif name.endswith("bias"):
            noise = 0.2 * noise
        elif name.endswith(("table", "special_token", "special_tokens", "null_condition_emb")):
            noise = 0.5 * noise
        else:
            noise = gain * noise / inputs_of(name, parameter) ** 0.5
        parameter.copy_(noise.to(torch.bfloat16))
    return module.eval().requires_grad_(False)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Stage:
    """One stage, as a network and a function of it.

    build: (device, dtype) → the network with unset weights. run: (network, device) → a result on that device.
    gain: of the random weights. roundings, terms: see `bounds`.
    """

    name: str
    build: Callable[[torch.device, torch.dtype], nn.Module]
    run: Callable[[nn.Module, torch.device], Tensor]
    roundings: int
    terms: int
    gain: float = 1.0

    def twin(
        self, network: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32, plugins: bool = True
    ) -> nn.Module:
        """Return a network with the same weights on another device or in another dtype."""
        copy = self.build(device, dtype)
        state = network.state_dict()
        with torch.no_grad():
            for name, tensor in copy.state_dict().items():
                tensor.copy_(state[name].to(device))
        if plugins:
            install_cpu_plugins(copy, device)
        return copy.eval().requires_grad_(False)


def build_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> AceStepModel:
    """Build the diffusion model as the loader does: with float16, all but the transformer compute in float32."""
    ops = CastOps if dtype == torch.float16 else None
    return AceStepModel(config, device=device, dtype=dtype, encoder_ops=_encoder_ops(ops))


def _encoder_ops(ops):
    if ops is None:
        return None

    class EncoderOps(ops):
        Embedding, Conv1d, ConvTranspose1d = nn.Embedding, nn.Conv1d, nn.ConvTranspose1d

    return EncoderOps


def parity_stages(shape: Shape) -> dict[str, Stage]:
    """Return the stages of a shape, with few layers and short inputs, so that a CPU needs seconds for them."""
    config = with_few_layers(shape.network)
    encoder_roundings = ROUNDINGS * (config.num_lyric_encoder_hidden_layers + 1)
    frames = 2 * (2 * config.sliding_window + config.sliding_window // 2)  # three blocks of windowed attention
    width = config.text_hidden_dim

    def condition(network: nn.Module, device: torch.device) -> Tensor:
        text, lyrics = draw(1, 40, width, seed=1), draw(1, 2 * config.sliding_window, width, seed=2)
        timbre = draw(1, 2, config.timbre_fix_frame, LATENT_CHANNELS, seed=3)
        return network.encoder(text.to(device), lyrics.to(device), timbre.to(device))

    def step(network: nn.Module, device: torch.device) -> Tensor:
        decoder = network.decoder
        context = draw(1, frames, 2 * LATENT_CHANNELS, seed=4).to(device)
        rows = draw(1, 90, config.encoder_hidden_size, seed=5).to(device)
        prepared = decoder.prepare(context, rows, None, network.null_condition_emb)
        x = draw(2, frames, LATENT_CHANNELS, seed=6).to(device)
        return decoder(x, torch.tensor([0.7]).to(device), prepared)

    def codes(network: nn.Module, device: torch.device) -> Tensor:
        return network.detokenize(torch.arange(40)[None].to(device))

    def text(network: nn.Module, device: torch.device) -> Tensor:
        tokens = torch.arange(1, 65).unsqueeze(0) % shape.text.vocab_size
        return network(input_ids=tokens.to(device), use_cache=False).last_hidden_state

    def logits(network: nn.Module, device: torch.device) -> Tensor:
        tokens = (torch.arange(1, 65).view(2, 32) % shape.planner.audio_base).to(device)
        starts = torch.zeros(2, dtype=torch.long).to(device)
        cache = network.cache(2, 34, device)
        network(tokens, starts, cache, 32)
        hidden = network(tokens[:, :1], starts + 32, cache, 33)[:, 0]
        head = network.head(slice(0, min(4096, shape.planner.vocab_size)), device)
        return network.logits(hidden, head)

    vae_frames = 24
    vae_terms = 7 * shape.vae.decoder_channels * shape.vae.channel_multiples[-1]
    inner = config.intermediate_size

    def model(device: torch.device, dtype: torch.dtype) -> nn.Module:
        return build_model(config, device, dtype)

    def vae(device: torch.device, dtype: torch.dtype) -> nn.Module:
        return OobleckVAE(shape.vae, device=device, dtype=dtype)

    stages = [
        Stage("text", lambda device, dtype: build_qwen3(shape.text, device, dtype), text,
              ROUNDINGS * shape.text.num_hidden_layers, shape.text.intermediate_size),
        Stage("condition", model, condition, encoder_roundings, config.encoder_intermediate_size),
        Stage("dit", model, step, ROUNDINGS * config.num_hidden_layers, inner),
        Stage("codes", model, codes, ROUNDINGS * config.num_attention_pooler_hidden_layers,
              config.encoder_intermediate_size),
        Stage("decode", vae, lambda network, device: network.decode(draw(1, vae_frames, 64, seed=8).to(device)),
              VAE_ROUNDINGS, vae_terms, gain=0.5),
        Stage("encode", vae, lambda network, device: network.encode(
              (0.3 * draw(1, 2, vae_frames * shape.vae.hop, seed=8)).to(device)),
              VAE_ROUNDINGS, vae_terms, gain=0.5),
        Stage("planner", lambda device, dtype: PlannerNetwork(shape.planner, device=device, dtype=dtype), logits,
              ROUNDINGS * shape.planner.num_hidden_layers, shape.planner.intermediate_size),
    ]  # fmt: skip
    return {stage.name: stage for stage in stages}
