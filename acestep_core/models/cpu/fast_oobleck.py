"""Oobleck in float32 on a CPU, as matrix products over rows [time, channels]. It equals `oobleck.py` up to rounding.

Three things make it fast, none of them a kernel of our own:

- A kernel of 7 over M outputs needs M + 6 products per channel pair instead of 7 M (Toom-Cook, known as Winograd in
  image networks). Both transforms are small matrix products over time. Dilation d convolves every d-th row.
- A transposed convolution of stride s and kernel 2 s is two matrix products whose rows are s samples of the result.
  A strided convolution in the encoder is the reverse. Nothing has to be added up afterwards.
- A residual unit works on pieces that stay in the cache. The levels near the audio work in windows of a second, so
  that memory hardly grows with the length.

The transforms cost some rounding, see `M`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import TORCH, weight_and_bias
from ..oobleck import DecoderBlock, EncoderBlock, OobleckDecoder, OobleckEncoder, ResidualUnit
from ..snake import Snake

KERNEL = 7
# Outputs per transform. Errors of a convolution of white noise against the direct sum in float64, and products per
# output: 4: -116 dB, 2.5; 6: -108 dB, 2; 8: -100 dB, 1.75; 10: -91 dB, 1.6. As a whole, 8 and 10 were no faster than 6.
M = 6
# The polynomials are evaluated at 0, at infinity, at these points and at their negatives. Of all sets of small
# fractions this one rounded least.
POINTS = (1 / 3, 2 / 3, 1, 3 / 2, 3)
MIN_WIDTH = 32  # narrower networks gain nothing
DILATIONS = (1, 3, 9)
SLACK = (KERNEL - 1 + M) * max(DILATIONS)  # rows after a signal that a unit may read or write
PIECE = 1024  # rows per thread at a time: half a megabyte of 128 channels
WINDOW = 6 * 2**20  # values of the widest level in a window
UNIT_REACH = 3 * sum(DILATIONS)

# oneDNN in torch 2.5 and 2.6 takes up to a hundred times as long as torch's own kernel for a narrow transposed
# convolution in float32.
SLOW_ONEDNN = TORCH < (2, 7)


class FastOobleckEncoder(OobleckEncoder):
    """An encoder that computes by `encode_rows` if `applies` is true."""

    def forward(self, x: Tensor) -> Tensor:
        if not applies(self, x):
            return super().forward(x)
        return torch.stack([encode_rows(self, item.t()).t() for item in x])


class FastOobleckDecoder(OobleckDecoder):
    """A decoder that computes by `decode_rows` if `applies` is true."""

    def forward(self, x: Tensor) -> Tensor:
        if not applies(self, x):
            return super().forward(x)
        return torch.stack([decode_rows(self, item.t()).t() for item in x])


class DirectConvTranspose1d(nn.ConvTranspose1d):
    """A transposed convolution that avoids oneDNN in float32 on a CPU."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
            return super().forward(x, output_size)
        with torch.backends.mkldnn.flags(enabled=False):
            return super().forward(x, output_size)


def applies(network: nn.Module, x: Tensor) -> bool:
    """True if the encoder or decoder `network` can compute here on `x`.

    It must be on a CPU, in float32, without gradients and wide enough. Its layers must be torch's own or have a method
    `weight_and_bias`, and must have no hooks.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in network.parameters())):
        return False
    layers = {name: layer for name, layer in network.named_modules() if hasattr(layer, "kernel_size")}
    return min(layer.in_channels for layer in layers.values() if layer.stride[0] > 1) >= MIN_WIDTH and all(
        name.rpartition(".")[2] in ("conv1", "conv2", "conv_t1")  # not wrapped, by an adapter for example
        and (type(layer) in (nn.Conv1d, nn.ConvTranspose1d, DirectConvTranspose1d) or hasattr(layer, "weight_and_bias"))
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and layer.weight.device.type == "cpu"
        and (layer.stride[0] == 1 or layer.stride[0] % 2 == 0)
        for name, layer in layers.items()
    )


def decode_rows(decoder: OobleckDecoder, rows: Tensor) -> Tensor:
    """Decode one item, [frames, channels] to [samples, audio channels]."""
    rows = _convolve(rows, decoder.conv1)
    blocks: list[Any] = list(decoder.block)
    split = max(0, len(blocks) - 3)
    for block in blocks[:split]:
        for stage in _decoder_stages(block, rows):
            rows = stage(rows)
    # The last blocks work in windows. `ratio`: samples per row. `reach`: rows on each side that a sample depends on.
    ratio, reach = 1, 3
    for block in reversed(blocks[split:]):
        stride = block.conv_t1.stride[0]
        reach, ratio = -(-(reach + UNIT_REACH + stride) // stride), ratio * stride
    stages = [stage for block in blocks[split:] for stage in _decoder_stages(block, rows)]
    stages += [_snake(decoder.snake1), functools.partial(_convolve_to_few, layer=decoder.conv2)]
    size = max(1, WINDOW // (ratio * decoder.snake1.alpha.shape[1]))
    return _in_windows(rows, stages, size, reach, lambda row: row * ratio)


def encode_rows(encoder: OobleckEncoder, rows: Tensor) -> Tensor:
    """Encode one item, [samples, audio channels] to [frames, channels]."""
    blocks: list[Any] = list(encoder.block)
    split = min(3, len(blocks))
    ratio, reach = 1, 3
    for block in blocks[:split]:
        stride = block.conv1.stride[0]
        reach, ratio = reach + ratio * (UNIT_REACH + stride), ratio * stride
    reach = -(-reach // ratio) * ratio
    stages: list[Stage] = [functools.partial(_convolve, layer=encoder.conv1)]
    stages += [stage for block in blocks[:split] for stage in _encoder_stages(block, rows)]
    size = max(ratio, WINDOW // encoder.conv1.out_channels // ratio * ratio)
    rows = _in_windows(rows, stages, size, reach, lambda row: row // ratio)
    for block in blocks[split:]:
        for stage in _encoder_stages(block, rows):
            rows = stage(rows)
    return _convolve(_snake(encoder.snake1)(rows), encoder.conv2)


Stage = Callable[[Tensor], Tensor]  # rows [time, channels] to rows


def _decoder_stages(block: DecoderBlock, like: Tensor) -> Iterable[Stage]:
    yield _snake(block.snake1)
    yield functools.partial(_upsample, layer=block.conv_t1)
    yield _units((block.res_unit1, block.res_unit2, block.res_unit3), like)


def _encoder_stages(block: EncoderBlock, like: Tensor) -> Iterable[Stage]:
    yield _units((block.res_unit1, block.res_unit2, block.res_unit3), like)
    yield _snake(block.snake1)
    yield functools.partial(_downsample, layer=block.conv1)


def _in_windows(rows: Tensor, stages: Sequence[Stage], size: int, reach: int, out_row: Callable[[int], int]) -> Tensor:
    """Run the stages over `size` rows at a time. The results of `reach` more rows on either side are discarded.

    out_row: maps a row to its first row of the result.
    """
    result = None
    for start in range(0, len(rows), size):
        end, first = min(start + size, len(rows)), max(0, start - reach)
        window = rows[first : end + reach]
        for stage in stages:
            window = stage(window)
        if result is None:
            result = window.new_empty(out_row(len(rows)), window.shape[1])
        result[out_row(start) : out_row(end)] = window[out_row(start - first) : out_row(end - first)]
    assert result is not None, "rows are never empty"
    return result


def _snake_tables(snake: Snake) -> tuple[Tensor, Tensor]:
    """Return frequency and strength, each [channels]."""
    alpha, beta = (table.detach().float().flatten() for table in (snake.alpha, snake.beta))
    return alpha.exp(), (beta.exp() + 1e-9).reciprocal()


def _snake(snake: Snake) -> Stage:
    frequency, strength = _snake_tables(snake)

    def apply(rows: Tensor) -> Tensor:
        result = torch.empty_like(rows)
        piece = PIECE * torch.get_num_threads()
        for x, out in zip(rows.split(piece), result.split(piece), strict=True):
            torch.addcmul(x, (x * frequency).sin_().square_(), strength, out=out)
        return result

    return apply


def _convolve(rows: Tensor, layer: nn.Conv1d) -> Tensor:
    """A convolution of stride 1 that keeps the length, for few channels or few rows."""
    weight, bias = weight_and_bias(layer, rows)
    size = weight.shape[2]
    windows = F.pad(rows, (0, 0, size // 2, size // 2)).unfold(0, size, 1)  # [time, channels, kernel]
    return torch.addmm(bias, windows.flatten(1), weight.flatten(1).t())


def _convolve_to_few(rows: Tensor, layer: nn.Conv1d) -> Tensor:
    """A convolution of stride 1 to few channels: one product per kernel position, then their sum."""
    weight, bias = weight_and_bias(layer, rows)
    few, wide, size = weight.shape
    padded = rows.new_zeros(len(rows) + size - 1, size * few)
    torch.mm(rows, weight.permute(1, 2, 0).reshape(wide, -1), out=padded[size // 2 : size // 2 + len(rows)])
    result = rows.new_zeros(len(rows), few) if bias is None else bias.repeat(len(rows), 1)
    for position in range(size):
        result += padded[position : position + len(rows), position * few : (position + 1) * few]
    return result


def _upsample(rows: Tensor, layer: nn.ConvTranspose1d) -> Tensor:
    """A transposed convolution whose kernel is twice its stride: a row and the one before it make `stride` rows."""
    weight, bias = weight_and_bias(layer, rows)
    length, stride, crop = len(rows), layer.stride[0], int(layer.padding[0])
    width = weight.shape[1]
    result = bias.repeat((length + 1) * stride).view(length + 1, stride * width)
    # Some input channels at a time: a whole copy of the weight in this order would be 168 MB.
    for x, w in zip(rows.split(256, dim=1), weight.split(256), strict=True):
        current, previous = w.transpose(1, 2).reshape(len(w), 2, stride * width).unbind(1)
        result[:length].addmm_(x, current)
        result[1:].addmm_(x, previous)
    return result.view(-1, width)[crop : crop + length * stride]


def _downsample(rows: Tensor, layer: nn.Conv1d) -> Tensor:
    """A convolution whose kernel is twice its stride: two groups of `stride` rows make a row."""
    weight, bias = weight_and_bias(layer, rows)
    stride, pad = layer.stride[0], int(layer.padding[0])
    length = len(rows) // stride
    groups = F.pad(rows, (0, 0, pad, pad)).view(length + 1, -1)
    result = rows.new_empty(length, len(weight))
    for out, w, b in zip(result.split(256, dim=1), weight.split(256), bias.split(256), strict=True):
        current, following = w.transpose(1, 2).reshape(len(w), 2, -1).unbind(1)
        out.copy_(torch.addmm(b, groups[:-1], current.t()).addmm_(groups[1:], following.t()))
    return result


@functools.cache
def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Return the transforms of kernels [M + 6, 7], inputs [M + 6, M + 6] and outputs [M, M + 6], float32.

    y = output @ ((kernel @ w) * (input @ x)) are the M sums y[i] = sum_j x[i + j] w[j].
    """
    points = torch.tensor([0.0, *(sign * point for point in POINTS for sign in (1, -1))], dtype=torch.float64)

    def powers(degree: int) -> Tensor:
        finite = points[:, None] ** torch.arange(degree)
        return torch.cat((finite, F.one_hot(torch.tensor([degree - 1])).double()))

    kernel, output, input = powers(KERNEL), powers(M).T, torch.linalg.inv(powers(M + KERNEL - 1)).T
    scale = kernel.norm(dim=1, keepdim=True)
    return (kernel / scale).float(), (input * scale).float(), output.float().contiguous()


def _units(units: Sequence[ResidualUnit], like: Tensor) -> Stage:
    """Residual units one after another. Their weights are transformed here, once."""
    prepared = [_Unit(unit, like) for unit in units]
    start = sum(unit.reach for unit in prepared)

    def apply(rows: Tensor) -> Tensor:
        length, width = rows.shape
        # One array, in which each unit moves the signal left by its reach: it overwrites only what it has read.
        buffer = rows.new_empty(start + length + SLACK, width)
        buffer[:start], buffer[start : start + length] = 0, rows
        first = start
        for unit in prepared:
            buffer[first + length :] = 0
            unit(buffer[first - unit.reach :], length)
            first -= unit.reach
        return buffer[:length]

    return apply


class _Unit:
    """A residual unit with transformed weights.

    Rows come in groups of `dilation`, groups in blocks of M: row (block M + phase) dilation + rest. Products over time
    need the phase outermost, [phase, block, rest, channel].
    """

    def __init__(self, unit: ResidualUnit, like: Tensor):
        weight, self.bias = weight_and_bias(unit.conv1, like)
        mix, self.mix_bias = weight_and_bias(unit.conv2, like)
        self.mix = mix[:, :, 0].t()
        self.width, self.dilation = len(weight), unit.conv1.dilation[0]
        self.reach = (KERNEL - 1) // 2 * self.dilation
        of_kernel, of_input, of_output = transforms()
        self.of_output = F.pad(of_output, (0, 1), value=1.0)  # one more product, the bias
        self.head, self.tail = (part.contiguous() for part in of_input.split((M, KERNEL - 1), dim=1))
        kernel = torch.mm(of_kernel, weight.view(-1, KERNEL).t())
        self.kernel = kernel.view(-1, self.width, self.width).transpose(1, 2)
        self.snake1, self.snake2 = _snake_tables(unit.snake1), _snake_tables(unit.snake2)

    def __call__(self, rows: Tensor, length: int) -> None:
        """Compute in place. `rows`: `reach` zeros, a signal of `length`, zeros. The result starts at the first row."""
        block = M * self.dilation
        blocks = -(-length // block)
        step = -(-blocks // -(-blocks * block // (PIECE * torch.get_num_threads())))
        group = self.dilation * self.width
        scratch = tuple(rows.new_empty((step + 1) * group * count) for count in (M, M + KERNEL - 1, M + KERNEL))
        for start in range(0, blocks, step):
            count = min(step, blocks - start)
            first, last = start * block, (start + count) * block
            self._piece(rows[first : last + 2 * self.reach], rows[first:last], count, scratch)

    def _piece(self, x: Tensor, out: Tensor, blocks: int, scratch: Sequence[Tensor]) -> None:
        """Compute `blocks` blocks of `out` from the rows `x` that they depend on.

        All intermediate results are in the three scratch buffers, which stay in the cache.
        """
        group, whole = self.dilation * self.width, len(out)

        def buffer(index: int, *shape: int) -> Tensor:
            return scratch[index][: math.prod(shape)].view(shape)

        phases, wave = buffer(0, M, blocks + 1, self.dilation, self.width), buffer(1, *x.shape)
        torch.mul(x, self.snake1[0], out=wave).sin_().square_()
        for rows, part in (
            (slice(whole), phases[:, :blocks]),
            (slice(whole, None), phases[: KERNEL - 1, blocks:]),
        ):
            part = part.transpose(0, 1)
            torch.addcmul(x[rows].view(part.shape), wave[rows].view(part.shape), self.snake1[1], out=part)
        phases = phases.view(M, -1)
        inputs = torch.mm(self.head, phases[:, : blocks * group], out=buffer(1, len(self.head), blocks * group))
        inputs.addmm_(self.tail, phases[: KERNEL - 1, group:])
        products = buffer(2, len(inputs) + 1, blocks * self.dilation, self.width)
        torch.bmm(inputs.view(len(inputs), -1, self.width), self.kernel, out=products[:-1])
        products[-1] = self.bias
        y = torch.mm(self.of_output, products.view(len(products), -1), out=buffer(0, M, blocks * group))
        y = y.view(whole, self.width)
        wave = torch.mul(y, self.snake2[0], out=buffer(1, *y.shape)).sin_().square_()
        y.addcmul_(wave, self.snake2[1])
        result = buffer(2, M, blocks, self.dilation, self.width)
        residual = x[self.reach :][:whole].view(blocks, M, self.dilation, self.width)
        torch.add(residual, self.mix_bias, out=result.transpose(0, 1))
        result.view(y.shape).addmm_(y, self.mix)
        out.view(residual.shape).copy_(result.transpose(0, 1))
