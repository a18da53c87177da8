from __future__ import annotations

import logging
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
from acestep_core.text.prompts import COMFYUI, caption_prompt, lyric_prompt
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
def test_every_input_reaches_its_output_only(tiny_encoder, changed, part):
    one, other = tiny_encoder.encode(SONG), tiny_encoder.encode(changed)
    for name in ("caption", "lyrics"):
        assert torch.equal(getattr(one, name), getattr(other, name)) == (name != part)


def test_the_task_reaches_the_caption(tiny_encoder):
    assert not torch.equal(tiny_encoder.encode(SONG).caption, tiny_encoder.encode(SONG, COVER).caption)


def test_comfyui_does_not_attend_from_the_end_token_on(tiny_encoder):
    song = Song("warm piano", "la", Metadata(duration=20))
    comfyui, original = tiny_encoder.encode(song, COVER, COMFYUI), tiny_encoder.encode(song, COVER)
    assert comfyui.caption_prompt == original.caption_prompt
    differ = (comfyui.caption - original.caption).abs().amax(dim=(0, 2)) > 1e-4
    assert differ.tolist() == [False] * (len(differ) - 3) + [True] * 3
    # What is not attended makes no difference: those states are the last ones of shorter prompts.
    ids = tiny_encoder.tokenizer.encode_prompt(caption_prompt(song, COVER))[0]
    mask = torch.ones(1, len(ids), len(ids), dtype=torch.bool).tril()
    mask[..., -3:] = False
    expected = tiny_encoder.module(input_ids=torch.tensor([ids]), attention_mask=mask[:, None]).last_hidden_state
    torch.testing.assert_close(comfyui.caption, expected, atol=1e-5, rtol=1e-5)


def test_where_lyrics_were_cut(tiny_encoder, caplog):
    lines = [f"[Verse]\nnight {n}, slow river" for n in range(300)]
    song = Song("warm", "\n".join(lines), Metadata(language="en"))
    with caplog.at_level(logging.WARNING, "acestep"):
        condition = tiny_encoder.encode(song)
    (warning,) = condition.warnings
    assert [record.getMessage() for record in caplog.records] == [warning]
    assert condition.lyrics.shape[1] == 2048
    # Check the sentence by what it says: the named line of the lyrics holds the last of the quoted words.
    quoted, line = warning.split("they are cut after '…", 1)[1].split("' (line ", 1)
    last_word = quoted.split()[-1]
    assert last_word in song.lyrics.split("\n")[int(line.split(")")[0]) - 1]
    encode = tiny_encoder.tokenizer.encode
    tokens = len(encode(condition.lyric_prompt.removesuffix("<|endoftext|>")))
    head = len(encode("# Languages\nen\n\n# Lyric\n"))
    assert f"the lyrics are {tokens - head} tokens long and only the first {2047 - head} are sung" in warning


def test_where_a_caption_was_cut(tiny_encoder):
    (warning,) = tiny_encoder.encode(Song("warm piano " * 200)).warnings
    assert "it is cut after '…" in warning and "no metadata (BPM, time signature, key, duration) is read" in warning
    assert tiny_encoder.encode(Song("warm piano " * 200)).caption.shape[1] == 256
    room = 255 - len(tiny_encoder.tokenizer.encode(caption_prompt(Song(""), TEXT2MUSIC).body))
    (warning,) = tiny_encoder.encode(Song("." + " warm" * (room + 5))).warnings
    assert "the metadata (BPM, time signature, key, duration) is not read to its end" in warning


def test_a_short_song_is_a_warning(tiny_encoder):
    (warning,) = tiny_encoder.encode(Song("warm", metadata=Metadata(duration=4))).warnings
    assert warning.startswith("a duration of 4 s is shorter than any song")


def test_states_are_in_the_dtype_of_the_model(tiny_tokenizer_dir):
    module = tiny_text.random_weights(build_qwen3(SMALL, "cpu", torch.bfloat16))
    condition = TextEncoder(module, Tokenizer.from_folder(tiny_tokenizer_dir)).encode(SONG)
    assert condition.caption.dtype == condition.lyrics.dtype == torch.bfloat16
    assert module.rotary_emb.inv_freq.dtype == torch.float32


def test_overflow_is_an_error(tiny_tokenizer_dir):
    module = tiny_text.random_weights(build_qwen3(SMALL, "cpu"))
    module.layers[0].mlp.up_proj.weight.data.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="the text encoder produced NaN or infinity in torch.float32"):
        TextEncoder(module, Tokenizer.from_folder(tiny_tokenizer_dir)).encode(SONG)


def test_a_tokenizer_of_another_model_is_an_error(tiny_tokenizer_dir):
    module = build_qwen3(TextEncoderConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1))
    with pytest.raises(CheckpointError, match="tokenizer has ids up to .*, the text encoder has 10 embeddings"):
        TextEncoder(module, Tokenizer.from_folder(tiny_tokenizer_dir))


def test_released_dimensions_on_the_meta_device():
    model = build_qwen3(TextEncoderConfig())
    state = model.state_dict()
    assert len(state) == 310 == 28 * 11 + 2
    assert state["embed_tokens.weight"].shape == (151_669, 1024)
    assert state["layers.27.self_attn.k_norm.weight"].shape == (128,)
    assert {tensor.device.type for tensor in state.values()} == {"meta"}
    assert model.config._attn_implementation == "sdpa"


def test_weights_assigned_on_meta_are_the_model(tiny_encoder):
    """How a checkpoint is loaded: built on meta, weights assigned, buffers computed."""
    model = build_qwen3(tiny_text.CONFIG)
    model.load_state_dict(tiny_encoder.module.state_dict(), assign=True)
    materialise_buffers(model, "cpu")
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    loaded = TextEncoder(model, tiny_encoder.tokenizer)
    assert torch.equal(loaded.encode(SONG).caption, tiny_encoder.encode(SONG).caption)


@pytest.mark.parametrize("theta", [1_000_000.0, 5_000.0])
def test_rotary_frequencies_are_those_of_transformers(theta):
    ours = build_qwen3(replace(SMALL, rope_theta=theta), "cpu")
    theirs = Qwen3Model(ours.config)
    assert torch.equal(ours.rotary_emb.inv_freq, theirs.rotary_emb.inv_freq)
    assert torch.equal(ours.rotary_emb.original_inv_freq, theirs.rotary_emb.original_inv_freq)


def test_a_transformers_without_qwen3_is_told_in_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    with pytest.raises(AceStepError, match="needs transformers 4.51 or newer, with its Qwen3 model"):
        build_qwen3(SMALL)
