from dataclasses import replace

import pytest
import torch

from acestep_core.config import ModelConfig, VAEConfig
from acestep_core.models.model import AceStepModel
from acestep_core.models.oobleck import OobleckVAE
from tests.support import tiny

RELEASED = ModelConfig()
XL = replace(
    RELEASED,
    hidden_size=2560,
    intermediate_size=9728,
    num_hidden_layers=32,
    num_attention_heads=32,
    model_version="xl-turbo",
)


@pytest.mark.parametrize(
    ("config", "tensors", "decoder", "billions"), [(RELEASED, 677, 476, 2.394), (XL, 829, 628, 4.987)]
)
def test_released_sizes(config, tensors, decoder, billions):
    model = AceStepModel(config, device="meta")
    state = model.state_dict()
    parts = [sum(name.startswith(part + ".") for name in state) for part in ("encoder", "tokenizer", "detokenizer")]
    assert len(state) == tensors
    assert sum(name.startswith("decoder.") for name in state) == decoder == 19 * config.num_hidden_layers + 20
    assert parts == [140, 32, 28]
    assert round(sum(tensor.numel() for tensor in state.values()) / 1e9, 3) == billions


def test_released_autoencoder():
    state = OobleckVAE(VAEConfig(), device="meta").state_dict()
    # Each side: 37 convolutions (31 of them in residual units and blocks) and 36 snakes of two tensors.
    assert len(state) == 2 * (37 * 2 + 36 * 2) - 1
    assert state["decoder.conv2.weight"].shape == (2, 128, 7) and "decoder.conv2.bias" not in state
    assert state["decoder.block.1.conv_t1.weight"].shape == (1024, 512, 12)
    assert state["encoder.conv2.weight"].shape == (128, 2048, 3)
    assert state["encoder.block.4.res_unit3.snake2.alpha"].shape == (1, 1024, 1)


def test_all_tensors_have_the_requested_dtype():
    model = AceStepModel(tiny.STANDARD, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    assert model.decoder.dtype == model.encoder.dtype == torch.bfloat16


def test_silence_repeats_its_last_frame():
    model = tiny.model()
    stored = model.silence_latent
    assert torch.equal(model.silence(7), stored[:, :7])
    longer = model.silence(stored.shape[1] + 3)
    assert torch.equal(longer[:, :-3], stored)
    assert torch.equal(longer[:, -3:], stored[:, -1:].expand(-1, 3, -1))


def test_silence_is_not_in_the_state_dict():
    assert "silence_latent" not in tiny.model().state_dict()
