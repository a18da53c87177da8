"""The real 2B and XL networks and the real VAE have exactly the tensors that the published tables list."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest

from acestep_core.config import ModelConfig, VAEConfig
from acestep_core.models.model import AceStepModel
from acestep_core.models.oobleck import OobleckVAE
from tests.support import manifest

TWO_B = ModelConfig()
XL = replace(TWO_B, hidden_size=2560, intermediate_size=9728, num_hidden_layers=32, num_attention_heads=32)


def shapes(module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(
    ("config", "sizes", "count", "billions"),
    [(TWO_B, manifest.TWO_B, 677, 2.394), (XL, manifest.XL, 829, 4.987)],
    ids=["2B", "XL"],
)
def test_network_equals_the_published_tables(config, sizes, count, billions):
    expected = manifest.network(sizes)
    assert len(expected) == count
    assert round(sum(map(prod, expected.values())) / 1e9, 3) == billions
    assert shapes(AceStepModel(config, device="meta")) == expected


def test_parts_have_the_published_counts():
    parts = (manifest.decoder(manifest.TWO_B), manifest.encoder(), manifest.tokenizer(), manifest.detokenizer())
    assert [len(part) for part in parts] == [476, 140, 32, 28]
    assert len(manifest.decoder(manifest.XL)) == 628


def test_vae_equals_the_published_tables():
    expected = manifest.vae()
    assert sum(name.endswith("alpha") for name in expected) == 72  # 36 snakes on each side
    assert shapes(OobleckVAE(VAEConfig(), device="meta")) == expected
