from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from transformers import AutoTokenizer

from tests.support import tiny_text
from training.nano_tokenizer import CONTROL_TOKENS, train_nano_tokenizer

FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


def test_files_are_deterministic(tmp_path: Path):
    train_nano_tokenizer(tiny_text.sentences(), tmp_path / "first", vocab_size=400)
    code = (
        "import sys; from tests.support.tiny_text import sentences;"
        "from training.nano_tokenizer import train_nano_tokenizer;"
        "train_nano_tokenizer(sentences(), sys.argv[1], vocab_size=400)"
    )
    repo = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "second")], check=True, cwd=repo)
    for file in FILES:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_layout_is_that_of_qwen(tmp_path: Path):
    size = train_nano_tokenizer(tiny_text.sentences(), tmp_path, vocab_size=300)
    vocab = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert size == 300 == len(vocab) + len(CONTROL_TOKENS)
    assert not set(CONTROL_TOKENS) & set(vocab)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    end = len(vocab)
    assert tokenizer.convert_tokens_to_ids(list(CONTROL_TOKENS)) == list(range(end, size))
    assert tokenizer("night").input_ids[-1] == end  # the post-processor's end token
    assert tokenizer("night<|endoftext|>\n").input_ids[-3:] == [end, vocab["Ċ"], end]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.padding_side) == (end, end, "right")


def test_any_text_round_trips(tmp_path: Path):
    train_nano_tokenizer(tiny_text.sentences(), tmp_path, vocab_size=300)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "Grüße, 世界 \U0001f469\u200d\U0001f3a4\n\t120 bpm\x00"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_few_texts_give_a_smaller_vocabulary(tmp_path: Path):
    assert train_nano_tokenizer(["ab ab"], tmp_path) < 2048
