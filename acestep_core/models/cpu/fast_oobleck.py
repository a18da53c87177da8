"""Oobleck on a processor: the same sums as `oobleck.py`, as matrix products over rows [time, channels], in float32.

Three things make it fast, none of them a kernel of our own:

- A kernel of 7 over M outputs needs M + 6 products a channel pair instead of 7 M (Toom and Cook; in image networks
  Winograd's). Both transforms are small matrix products over time, a dilated convolution is one over every d-th row.
- A transposed convolution of stride s and kernel 2 s is two matrix products whose rows are s samples of result, and
  its mirror image in the encoder likewise; nothing is added up afterwards.
- A residual unit passes over pieces that stay in the cache, and the levels near the audio over windows of a second, so
  that memory hardly grows with the length.

Against the direct sums in float32 the transforms cost some rounding: see `M`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import weight_and_bias

KERNEL = 7
# Outputs per transform. One convolution of white noise against the direct sum in float64: 4: -116 dB with 2.5 products
# an output, 6: -108 dB with 2, 8: -100 dB with 1.75, 10: -91 dB with 1.6. 8 and 10 were no faster than 6 as a whole.
M = 6
# Where the polynomials are evaluated besides 0 and infinity, each with its negative. Of all choices among small
# fractions these rounded least.
POINTS = (1 / 3, 2 / 3, 1, 3 / 2, 3)
MIN_WIDTH = 32  # narrower networks gain nothing
DILATIONS = (1, 3, 9)
SLACK = (KERNEL - 1 + M) * max(DILATIONS)  # rows after a signal that a unit may read or write
PIECE = 1024  # rows that a thread works on at a time: for 128 channels half a megabyte
WINDOW = 6 * 2**20  # numbers of the widest level within a window
UNIT_REACH = 3 * sum(DILATIONS)


@functools.cache
def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """For kernels [M + 6, 7], inputs [M + 6, M + 6] and outputs [M, M + 6], float32.

    y = output @ ((kernel @ w) * (input @ x)) are the M sums y[i] = sum_j x[i + j] w[j].
    """
    points = torch.tensor([0.0, *(sign * point for point in POINTS for sign in (1, -1))], dtype=torch.float64)

    def values(degree: int) -> Tensor:
        finite = points[:, None] ** torch.arange(degree)
        return torch.cat((finite, F.one_hot(torch.tensor([degree - 1])).double()))

    kernel, output, input = values(KERNEL), values(M).T, torch.linalg.inv(values(M + KERNEL - 1)).T
    scale = kernel.norm(dim=1, keepdim=True)
    return (kernel / scale).float(), (input * scale).float(), output.float().contiguous()


def applies(network: nn.Module, x: Tensor) -> bool:
    """Whether `network` (an encoder or decoder) can run here on `x`: on a processor, in float32, without gradients,
    wide enough, in layers that are torch's own or tell their weights to `weight_and_bias`."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in network.parameters())):
        return False
    layers = {name: layer for name, layer in network.named_modules() if hasattr(layer, "kernel_size")}
    return min(layer.in_channels for layer in layers.values() if layer.stride[0] > 1) >= MIN_WIDTH and all(
        name.rpartition(".")[2] in ("conv1", "conv2", "conv_t1")  # nothing wrapped around it
        and (type(layer) in (nn.Conv1d, nn.ConvTranspose1d) or hasattr(layer, "weight_and_bias"))
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and layer.weight.device.type == "cpu"
        and (layer.stride[0] == 1 or layer.stride[0] % 2 == 0)
        for name, layer in layers.items()
    )


def decode(decoder: nn.Module, latents: Tensor) -> Tensor:
    """`decoder(latents)`: [B, channels, frames] to [B, audio channels, samples]."""
    return torch.stack([_decode(decoder, item.t()).t() for item in latents])


def encode(encoder: nn.Module, waveform: Tensor) -> Tensor:
    """`encoder(waveform)`: [B, audio channels, samples] to [B, channels, frames]."""
    return torch.stack([_encode(encoder, item.t()).t() for item in waveform])


def _decode(decoder: nn.Module, rows: Tensor) -> Tensor:
    rows = _convolve(rows, decoder.conv1)
    blocks = list(decoder.block)
    split = max(0, len(blocks) - 3)
    for block in blocks[:split]:
        for stage in _decoder_stages(block, rows):
            rows = stage(rows)
    # The rest in windows: how far a result reaches back through it, and how many samples a row becomes.
    ratio, reach = 1, 3
    for block in reversed(blocks[split:]):
        stride = block.conv_t1.stride[0]
        reach, ratio = -(-(reach + UNIT_REACH + stride) // stride), ratio * stride
    stages = [stage for block in blocks[split:] for stage in _decoder_stages(block, rows)]
    stages += [_snake(decoder.snake1), functools.partial(_convolve_to_few, layer=decoder.conv2)]
    size = max(1, WINDOW // (ratio * decoder.snake1.alpha.shape[1]))
    return _in_windows(rows, stages, size, reach, lambda row: row * ratio)


def _encode(encoder: nn.Module, rows: Tensor) -> Tensor:
    blocks = list(encoder.block)
    split = min(3, len(blocks))
    ratio, reach = 1, 3
    for block in blocks[:split]:
        stride = block.conv1.stride[0]
        reach, ratio = reach + ratio * (UNIT_REACH + stride), ratio * stride
    reach = -(-reach // ratio) * ratio
    stages = [functools.partial(_convolve, layer=encoder.conv1)]
    stages += [stage for block in blocks[:split] for stage in _encoder_stages(block, rows)]
    size = max(ratio, WINDOW // encoder.conv1.out_channels // ratio * ratio)
    rows = _in_windows(rows, stages, size, reach, lambda row: row // ratio)
    for block in blocks[split:]:
        for stage in _encoder_stages(block, rows):
            rows = stage(rows)
    return _convolve(_snake(encoder.snake1)(rows), encoder.conv2)


Stage = Callable[[Tensor], Tensor]  # rows [time, channels] to rows


def _decoder_stages(block: nn.Module, like: Tensor) -> Iterable[Stage]:
    yield _snake(block.snake1)
    yield functools.partial(_stretch, layer=block.conv_t1)
    yield _units((block.res_unit1, block.res_unit2, block.res_unit3), like)


def _encoder_stages(block: nn.Module, like: Tensor) -> Iterable[Stage]:
    yield _units((block.res_unit1, block.res_unit2, block.res_unit3), like)
    yield _snake(block.snake1)
    yield functools.partial(_shrink, layer=block.conv1)


def _in_windows(rows: Tensor, stages: Sequence[Stage], size: int, reach: int, at: Callable[[int], int]) -> Tensor:
    """The stages over `size` rows at a time, with `reach` more on both sides whose results are thrown away. `at` tells
    which row of the result a row becomes."""
    result = None
    for start in range(0, len(rows), size):
        end, first = min(start + size, len(rows)), max(0, start - reach)
        part = rows[first : end + reach]
        for stage in stages:
            part = stage(part)
        if result is None:
            result = part.new_empty(at(len(rows)), part.shape[1])
        result[at(start) : at(end)] = part[at(start - first) : at(end - first)]
    return result


def _snake_tables(snake: nn.Module) -> tuple[Tensor, Tensor]:
    """Frequency and strength, [channels]."""
    alpha, beta = (table.detach().float().flatten() for table in (snake.alpha, snake.beta))
    return alpha.exp(), (beta.exp() + 1e-9).reciprocal()


def _snake(snake: nn.Module) -> Stage:
    frequency, strength = _snake_tables(snake)

    def apply(rows: Tensor) -> Tensor:
        result = torch.empty_like(rows)
        for x, y in zip(_pieces(rows), _pieces(result), strict=True):
            _apply_snake(x, frequency, strength, y)
        return result

    return apply


def _apply_snake(x: Tensor, frequency: Tensor, strength: Tensor, out: Tensor) -> Tensor:
    return torch.addcmul(x, (x * frequency).sin_().square_(), strength, out=out)


def _pieces(rows: Tensor) -> tuple[Tensor, ...]:
    return rows.split(PIECE * torch.get_num_threads())


def _convolve(rows: Tensor, layer: nn.Module) -> Tensor:
    """An ordinary convolution of stride 1 that keeps the length, with few channels or few rows."""
    weight, bias = weight_and_bias(layer, rows)
    size = weight.shape[2]
    windows = F.pad(rows, (0, 0, size // 2, size // 2)).unfold(0, size, 1)  # [time, channels, kernel]
    return torch.addmm(bias, windows.flatten(1), weight.flatten(1).t())


def _convolve_to_few(rows: Tensor, layer: nn.Module) -> Tensor:
    """The same to a few channels: each kernel position by itself, then added up."""
    weight, bias = weight_and_bias(layer, rows)
    few, wide, size = weight.shape
    padded = rows.new_zeros(len(rows) + size - 1, size * few)
    torch.mm(rows, weight.permute(1, 2, 0).reshape(wide, -1), out=padded[size // 2 : size // 2 + len(rows)])
    result = rows.new_zeros(len(rows), few) if bias is None else bias.repeat(len(rows), 1)
    for position in range(size):
        result += padded[position : position + len(rows), position * few : (position + 1) * few]
    return result


def _stretch(rows: Tensor, layer: nn.Module) -> Tensor:
    """A transposed convolution whose kernel is twice its stride: a row and the one before it make `stride` rows."""
    weight, bias = weight_and_bias(layer, rows)
    length, stride, crop = len(rows), layer.stride[0], layer.padding[0]
    width = weight.shape[1]
    result = bias.repeat((length + 1) * stride).view(length + 1, stride * width)
    # Some input channels at a time: a whole copy of the weight in this order would be 168 MB.
    for x, w in zip(rows.split(256, dim=1), weight.split(256), strict=True):
        this, previous = w.transpose(1, 2).reshape(len(w), 2, stride * width).unbind(1)
        result[:length].addmm_(x, this)
        result[1:].addmm_(x, previous)
    return result.view(-1, width)[crop : crop + length * stride]


def _shrink(rows: Tensor, layer: nn.Module) -> Tensor:
    """A convolution whose kernel is twice its stride: two groups of `stride` rows make a row."""
    weight, bias = weight_and_bias(layer, rows)
    stride, pad = layer.stride[0], layer.padding[0]
    length = len(rows) // stride
    groups = F.pad(rows, (0, 0, pad, pad)).view(length + 1, -1)
    result = rows.new_empty(length, len(weight))
    for out, w, b in zip(result.split(256, dim=1), weight.split(256), bias.split(256), strict=True):
        this, following = w.transpose(1, 2).reshape(len(w), 2, -1).unbind(1)
        out.copy_(torch.addmm(b, groups[:-1], this.t()).addmm_(groups[1:], following.t()))
    return result


def _units(units: Sequence[nn.Module], like: Tensor) -> Stage:
    """Residual units one after another; their weights are transformed here, once."""
    prepared = [_Unit(unit, like) for unit in units]
    start = sum(unit.reach for unit in prepared)

    def apply(rows: Tensor) -> Tensor:
        length, width = rows.shape
        # One array, in which each unit moves the signal left by its reach: what it overwrites, it has read.
        place = rows.new_empty(start + length + SLACK, width)
        place[:start], place[start : start + length] = 0, rows
        first = start
        for unit in prepared:
            place[first + length :] = 0
            unit(place[first - unit.reach :], length)
            first -= unit.reach
        return place[:length]

    return apply


class _Unit:
    """A residual unit, prepared.

    Rows come in groups of `dilation`, groups in blocks of M: row (block M + phase) dilation + rest. Products over time
    want the phase outermost, [phase, block, rest, channel].
    """

    def __init__(self, unit: nn.Module, like: Tensor):
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

    def __call__(self, place: Tensor, length: int) -> None:
        """`place`: `reach` rows of zeros, a signal of `length` rows, zeros. The result begins at its first row."""
        block = M * self.dilation
        blocks = -(-length // block)
        step = -(-blocks // -(-blocks * block // (PIECE * torch.get_num_threads())))
        group = self.dilation * self.width
        scratch = tuple(place.new_empty((step + 1) * group * rows) for rows in (M, M + KERNEL - 1, M + KERNEL))
        for start in range(0, blocks, step):
            count = min(step, blocks - start)
            first, last = start * block, (start + count) * block
            self._piece(place[first : last + 2 * self.reach], place[first:last], count, scratch)

    def _piece(self, x: Tensor, out: Tensor, blocks: int, scratch: Sequence[Tensor]) -> None:
        """`x`: the rows that the `blocks` blocks of `out` see. Works in three buffers, which then stay in the cache."""
        group, whole = self.dilation * self.width, len(out)

        def buffer(index: int, *shape: int) -> Tensor:
            return scratch[index][: math.prod(shape)].view(shape)

        phases, wave = buffer(0, M, blocks + 1, self.dilation, self.width), buffer(1, *x.shape)
        torch.mul(x, self.snake1[0], out=wave).sin_().square_()
        for rows, place in (
            (slice(whole), phases[:, :blocks]),
            (slice(whole, None), phases[: KERNEL - 1, blocks:]),
        ):
            place = place.transpose(0, 1)
            torch.addcmul(x[rows].view(place.shape), wave[rows].view(place.shape), self.snake1[1], out=place)
        phases = phases.view(M, -1)
        seen = torch.mm(self.head, phases[:, : blocks * group], out=buffer(1, len(self.head), blocks * group))
        seen.addmm_(self.tail, phases[: KERNEL - 1, group:])
        products = buffer(2, len(seen) + 1, blocks * self.dilation, self.width)
        torch.bmm(seen.view(len(seen), -1, self.width), self.kernel, out=products[:-1])
        products[-1] = self.bias
        y = torch.mm(self.of_output, products.view(len(products), -1), out=buffer(0, M, blocks * group))
        y = y.view(whole, self.width)
        wave = torch.mul(y, self.snake2[0], out=buffer(1, *y.shape)).sin_().square_()
        y.addcmul_(wave, self.snake2[1])
        result = buffer(2, M, blocks, self.dilation, self.width)
        before = x[self.reach :][:whole].view(blocks, M, self.dilation, self.width)
        torch.add(before, self.mix_bias, out=result.transpose(0, 1))
        result.view(y.shape).addmm_(y, self.mix)
        out.view(before.shape).copy_(result.transpose(0, 1))
