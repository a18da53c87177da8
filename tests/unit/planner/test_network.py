from dataclasses import replace
from weakref import ref

import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from acestep_core.planner.network import CACHE_GROWTH, PlannerNetwork, planner_bytes
from tests.support import tiny_planner
from tests.support.tiny import relative_error

CPU = torch.device("cpu")
CONFIG = replace(tiny_planner.CONFIG, vocab_size=500, audio_base=190)


def theirs(network: PlannerNetwork) -> Qwen3ForCausalLM:
    """Return transformers' network with our weights."""
    config = network.config
    peer = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            rope_theta=config.rope_theta,
            rms_norm_eps=config.rms_norm_eps,
            tie_word_embeddings=True,
        )
    ).eval()
    peer.model.load_state_dict(network.state_dict())
    peer.tie_weights()
    return peer


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def run(network: PlannerNetwork, tokens: torch.Tensor, cache=None, start: int = 0) -> torch.Tensor:
    rows, new = tokens.shape
    cache = network.cache(rows, 64, CPU) if cache is None else cache
    return network(tokens, torch.full((rows,), start), cache, start + new)


@pytest.mark.parametrize("heads", [(4, 2), (4, 4), (6, 1)])
def test_logits_equal_transformers(heads):
    config = replace(CONFIG, num_attention_heads=heads[0], num_key_value_heads=heads[1])
    network = tiny_planner.network(config)
    tokens = ids(2, 23)
    got = network.logits(run(network, tokens), network.head(slice(None), CPU))
    expected = theirs(network)(tokens).logits
    assert got.dtype == torch.float32 and expected.std() > 0.5
    assert (got - expected).abs().max() <= 1e-4


def test_tensor_names_equal_the_checkpoint():
    network = tiny_planner.network(CONFIG)
    assert set(network.state_dict()) == set(theirs(network).model.state_dict())


def test_token_by_token_equals_all_at_once():
    network, tokens = tiny_planner.network(CONFIG), ids(2, 17)
    cache = network.cache(2, 17, CPU)
    steps = [run(network, tokens[:, i : i + 1], cache, i) for i in range(17)]
    assert relative_error(torch.cat(steps, dim=1), run(network, tokens)) < 1e-5


def test_rows_of_different_lengths_do_not_attend_to_each_other_or_to_padding():
    network = tiny_planner.network(CONFIG)
    cache = network.cache(2, 40, CPU)
    first = ids(2, 9)
    network(first, torch.tensor([0, 0]), cache, 9)
    # The second row has four tokens. The rest is padding, which the next tokens overwrite.
    more = ids(2, 5, seed=1)
    got = network(more, torch.tensor([9, 4]), cache, 14)
    for row, length in enumerate((9, 4)):
        alone = run(network, torch.cat((first[row, :length], more[row]))[None])
        assert relative_error(got[row], alone[0, -5:]) < 1e-5


def test_larger_extent_changes_nothing():
    network, tokens = tiny_planner.network(CONFIG), ids(1, 9)
    wide = network(tokens, torch.tensor([0]), network.cache(1, 64, CPU), 64)
    assert relative_error(wide, run(network, tokens)) < 1e-6


def test_cache_survives_growth_and_copies_of_rows():
    network, tokens = tiny_planner.network(CONFIG), ids(1, 9)
    cache = network.cache(3, 9, CPU)
    run(network, tokens, cache.rows(slice(0, 1)))
    cache.copy_rows([0, 0, 0], 9)
    cache.reserve(12)
    assert cache.capacity == 9 + CACHE_GROWTH
    more = ids(1, 3, seed=1)
    got = run(network, more.expand(3, -1), cache, 9)
    expected = run(network, torch.cat((tokens, more), dim=1))[0, -3:]
    assert all(relative_error(row, expected) < 1e-5 for row in got)


def test_part_of_the_head_gives_part_of_the_logits():
    network = tiny_planner.network(CONFIG)
    hidden = run(network, ids(2, 5))
    full = F.linear(hidden, network.embed_tokens.weight)
    part = slice(CONFIG.audio_base, CONFIG.audio_base + CONFIG.audio_codes)
    assert torch.allclose(network.logits(hidden, network.head(part, CPU)), full[..., part], atol=1e-6)


def test_head_of_layers_that_store_their_weights_elsewhere():
    class Ops:
        Linear = torch.nn.Linear

        class Embedding(torch.nn.Embedding):
            def weight_and_bias(self, like):
                return 2 * self.weight.to(like), None

    network = tiny_planner.network(CONFIG, ops=Ops)
    head = network.head(slice(3, 5), CPU)
    assert torch.equal(head, 2 * network.embed_tokens.weight[3:5])
    assert head.untyped_storage().nbytes() == head.nbytes  # the rest of the copy is gone


def test_head_shares_the_memory_of_the_table():
    network = tiny_planner.network(CONFIG)
    assert network.head(slice(3, 5), CPU).data_ptr() == network.embed_tokens.weight[3:].data_ptr()


def test_tokens_can_be_rows_of_a_table():
    network, tokens = tiny_planner.network(CONFIG), ids(1, 9) % 40
    cache, starts = network.cache(1, 9, CPU), torch.tensor([0])
    got = network(tokens, starts, cache, 9, network.head(slice(100, 140), CPU))
    assert torch.equal(got, run(network, tokens + 100))


def massive(dtype: torch.dtype) -> PlannerNetwork:
    """Return a network whose MLP exceeds float16, as in the released 1.7B planner."""
    network = tiny_planner.network(CONFIG)
    mlp = network.layers[1].mlp
    mlp.gate_proj.weight.mul_(100)
    mlp.up_proj.weight.mul_(800)
    mlp.down_proj.weight.mul_(10)
    return network.to(dtype)


def test_float16_does_not_overflow():
    tokens, reference = ids(1, 12), massive(torch.float32)
    values = {}
    mlp = reference.layers[1].mlp
    mlp.register_forward_hook(lambda layer, inputs, output: values.update(output=output))
    mlp.down_proj.register_forward_pre_hook(lambda layer, inputs: values.update(inner=inputs[0]))
    expected = run(reference, tokens)
    assert values["inner"].abs().max() > 65_504 and values["output"].abs().max() > 65_504
    got = run(massive(torch.float16), tokens)
    assert got.dtype == torch.float16 and torch.isfinite(got).all()
    assert relative_error(got.float(), expected) < 0.02


def test_bfloat16():
    network = tiny_planner.network(CONFIG).bfloat16()
    cache = network.cache(1, 8, CPU)
    assert cache.keys[0].dtype == torch.bfloat16
    assert relative_error(run(network, ids(1, 8)).float(), run(tiny_planner.network(CONFIG), ids(1, 8))) < 0.05


def test_cache_grows_layer_by_layer(monkeypatch):
    """Only one layer is held twice."""
    cache, alive = tiny_planner.network(CONFIG).cache(1, 9, CPU), []
    old, original = [ref(layer) for layer in (*cache.keys, *cache.values)], torch.nn.functional.pad

    def pad(*args):
        alive.append(sum(layer() is not None for layer in old))
        return original(*args)

    monkeypatch.setattr(torch.nn.functional, "pad", pad)
    cache.reserve(10)
    assert alive == list(range(len(old), 0, -1))


def test_planner_bytes_include_the_cache():
    cache = tiny_planner.network(CONFIG).cache(4, 100, CPU)
    cache_bytes = sum(layer.nbytes for layer in (*cache.keys, *cache.values))
    assert planner_bytes(CONFIG, 4, 100, 4) - planner_bytes(CONFIG, 4, 0, 4) == cache_bytes
    assert planner_bytes(CONFIG, 4, 0, 4) > 4 * 4 * CONFIG.vocab_size
    # One matrix at a time is dequantised.
    largest = CONFIG.hidden_size * CONFIG.intermediate_size * 2
    assert planner_bytes(CONFIG, 4, 9, 2, quantized=True) == planner_bytes(CONFIG, 4, 9, 2) + largest
    # 112 KiB a token and row at 0.6B and 1.7B, 144 KiB at 4B.
    released = tiny_planner.PlannerConfig()
    assert planner_bytes(released, 2, 1001, 2) - planner_bytes(released, 2, 1000, 2) == 2 * 112 * 1024
    four = replace(released, num_hidden_layers=36, num_attention_heads=32)
    assert planner_bytes(four, 1, 1001, 2) - planner_bytes(four, 1, 1000, 2) == 144 * 1024
