import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from acestep_core.models import layers
from acestep_core.models.ops import CastLinear
from tests.support.tiny import draw, relative_error


def dense(q, k, v, window):
    """Masked attention with repeated keys and values."""
    positions = torch.arange(q.shape[-2])
    visible = (positions[:, None] - positions).abs() <= window
    repeated = (x.repeat_interleave(q.shape[2], dim=1) for x in (k, v))
    return F.scaled_dot_product_attention(q.flatten(1, 2), *repeated, attn_mask=visible).view(q.shape)


def heads(length, groups=2, batch=2, kv_heads=3, dtype=torch.float32):
    q = draw(batch, kv_heads, groups, length, 8, seed=1)
    k, v = draw(batch, kv_heads, length, 8, seed=2), draw(batch, kv_heads, length, 8, seed=3)
    return q.to(dtype), k.to(dtype), v.to(dtype)


@pytest.mark.parametrize("window", [1, 2, 5, 16])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_banded_attention_equals_masked_attention(window, groups):
    for length in range(1, 5 * window + 4):
        q, k, v = heads(length, groups)
        band = layers.make_band(length, window, groups, q)
        assert (band is None) == (length <= window + 1)
        got = layers.attend(q, k, v) if band is None else layers.attend_banded(q, k, v, band)
        assert torch.allclose(got, dense(q, k, v, window), atol=1e-6), length


@pytest.mark.parametrize("length", [130, 255, 256, 257, 384, 385, 511, 640, 1000])
def test_banded_attention_at_the_real_window(length):
    q, k, v = heads(length, batch=1)
    got = layers.attend_banded(q, k, v, layers.make_band(length, 128, 2, q))
    assert torch.allclose(got, dense(q, k, v, 128), atol=1e-6)


def test_banded_attention_of_strided_inputs():
    q, k, v = heads(50)
    strided = q.permute(0, 3, 1, 2, 4).contiguous().permute(0, 2, 3, 1, 4)
    kv = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v)]
    assert torch.allclose(
        layers.attend_banded(strided, *kv, layers.make_band(50, 8, 2, q)), dense(q, k, v, 8), atol=1e-6
    )


def test_banded_attention_has_the_gradients_of_masked_attention():
    inputs = [x.requires_grad_() for x in heads(37)]
    weights = draw(*inputs[0].shape, seed=4)
    band = layers.make_band(37, 5, 2, inputs[0])
    got = torch.autograd.grad((layers.attend_banded(*inputs, band) * weights).sum(), inputs)
    expected = torch.autograd.grad((dense(*inputs, 5) * weights).sum(), inputs)
    assert all(relative_error(a, b) < 1e-5 for a, b in zip(got, expected, strict=True))


def test_banded_attention_in_bfloat16():
    q, k, v = heads(100, dtype=torch.bfloat16)
    got = layers.attend_banded(q, k, v, layers.make_band(100, 8, 2, q))
    assert got.dtype == torch.bfloat16
    assert relative_error(got, dense(q.float(), k.float(), v.float(), 8)) < 0.02


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest storage that any operation returns."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


def test_banded_attention_allocates_no_full_matrix():
    largest = {}
    for length in (1000, 4000):
        q, k, v = heads(length, groups=1, batch=1, kv_heads=1)
        with LargestTensor() as largest_tensor:
            layers.attend_banded(q, k, v, layers.make_band(length, 16, 1, q))
        largest[length] = largest_tensor.bytes
    assert largest[4000] <= q.nbytes
    assert largest[4000] <= 4.2 * largest[1000]


def test_consecutive_query_heads_share_a_key_head():
    q, k, v = heads(9, groups=4)
    assert torch.allclose(layers.attend(q, k, v), dense(q, k, v, window=9), atol=1e-6)


def test_attention_ignores_masked_keys():
    q, k, v = heads(9)
    mask = torch.ones(2, 1, 1, 9, dtype=torch.bool)
    mask[1, ..., 5:] = False
    got = layers.attend(q, k, v, mask)
    assert torch.allclose(got[1:], layers.attend(q[1:], k[1:, :, :5], v[1:, :, :5]), atol=1e-6)


@pytest.mark.parametrize("kind", ["nothing", "keys", "both"])
def test_chunked_attention_equals_attention(monkeypatch, kind):
    """For devices whose attention materialises all scores."""
    q, k, v = heads(9, groups=2)
    q = q.flatten(2, 3)
    mask = None if kind == "nothing" else draw(2, 1, 1 if kind == "keys" else 18, 9)
    whole, sizes = torch.nn.functional.scaled_dot_product_attention, []
    expected = whole(q, k, v, attn_mask=mask)

    def recording(q, k, v, attn_mask):
        sizes.append(q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2])
        return whole(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr(layers.F, "scaled_dot_product_attention", recording)
    monkeypatch.setattr(layers, "MAX_SCORES", 5 * q.shape[0] * q.shape[1] * 9)
    assert torch.allclose(layers._chunked_attention(q, k, v, attn_mask=mask), expected, atol=1e-6)
    assert len(sizes) == 4 and max(sizes) <= layers.MAX_SCORES


@pytest.mark.parametrize("kind", ["additive", "boolean"])
def test_old_rocm_computes_masked_attention_by_parts(monkeypatch, kind):
    q, k, v = draw(2, 3, 12, 8), draw(2, 3, 9, 8, seed=1), draw(2, 3, 9, 8, seed=2)
    shown = draw(12, 9, seed=3) > 0
    shown[:, 0] = True
    mask = shown if kind == "boolean" else torch.zeros(12, 9).masked_fill(~shown, float("-inf"))
    expected = layers.F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    unmasked = layers.F.scaled_dot_product_attention(q, k, v)
    monkeypatch.setattr(layers, "misreads_masks", lambda device: True)
    assert torch.equal(layers._chunked_attention(q, k, v, attn_mask=None), unmasked)
    monkeypatch.setattr(layers.F, "scaled_dot_product_attention", None)
    assert torch.allclose(layers._chunked_attention(q, k, v, attn_mask=mask), expected, atol=1e-6)


def test_masks_are_misread_on_rocm_before_torch_2_7(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(layers, "TORCH", (2, 6))
    assert not layers.misreads_masks(cuda)
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert layers.misreads_masks(cuda) and not layers.misreads_masks(torch.device("cpu"))
    monkeypatch.setattr(layers, "TORCH", (2, 7))
    assert not layers.misreads_masks(cuda)


def test_metal_gets_no_overlapping_keys(monkeypatch):
    """They overlap in memory elsewhere: a block reads the keys of its neighbours, too."""
    q, k, v = draw(2, 2, 2, 50, 8), draw(2, 2, 50, 8, seed=1), draw(2, 2, 50, 8, seed=2)
    band = layers.make_band(50, 6, 2, q)
    expected, seen = layers.attend_banded(q, k, v, band), []
    sdpa = layers.F.scaled_dot_product_attention
    monkeypatch.setattr(layers, "misreads_overlaps", lambda device: True)
    monkeypatch.setattr(
        layers.F,
        "scaled_dot_product_attention",
        lambda q, k, v, **options: seen.append((k, v)) or sdpa(q, k, v, **options),
    )
    assert torch.allclose(layers.attend_banded(q, k, v, band), expected, atol=1e-6)
    assert all(x.stride(-3) >= x.shape[-2] * x.shape[-1] for pair in seen for x in pair)
    assert layers.misreads_overlaps(torch.device("mps"))


def test_devices_that_materialise_scores(monkeypatch):
    kinds = ("cpu", "cuda", "xpu", "mps")
    assert [layers.materialises_scores(torch.device(kind)) for kind in kinds] == [False, False, True, True]
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert [layers.materialises_scores(torch.device(kind)) for kind in kinds] == [False, True, True, True]


def test_rotary_positions_rotate_pairs_across_the_halves():
    x, theta = draw(1, 3, 7, 10), 1_000_000.0
    frequencies = theta ** (-torch.arange(5, dtype=torch.float64) / 5)
    rotated = torch.complex(*x.double().chunk(2, dim=-1)) * torch.polar(
        torch.ones(7, 5, dtype=torch.float64), torch.outer(torch.arange(7, dtype=torch.float64), frequencies)
    )
    expected = torch.cat((rotated.real, rotated.imag), dim=-1)
    assert relative_error(layers.rotate(x, layers.rotary_tables(7, 10, theta, x)), expected) < 1e-6


def test_rotary_tables_are_computed_in_float32():
    cos, _ = layers.rotary_tables(7500, 4, 1_000_000.0, torch.empty(0, dtype=torch.bfloat16))
    assert cos.dtype == torch.bfloat16
    assert torch.equal(cos[:, 0], torch.arange(7500.0).cos().bfloat16())


def test_rms_norm():
    norm, x = layers.RMSNorm(6, 1e-6), draw(2, 5, 6)
    with torch.no_grad():
        norm.weight.copy_(draw(6, seed=1))
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
    assert torch.allclose(norm(x), expected, atol=1e-6)
    shift, scale = draw(2, 1, 6, seed=2), draw(2, 1, 6, seed=3)
    modulated = norm.modulated(x, shift, norm.weight * (1 + scale))
    assert torch.allclose(modulated, expected * (1 + scale) + shift, atol=1e-5)


def test_weights_are_cast_at_use():
    norm, linear, x = layers.RMSNorm(6, 1e-6).half(), CastLinear(6, 3).half(), draw(2, 6)
    assert norm(x).dtype == linear(x).dtype == torch.float32
    weight, bias = layers.weight_and_bias(linear, x)
    assert weight.dtype == bias.dtype == torch.float32
    assert torch.allclose(linear(x), x @ weight.T + bias, atol=1e-6)


def test_weight_and_bias_calls_the_layers_own_method():
    class HostLinear(torch.nn.Linear):
        def weight_and_bias(self, like):
            return self.weight + 1, None

    layer = HostLinear(2, 2)
    weight, bias = layers.weight_and_bias(layer, draw(1))
    assert torch.equal(weight, layer.weight + 1) and bias is None
