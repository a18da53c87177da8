import pytest
import torch

from acestep_core.models.layers import attend
from acestep_core.planner import split_attention
from acestep_core.planner.decode_batch import CodeRow
from acestep_core.planner.decoding import generate_tokens
from acestep_core.planner.load_planner import Planner
from acestep_core.planner.split_attention import CHUNK, ENOUGH_BLOCKS, LONG, attend_split, key_chunks, split_bias
from acestep_core.planner.token_sampling import TokenSampling
from acestep_core.runtime.placement import Resident
from tests.support import tiny_planner, tiny_text
from tests.support.simulated_cuda import simulated_cuda
from tests.support.tiny import draw, relative_error

tiny_tokenizer_dir, vocabulary = tiny_text.tiny_tokenizer_dir, tiny_planner.vocabulary
CUDA = torch.device("cuda")


def attend_chunks(q, k, v, bias):
    """Stand in for the kernel of a GPU, with its padded logarithms."""
    scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias).float()
    return (scores.softmax(-1) @ v.float()).to(q.dtype), scores.logsumexp(-1)


@pytest.mark.parametrize("lengths", [(700,), (1024,), (1, 700), (256, 257), (513, 1024)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_split_equals_whole(monkeypatch, lengths, dtype):
    """Rows of different lengths, chunks without any visible key, and a cache that is longer than its extent."""
    monkeypatch.setattr(split_attention, "attend_chunks", attend_chunks)
    rows, heads, groups, width, extent = len(lengths), 2, 3, 16, 1024
    q = 3 * draw(rows, heads, groups, 1, width).to(dtype)
    k, v = (draw(rows, heads, extent + 20, width, seed=i).to(dtype)[:, :, :extent] for i in (1, 2))
    future = torch.arange(extent) >= torch.tensor(lengths)[:, None]
    got = attend_split(q, k, v, split_bias(future, heads, groups, 4, dtype))
    mask = torch.zeros(future.shape).masked_fill(future, float("-inf"))[:, None, None]
    expected = attend(q.float(), k.float(), v.float(), mask)
    assert got.dtype == dtype and got.shape == q.shape
    assert relative_error(got.float(), expected) < (1e-5 if dtype == torch.float32 else 0.02)


def test_codes_are_those_of_whole_attention(vocabulary, monkeypatch):
    """In a captured step, whose lengths change."""
    splits = []
    monkeypatch.setattr(
        split_attention, "attend_chunks", lambda *args: splits.append(args[1].shape[1]) or attend_chunks(*args)
    )
    monkeypatch.setattr(split_attention, "CHUNK", 64)
    monkeypatch.setattr(split_attention, "LONG", 128)
    network = tiny_planner.network(tiny_planner.config_of(vocabulary))
    rows = [CodeRow(list(range(1, 60 + seed)), seed, 12, [1, 2, 3]) for seed in (1, 2)]
    sampling = TokenSampling(temperature=0.85, top_p=0.9, guidance=2.0)
    expected = generate_tokens(Planner(network, vocabulary), rows, sampling, "codes")
    assert not splits
    with simulated_cuda() as device:
        planner = Planner(network.to(device), vocabulary, Resident(device))
        assert generate_tokens(planner, rows, sampling, "codes") == expected
    assert set(splits) == {4}


def test_keys_and_values_are_not_copied(monkeypatch):
    seen = []
    monkeypatch.setattr(
        split_attention, "attend_chunks", lambda q, k, v, bias: seen.extend((k, v)) or attend_chunks(q, k, v, bias)
    )
    cache = [draw(2, 2, 600, 8, seed=i) for i in (1, 2)]
    future = torch.zeros(2, 512, dtype=torch.bool)
    attend_split(draw(2, 2, 1, 1, 8), *(x[:, :, :512] for x in cache), split_bias(future, 2, 1, 2, torch.float32))
    assert [x.data_ptr() for x in seen] == [x.data_ptr() for x in cache]


def test_call_of_the_kernel():
    """Meta tensors check the arguments and the shapes of the results, but compute nothing."""
    q, k, bias = (torch.empty(4, 3, *shape, device="meta") for shape in ((2, 64), (CHUNK, 64), (2, CHUNK)))
    outputs, logarithms = split_attention.attend_chunks(q, k, k, bias)
    assert (*outputs.shape,) == (4, 3, 2, 64) and (*logarithms.shape,) == (4, 3, 2)


def test_only_long_caches_of_few_rows_are_split(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    assert key_chunks(CUDA, 16, LONG) == LONG // CHUNK
    assert key_chunks(CUDA, 16, LONG - CHUNK) == key_chunks(CUDA, 16, LONG + 1) == 1
    assert key_chunks(CUDA, ENOUGH_BLOCKS, LONG) == key_chunks(torch.device("cpu"), 16, LONG) == 1
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert key_chunks(CUDA, 16, LONG) == 1
