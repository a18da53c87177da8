"""Random initial weights that keep the size of a signal from layer to layer."""

from __future__ import annotations

import torch
from torch import nn

from acestep_core.models.oobleck import ResidualUnit


@torch.no_grad()
def init_transformer(module: nn.Module, generator: torch.Generator) -> None:
    """Set matrices to standard deviation 1/√inputs, embedding tables to 1, norms to one, and biases to zero.

    All other parameters (learned rows, modulation tables) get a standard deviation of 0.3.
    """
    for name, parameter in module.named_parameters():
        if "norm" in name:
            parameter.fill_(1)
        elif name.endswith("bias"):
            parameter.zero_()
        elif parameter.dim() == 2 or name.endswith("proj_in.1.weight"):
            table = "embed_tokens.weight" in name and _is_embedding(module, name)
            parameter.normal_(0, 1 if table else parameter[0].numel() ** -0.5, generator=generator)
        elif name.endswith("proj_out.1.weight"):
            parameter.normal_(0, parameter.shape[0] ** -0.5, generator=generator)
        else:
            parameter.normal_(0, 0.3, generator=generator)


def _is_embedding(module: nn.Module, name: str) -> bool:
    return isinstance(module.get_submodule(name.rpartition(".")[0]), nn.Embedding)


@torch.no_grad()
def init_autoencoder(vae: nn.Module, generator: torch.Generator, residual: float = 0.3) -> None:
    """Set convolutions to standard deviation 1/√(in·k), transposed ones to 1/√(2·in), and biases to zero.

    `residual` scales the last convolution of each residual unit.
    """
    for module in vae.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            transposed = isinstance(module, nn.ConvTranspose1d)
            fan = 2 * module.in_channels if transposed else module.in_channels * module.kernel_size[0]
            module.weight.normal_(0, fan**-0.5, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
    for module in vae.modules():
        if isinstance(module, ResidualUnit):
            module.conv2.weight.mul_(residual)
