"""Tokenizer files that were damaged or made to mislead are refused with one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from acestep_core.errors import CheckpointError
from acestep_core.text.tokenizer import Tokenizer
from tests.support import tiny_text

tiny_tokenizer_dir = tiny_text.tiny_tokenizer_dir


@pytest.fixture(params=["tokenizer.json", "vocab.json"])
def files(request, tmp_path, tiny_tokenizer_dir) -> Path:
    """A tokenizer's folder, in one of its two forms."""
    folder = shutil.copytree(tiny_tokenizer_dir, tmp_path / "tokenizer")
    others = {"tokenizer.json": ["vocab.json", "merges.txt", "tokenizer_config.json"], "vocab.json": ["tokenizer.json"]}
    for name in others[request.param]:
        (folder / name).unlink()
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.from_folder(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


def change(file: Path, edit) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    edit(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def change_vocabulary(folder: Path, edit) -> None:
    if (folder / "vocab.json").is_file():
        change(folder / "vocab.json", edit)
    else:
        change(folder / "tokenizer.json", lambda content: edit(content["model"]["vocab"]))


def test_both_forms_are_the_same(files, tiny_tokenizer_dir):
    text, whole = "Slow café\n日本 123", Tokenizer.from_folder(tiny_tokenizer_dir)
    tokenizer = Tokenizer.from_folder(files)
    assert tokenizer.encode(text) == whole.encode(text) and tokenizer.control_ids == whole.control_ids
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", ["[" * 100_000, '{"model":' * 100_000, "[]", "5", "", '{"a": "\udcff"}', "9" * 5000])
def test_json_that_is_no_object(files, text):
    for file in files.glob("*.json"):
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
    refused(files)


@pytest.mark.parametrize("i", [-1, 10**6, 10**30, 3, 1.5, "7", None, [7], True])
def test_an_id_outside_of_the_table(files, i):
    """Id 3 has another token."""
    change_vocabulary(files, lambda vocab: vocab.update({sorted(vocab)[-1]: i}))
    assert "vocabulary" in (message := refused(files)) or "ids from 0" in message


@pytest.mark.parametrize("token", ["", "日本", "a b", "\n"])
def test_a_token_that_is_not_of_bytes(files, token):
    change_vocabulary(files, lambda vocab: vocab.update({token: len(vocab)}))
    assert "byte-level" in refused(files)


def test_a_vocabulary_without_a_byte(files):
    def remove(vocab):
        last = max(vocab, key=vocab.get)
        vocab[last] = vocab.pop("q")

    change_vocabulary(files, remove)
    refused(files)


@pytest.mark.parametrize(
    "merges", ["text", {"a": "b"}, [5], ["a"], ["a b c"], [["a"]], [["a", 5]], [["日", "本"]], None]
)
def test_merges_that_do_not_fit(tmp_path, tiny_tokenizer_dir, merges):
    folder = shutil.copytree(tiny_tokenizer_dir, tmp_path / "tokenizer")
    change(folder / "tokenizer.json", lambda content: content["model"].update(merges=merges))
    assert "merges" in refused(folder)


def test_a_merges_file_that_does_not_fit(tmp_path, tiny_tokenizer_dir):
    folder = shutil.copytree(tiny_tokenizer_dir, tmp_path / "tokenizer")
    (folder / "tokenizer.json").unlink()
    for content in (b"a b c\n", b"a\n", b"\xff\xfe", "日 本\n".encode()):
        (folder / "merges.txt").write_bytes(content)
        assert "merges.txt" in refused(folder)


END = "<|endoftext|>"
ODD_TOKENS = [
    (END, -1),
    (END, 5),  # the id of a byte
    (END, "1228"),
    (END, 1.5),
    (END, None),
    (END, 2**40),
    ([END], 1000),
    (5, 1000),
    (None, 1000),
]


@pytest.mark.parametrize(("name", "i"), ODD_TOKENS)
def test_an_odd_control_token(tmp_path, tiny_tokenizer_dir, name, i):
    folder = shutil.copytree(tiny_tokenizer_dir, tmp_path / "tokenizer")
    change(folder / "tokenizer.json", lambda content: content["added_tokens"][0].update(content=name, id=i))
    assert "added token" in refused(folder)
    (folder / "tokenizer.json").unlink()
    change(
        folder / "tokenizer_config.json",
        lambda content: content["added_tokens_decoder"].update({str(i): {"content": name}}),
    )
    assert "added token" in refused(folder) or i == "1228"


@pytest.mark.parametrize("tokens", [[], "text", [[5]], {"5": "text"}, {"5": ["a"]}, {"\u0661": {"content": "x"}}])
def test_added_tokens_of_another_type(tmp_path, tiny_tokenizer_dir, tokens):
    folder = shutil.copytree(tiny_tokenizer_dir, tmp_path / "tokenizer")
    change(folder / "tokenizer.json", lambda content: content.update(added_tokens=tokens))
    refused(folder)
    (folder / "tokenizer.json").unlink()
    change(folder / "tokenizer_config.json", lambda content: content.update(added_tokens_decoder=tokens))
    refused(folder)


def test_two_control_tokens_with_one_id_or_one_with_two(files):
    def twice(tokens):
        tokens.append(dict(tokens[0], content="<|other|>"))

    def two_ids(tokens):
        tokens.append(dict(tokens[0], id=900))

    if not (files / "tokenizer.json").is_file():
        (files / "added_tokens.json").write_text(json.dumps({"<|other|>": 395, END: 900}))
        assert "added token" in refused(files)
        return
    original = (files / "tokenizer.json").read_text(encoding="utf-8")
    for edit in (twice, two_ids):
        (files / "tokenizer.json").write_text(original, encoding="utf-8")
        change(files / "tokenizer.json", lambda content, edit=edit: edit(content["added_tokens"]))
        assert "added token" in refused(files)


@pytest.mark.parametrize(
    "pieces",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"normalizer": ["NFC"]},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "(a+)+$"}}]}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": [["x"]]}]}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"String": " "}}},
    ],
    ids=str,
)
def test_a_tokenizer_that_splits_text_in_another_way(tmp_path, tiny_tokenizer_dir, pieces):
    folder = shutil.copytree(tiny_tokenizer_dir, tmp_path / "tokenizer")
    change(folder / "tokenizer.json", lambda content: content.update(pieces))
    assert "Qwen" in refused(folder)


@pytest.mark.parametrize("decoder", [None, 5, {"type": "Nonsense"}, [[]]])
def test_pieces_that_are_fixed_are_not_read(tmp_path, tiny_tokenizer_dir, decoder):
    folder = shutil.copytree(tiny_tokenizer_dir, tmp_path / "tokenizer")
    pieces = {"decoder": decoder, "post_processor": decoder, "pre_tokenizer": {"pretokenizers": decoder}}
    change(folder / "tokenizer.json", lambda content: content.update(pieces))
    assert Tokenizer.from_folder(folder).decode(Tokenizer.from_folder(folder).encode("slow piano")) == "slow piano"
