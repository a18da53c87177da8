from __future__ import annotations

import logging
import re
import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from transformers import Qwen3Model

from acestep_core.config import TextEncoderConfig
from acestep_core.edit.tasks import COVER, TEXT2MUSIC
from acestep_core.errors import AceStepError, CheckpointError, NonFiniteError
from acestep_core.song.song import Metadata, Song
from acestep_core.text.encoder import TextEncoder, build_qwen3, materialise_buffers
from acestep_core.text.prompts import STEMS, caption_prompt, lyric_prompt
from acestep_core.text.tokenizer import Tokenizer
from tests.support import tiny_text

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder

SONG = Song("warm piano", "[Verse]\nslow river\n", Metadata(bpm=90, language="en"))
SMALL = TextEncoderConfig(
    vocab_size=400,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
)


def test_states_of_a_song(tiny_encoder):
    condition = tiny_encoder.encode(SONG)
    caption, lyrics = caption_prompt(SONG, TEXT2MUSIC), lyric_prompt(SONG)
    caption_ids, lyric_ids = (torch.tensor([tiny_encoder.tokenizer.encode_prompt(p)[0]]) for p in (caption, lyrics))
    assert (condition.caption_prompt, condition.lyric_prompt) == (caption.text, lyrics.text)
    assert condition.caption.shape == (1, caption_ids.shape[1], 32)
    assert torch.equal(condition.lyrics, tiny_encoder.module.embed_tokens.weight[lyric_ids])
    assert torch.equal(condition.caption, tiny_encoder.module(input_ids=caption_ids).last_hidden_state)
    assert condition.warnings == ()
    assert not condition.caption.requires_grad


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        (Song("cold piano", SONG.lyrics, SONG.metadata), "caption"),
        (Song("warm piano", SONG.lyrics, Metadata(bpm=91, language="en")), "caption"),
        (Song("warm piano", SONG.lyrics, Metadata(bpm=90, language="en", key="A minor")), "caption"),
        (Song("warm piano", "slow river", SONG.metadata), "lyrics"),
        (Song("warm piano", SONG.lyrics, Metadata(bpm=90, language="fr")), "lyrics"),
        (Song("warm piano", "", SONG.metadata), "lyrics"),
    ],
)
def test_every_input_changes_only_its_own_output(tiny_encoder, changed, part):
    one, other = tiny_encoder.encode(SONG), tiny_encoder.encode(changed)
    for name in ("caption", "lyrics"):
        assert torch.equal(getattr(one, name), getattr(other, name)) == (name != part)


def test_the_task_changes_the_caption(tiny_encoder):
    assert not torch.equal(tiny_encoder.encode(SONG).caption, tiny_encoder.encode(SONG, COVER).caption)


def test_an_edit_is_also_encoded_as_text2music(tiny_encoder):
    plain, cover = tiny_encoder.encode(SONG), tiny_encoder.encode(SONG, COVER, STEMS)
    assert plain.text_only is None and torch.equal(cover.text_only, plain.caption)


def test_a_warning_quotes_the_end_of_truncated_lyrics(tiny_encoder, caplog):
    lines = [f"[Verse]\nnight {n}, slow river" for n in range(300)]
    song = Song("warm", "\n".join(lines), Metadata(language="en"))
    with caplog.at_level(logging.WARNING, "acestep"):
        condition = tiny_encoder.encode(song)
    (warning,) = condition.warnings
    assert [record.getMessage() for record in caplog.records] == [warning]
    assert condition.lyrics.shape[1] == 2048
    quoted, line = re.search(r"'…(.*)' .line (\d+)", warning).groups()
    assert quoted.split()[-1] in song.lyrics.split("\n")[int(line) - 1]
    encode = tiny_encoder.tokenizer.encode
    tokens = len(encode(condition.lyric_prompt.removesuffix("<|endoftext|>")))
    head = len(encode("# Languages\nen\n\n# Lyric\n"))
    assert f"lyrics: {tokens - head} tokens" in warning and f"first {2047 - head} are used" in warning


def test_a_warning_for_a_truncated_caption(tiny_encoder):
    (warning,) = tiny_encoder.encode(Song("warm piano " * 200)).warnings
    assert "text after '…" in warning and "metadata" in warning
    assert tiny_encoder.encode(Song("warm piano " * 200)).caption.shape[1] == 256
    free = 255 - len(tiny_encoder.tokenizer.encode(caption_prompt(Song(""), TEXT2MUSIC).body))
    (warning,) = tiny_encoder.encode(Song("." + " warm" * (free + 5))).warnings
    assert "metadata" in warning and "text after" not in warning


def test_a_short_song_gives_a_warning(tiny_encoder):
    (warning,) = tiny_encoder.encode(Song("warm", metadata=Metadata(duration=4))).warnings
    assert "duration of 4 s" in warning


def test_states_have_the_dtype_of_the_model(tiny_tokenizer_dir):
    module = tiny_text.random_weights(build_qwen3(SMALL, "cpu", torch.bfloat16))
    condition = TextEncoder(module, Tokenizer.from_folder(tiny_tokenizer_dir)).encode(SONG)
    assert condition.caption.dtype == condition.lyrics.dtype == torch.bfloat16
    assert module.rotary_emb.inv_freq.dtype == torch.float32


def test_overflow_is_an_error(tiny_tokenizer_dir):
    module = tiny_text.random_weights(build_qwen3(SMALL, "cpu"))
    module.layers[0].mlp.up_proj.weight.data.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="text encoder .*float32"):
        TextEncoder(module, Tokenizer.from_folder(tiny_tokenizer_dir)).encode(SONG)


def test_a_tokenizer_of_another_model_is_an_error(tiny_tokenizer_dir):
    module = build_qwen3(TextEncoderConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1))
    with pytest.raises(CheckpointError, match="tokenizer .* 10 embeddings"):
        TextEncoder(module, Tokenizer.from_folder(tiny_tokenizer_dir))


def test_released_dimensions_on_the_meta_device():
    model = build_qwen3(TextEncoderConfig())
    state = model.state_dict()
    assert len(state) == 310 == 28 * 11 + 2
    assert state["embed_tokens.weight"].shape == (151_669, 1024)
    assert state["layers.27.self_attn.k_norm.weight"].shape == (128,)
    assert {tensor.device.type for tensor in state.values()} == {"meta"}
    assert model.config._attn_implementation == "sdpa"


def test_weights_are_assigned_to_a_meta_model(tiny_encoder):
    """Load like a checkpoint: build on meta, assign weights, compute buffers."""
    model = build_qwen3(tiny_text.CONFIG)
    model.load_state_dict(tiny_encoder.module.state_dict(), assign=True)
    materialise_buffers(model, "cpu")
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    loaded = TextEncoder(model, tiny_encoder.tokenizer)
    assert torch.equal(loaded.encode(SONG).caption, tiny_encoder.encode(SONG).caption)


@pytest.mark.parametrize("theta", [1_000_000.0, 5_000.0])
def test_rotary_frequencies_equal_those_of_transformers(theta):
    ours = build_qwen3(replace(SMALL, rope_theta=theta), "cpu")
    theirs = Qwen3Model(ours.config)
    assert torch.equal(ours.rotary_emb.inv_freq, theirs.rotary_emb.inv_freq)
    assert torch.equal(ours.rotary_emb.original_inv_freq, theirs.rotary_emb.original_inv_freq)


def test_a_transformers_without_qwen3_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    with pytest.raises(AceStepError, match="transformers 4.51"):
        build_qwen3(SMALL)
