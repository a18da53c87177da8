"""Tests with Qwen's real vocabulary, which is part of ComfyUI, and a tiny one of the same kind."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, Qwen2Tokenizer

from acestep_core.edit.tasks import COVER, TEXT2MUSIC
from acestep_core.errors import CheckpointError
from acestep_core.song.song import Metadata, Song
from acestep_core.text.prompts import Prompt, caption_prompt, lyric_prompt
from acestep_core.text.tokenizer import Tokenizer
from tests.support import qwen, tiny_text

qwen_tokenizer_dir = qwen.qwen_tokenizer_dir
tiny_tokenizer_dir = tiny_text.tiny_tokenizer_dir

END = 151643


@pytest.fixture(scope="module")
def tokenizer(qwen_tokenizer_dir: Path) -> Tokenizer:
    return Tokenizer.from_folder(qwen_tokenizer_dir)


@pytest.fixture(scope="module")
def reference(qwen_tokenizer_dir: Path):
    return Qwen2Tokenizer.from_pretrained(qwen_tokenizer_dir)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("0123456789", range(15, 25)),
        (" ", [220]),
        ("\n", [198]),
        ("\n\n", [271]),
        (".\n", [624]),
        ("system\n", [8948, 198]),
        ("user\n", [872, 198]),
        ("assistant\n", [77091, 198]),
        ("# Instruction\n", [2, 29051, 198]),
        ("NO USER INPUT", [8996, 13872, 26149]),
        ("bpm:", [65, 5187, 25]),
        ("caption:", [23347, 25]),
        ("duration:", [17021, 25]),
        ("genres:", [63911, 25]),
        ("keyscale:", [10563, 2246, 25]),
        ("language:", [11528, 25]),
        ("timesignature:", [15136, 622, 1568, 25]),
        (" 120\n", [220, 16, 17, 15, 198]),
        (" F# minor\n", [434, 2, 8922, 198]),
        (" Eb major\n", [25570, 3598, 198]),
        (" E♭ major\n", [468, 145761, 3598, 198]),
        (" en\n", [662, 198]),
        (" unknown\n", [9788, 198]),
        (" yue\n", [379, 361, 198]),
        ("", []),
    ],
)
def test_known_ids(tokenizer, text, ids):
    assert tokenizer.encode(text) == list(ids)
    assert tokenizer.decode(list(ids)) == text


def test_caption_prompt_ids(tokenizer):
    # fmt: off
    assert tokenizer.encode_prompt(caption_prompt(Song("x"), TEXT2MUSIC)) == ([
        2, 29051, 198, 14449, 279, 7699, 41733, 6911, 3118, 389, 279, 2661, 4682, 1447,
        2, 37600, 198, 87, 271, 2, 6212, 300, 198,
        12, 97724, 25, 451, 10360, 198, 12, 3039, 622, 1568, 25, 451, 10360, 198,
        12, 6894, 2246, 25, 451, 10360, 198, 12, 8090, 25, 220, 18, 15, 6486, 198, END, 198, END,
    ], None)
    # fmt: on


def test_lyric_prompt_ids(tokenizer):
    ids = [2, 54964, 198, 16088, 271, 2, 15953, 2216, 198, 58, 56324, 278, 60, END, END]
    assert tokenizer.encode_prompt(lyric_prompt(Song("x"))) == (ids, None)


def test_end_token_comes_from_the_files(tokenizer, tiny_tokenizer_dir):
    assert (tokenizer.end_id, tokenizer.largest_id) == (END, END)
    tiny = Tokenizer.from_folder(tiny_tokenizer_dir)
    assert tiny.end_id == len(json.loads((tiny_tokenizer_dir / "vocab.json").read_text(encoding="utf-8")))


# Scripts, decomposed letters, joined emoji and spaces that `text()` alone seldom draws.
ALPHABET = "aé\u0301\u0308ñ sS'0٣½.,[]#<|>_-\n\r\t\u00a0\u3000\u200d♯♭日本語한국어ไทยहिंदीالعربية👩🎤"
# Without control tokens, which are text for us alone. Hypothesis takes them from the constants of the code.
UNICODE = (st.text() | st.text(alphabet=ALPHABET, max_size=60)).filter(lambda text: not re.search(r"<.*>", text))


@settings(max_examples=300, deadline=None)
@given(text=UNICODE)
def test_text_has_the_ids_of_transformers(tokenizer, reference, text):
    assert tokenizer.encode(text) == reference(text, add_special_tokens=False).input_ids


@settings(max_examples=100, deadline=None)
@given(caption=UNICODE, lyrics=UNICODE)
def test_prompts_have_the_ids_of_transformers(tokenizer, reference, caption, lyrics):
    for prompt in (caption_prompt(Song(caption), COVER), lyric_prompt(Song("", lyrics))):
        ids, cut = tokenizer.encode_prompt(replace(prompt, limit=10_000))
        assert ids == [*reference(prompt.text, add_special_tokens=False).input_ids, END]
        assert cut is None


CONTROL_TEXT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "<|audio_code_7|>"]


@settings(max_examples=100, deadline=None)
@given(text=st.lists(st.sampled_from(CONTROL_TEXT) | st.text(max_size=5), min_size=1).map("".join))
def test_text_that_spells_a_control_token_is_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert all(i < END for i in ids)
    lyric_ids, _ = tokenizer.encode_prompt(lyric_prompt(Song("x", text + "x")))
    assert [i for i in lyric_ids if i >= END] == [END, END]
    caption_ids, _ = tokenizer.encode_prompt(replace(caption_prompt(Song(text), TEXT2MUSIC), limit=10_000))
    assert [i for i in caption_ids if i >= END] == [END, END]
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


def test_every_control_token_of_the_files_is_text_in_a_caption(tokenizer, tiny_tokenizer_dir):
    assert len(tokenizer.control_ids) == 26
    for name in tokenizer.control_ids:
        ids = tokenizer.encode(f"a{name}b {name}")
        assert max(ids) < END
        assert tokenizer.decode(ids) == f"a{name}b {name}"
    tiny = Tokenizer.from_folder(tiny_tokenizer_dir)
    for name in tiny.control_ids:
        assert max(tiny.encode(name)) < min(tiny.control_ids.values())


def test_transformers_would_have_taken_it_for_a_control_token(reference):
    assert reference("<|im_end|>", add_special_tokens=False).input_ids == [151645]


def prompt(content: str, limit: int = 1000) -> Prompt:
    return Prompt(head="# Lyric\n", content=content, tail="\nend\n", after="\n", limit=limit)


def test_truncation_keeps_the_last_end_token(tokenizer):
    whole, cut = tokenizer.encode_prompt(prompt("one two three four"))
    assert cut is None
    body = len(whole) - 3  # end token, newline, end token
    assert whole[body:] == [END, 198, END]
    for limit in range(2, len(whole) + 3):
        ids, cut = tokenizer.encode_prompt(prompt("one two three four", limit))
        assert ids == ([*whole[: limit - 1], END] if limit < len(whole) else whole)
        # Losing only the end of the template is no truncation of the text.
        assert (cut is None) == (limit - 1 >= body)
        if cut is not None:
            assert (cut.tokens, cut.remaining, cut.head_tokens) == (body, limit - 1, len(tokenizer.encode("# Lyric\n")))


@pytest.mark.parametrize(
    "content",
    [
        "one two three four",
        "e\u0301 e\u0301 e\u0301",
        "\U0001f469\u200d\U0001f3a4 \U0001f3a4",
        "\n\n\none",
        "日本語の歌",
    ],
)
def test_a_truncation_is_counted_in_characters_of_the_text(tokenizer, content):
    for limit in range(2, len(tokenizer.encode(prompt(content).body)) + 1):
        ids, cut = tokenizer.encode_prompt(prompt(content, limit))
        remaining = unicodedata.normalize("NFD", prompt(content, limit).body[: cut.position])
        decoded = unicodedata.normalize("NFD", tokenizer.decode(ids[:-1]).rstrip("\ufffd"))
        # A character with some of its bytes counts as whole; a mark composed into its letter does not count.
        assert remaining.startswith(decoded) or decoded.startswith(remaining)
        assert abs(len(remaining) - len(decoded)) <= 1


def test_trained_limits(tokenizer):
    song = Song("piano " * 400, "la " * 3000, Metadata(language="en"))
    assert len(tokenizer.encode_prompt(caption_prompt(song, TEXT2MUSIC))[0]) == 256
    assert len(tokenizer.encode_prompt(lyric_prompt(song))[0]) == 2048


def test_both_file_layouts_give_the_same_tokenizer(tiny_tokenizer_dir, tmp_path):
    for file in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(tiny_tokenizer_dir / file, tmp_path)
    new, old = Tokenizer.from_folder(tiny_tokenizer_dir), Tokenizer.from_folder(tmp_path)
    assert old.control_ids == new.control_ids
    assert old.largest_id == new.largest_id
    reference = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    for text in (*tiny_text.WORDS, " warm  lo-fi,\n\npiano's 120 cafe\u0301", "日本語 👩‍🎤"):
        assert old.encode(text) == new.encode(text) == reference(text, add_special_tokens=False).input_ids


def test_the_end_token_may_be_in_added_tokens(tiny_tokenizer_dir, tmp_path):
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(tiny_tokenizer_dir / file, tmp_path)
    with pytest.raises(CheckpointError, match="endoftext"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<|endoftext|>": 999}')
    assert Tokenizer.from_folder(tmp_path).end_id == 999


def test_merges_may_be_strings_as_in_older_files(tiny_tokenizer_dir, tmp_path):
    content = json.loads((tiny_tokenizer_dir / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    text = " ".join(tiny_text.WORDS)
    assert Tokenizer.from_folder(tmp_path).encode(text) == Tokenizer.from_folder(tiny_tokenizer_dir).encode(text)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no tokenizer"),
        ({"vocab.json": "{}"}, "no tokenizer"),
        ({"tokenizer.json": "{"}, "tokenizer.json cannot be read"),
        ({"tokenizer.json": "[]"}, "should hold a JSON object"),
        ({"tokenizer.json": '{"model": {"type": "Unigram"}}'}, "Unigram"),
        (
            {"tokenizer.json": '{"model": {"type": "BPE", "vocab": 3, "merges": []}, "added_tokens": []}'},
            "vocabulary",
        ),
        ({"vocab.json": "{", "merges.txt": ""}, "vocab.json cannot be read"),
        ({"vocab.json": "{}", "merges.txt": ""}, "lacks a byte"),
    ],
)
def test_invalid_folders(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        Tokenizer.from_folder(tmp_path)
