"""Qwen's byte-level BPE without control tokens in the text of a user.

Other Qwen tokenizers turn the characters `<|im_end|>` into a control token everywhere. Here the vocabulary has no
control tokens; only code adds them, by id.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, first_line, shown
from ..files import read_json_object
from .prompts import END_OF_TEXT, Prompt

if TYPE_CHECKING:
    import tokenizers

# Qwen's pieces before merging: contractions, words with one leading symbol or space, single digits, runs of symbols,
# line ends, spaces.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Truncation:
    """A prompt longer than its limit.

    position: number of characters of `Prompt.body` that remain.
    tokens, remaining: number of tokens of `Prompt.body` before and after truncation.
    head_tokens: number of tokens of `Prompt.head`.
    """

    position: int
    tokens: int
    remaining: int
    head_tokens: int


class Tokenizer:
    """Convert text to token ids and back. Create one with `Tokenizer.from_folder`.

    bpe: a `tokenizers.Tokenizer` without added tokens or post-processor.
    control_ids: ids of control tokens by name, with `<|endoftext|>`.
    """

    def __init__(self, bpe: tokenizers.Tokenizer, control_ids: dict[str, int]):
        self._bpe = bpe
        self.control_ids = control_ids
        self.end_id = control_ids[END_OF_TEXT]

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Load `tokenizer.json`, or `vocab.json` and `merges.txt`, from a Hugging Face folder.

        Raises CheckpointError if files are missing, unreadable or without `<|endoftext|>`.
        """
        folder = Path(folder)
        if os.path.isfile(folder / "tokenizer.json"):
            bpe, control_ids = _from_tokenizer_json(folder / "tokenizer.json")
        elif os.path.isfile(folder / "vocab.json") and os.path.isfile(folder / "merges.txt"):
            bpe, control_ids = _from_vocab_and_merges(folder)
        else:
            raise CheckpointError(f"{folder} has no tokenizer; it needs tokenizer.json, or vocab.json and merges.txt")
        if END_OF_TEXT not in control_ids:
            raise CheckpointError(f"{folder}: the tokenizer has no {END_OF_TEXT} token, so it is not Qwen's")
        return cls(bpe, control_ids)

    @classmethod
    def from_lists(cls, path: Path, tokens: Sequence[str], merges: Sequence[str]) -> Tokenizer:
        """Return the tokenizer of tokens by id and merges as "left right", from the file `path`.

        `<|endoftext|>` is the first id after them, as in all of Qwen's vocabularies. Raises CheckpointError.
        """
        if len(set(tokens)) < len(tokens):
            raise CheckpointError(f"{path}: a token has two ids")
        vocab = _checked_vocabulary(path, {token: i for i, token in enumerate(tokens)})
        return cls(_as_qwens(_bpe(path, vocab, merges)), {END_OF_TEXT: len(vocab)})

    @property
    def largest_id(self) -> int:
        """The largest id that `encode` and `encode_prompt` return."""
        return max(self.text_size - 1, self.end_id)

    @functools.cached_property
    def text_size(self) -> int:
        """Number of text ids; control tokens have higher ids."""
        return self._bpe.get_vocab_size()  # cached, because tokenizers before 0.23.2 counts for 0.1 s

    def pieces(self) -> list[bytes]:
        """Return the bytes of each text id, in the order of ids."""
        letters = _bytes_of_letters()
        names = (self._bpe.id_to_token(i) or "" for i in range(self.text_size))
        return [bytes(letters[letter] for letter in name) for name in names]

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text, without control tokens."""
        return self._bpe.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids; control tokens have no text."""
        return self._bpe.decode(ids, skip_special_tokens=False)

    def encode_prompt(self, prompt: Prompt) -> tuple[list[int], Truncation | None]:
        """Return the ids of a trained string, and the truncation if its body exceeds `prompt.limit`.

        The ids are body, end token, `after`, end token. The first end token is the template's, the second is appended
        to every text. Truncation keeps the first `limit − 1` ids and the last end token.
        """
        body = self._bpe.encode(prompt.body, add_special_tokens=False)
        ids = [*body.ids, self.end_id, *self.encode(prompt.after)]
        remaining = min(len(ids), prompt.limit - 1)
        truncation = None
        if remaining < len(body.ids):
            head_tokens = sum(start < len(prompt.head) for start, _ in body.offsets)
            position = body.offsets[remaining - 1][1]
            truncation = Truncation(position, tokens=len(body.ids), remaining=remaining, head_tokens=head_tokens)
        return [*ids[:remaining], self.end_id], truncation

    def prompt_spans(self, prompt: Prompt) -> list[tuple[int, int]]:
        """Return the start and end in `prompt.body` of each token of the body that `encode_prompt` keeps."""
        return self._bpe.encode(prompt.body, add_special_tokens=False).offsets[: prompt.limit - 1]


def _bytes_of_letters() -> dict[str, int]:
    """Return the byte of each character of byte-level BPE.

    A visible Latin-1 character stands for its own byte. Characters from U+0100 on stand for the other bytes.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


def _from_tokenizer_json(path: Path) -> tuple[tokenizers.Tokenizer, dict[str, int]]:
    content = read_json_object(path)
    model, added = content.get("model"), content.get("added_tokens")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise CheckpointError(f"{path} is a {shown(kind)} tokenizer; ACE-Step 1.5 uses Qwen's byte-level BPE")
    _check_pieces(path, content.get("normalizer"), content.get("pre_tokenizer"))
    vocab, merges = _checked_vocabulary(path, model.get("vocab")), model.get("merges")
    if not isinstance(merges, list) or not isinstance(added, list):
        raise CheckpointError(f"{path} should have lists of merges and of added_tokens")
    bpe = _bpe(path, vocab, merges, ignore_merges=model.get("ignore_merges") is True)
    ids = [(item.get("content"), item.get("id")) if isinstance(item, dict) else (item, None) for item in added]
    return _as_qwens(bpe), _control_ids(path, ids, vocab)


def _bpe(
    path: Path, vocab: dict[str, int], merges: Sequence[Any], ignore_merges: bool = False
) -> tokenizers.models.BPE:
    import tokenizers

    try:
        pairs: Any = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
        # Pass the vocabulary to the model directly: writing it as JSON and reading it again takes seconds.
        return tokenizers.models.BPE(vocab, pairs, ignore_merges=ignore_merges)
    except Exception as error:  # the library raises bare Exception for merges that do not fit the vocabulary
        raise CheckpointError(f"{path} has unusable merges: {first_line(error)}") from error


def _from_vocab_and_merges(folder: Path) -> tuple[tokenizers.Tokenizer, dict[str, int]]:
    import tokenizers

    vocab = _checked_vocabulary(folder / "vocab.json", read_json_object(folder / "vocab.json"))
    try:
        bpe = tokenizers.models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as error:  # as in _from_tokenizer_json
        raise CheckpointError(f"{folder / 'merges.txt'} is not usable: {first_line(error)}") from error
    ids: list[tuple[object, object]] = []
    if os.path.isfile(folder / "added_tokens.json"):
        ids += read_json_object(folder / "added_tokens.json").items()
    path = folder / "tokenizer_config.json"
    if os.path.isfile(path):
        tokens = read_json_object(path).get("added_tokens_decoder", {})
        if not isinstance(tokens, dict) or not all(isinstance(token, dict) for token in tokens.values()):
            raise CheckpointError(f"{path}: added_tokens_decoder should be an object of tokens, it is {shown(tokens)}")
        ids += ((token.get("content"), int(i) if re.fullmatch("[0-9]{1,9}", i) else i) for i, token in tokens.items())
    return _as_qwens(bpe), _control_ids(folder, ids, vocab)


def _check_pieces(path: Path, normalizer: Any, pre_tokenizer: Any) -> None:
    """Check that the file splits text as Qwen does, because `_as_qwens` does."""
    kind = normalizer.get("type") if isinstance(normalizer, dict) else normalizer
    if kind not in ("NFC", None):
        raise CheckpointError(f"{path} has the normalizer {shown(kind)}; Qwen's tokenizer has NFC")
    steps = pre_tokenizer.get("pretokenizers") if isinstance(pre_tokenizer, dict) else None
    steps = steps if isinstance(steps, list) else [pre_tokenizer]
    patterns = [step.get("pattern") for step in steps if isinstance(step, dict) and step.get("type") == "Split"]
    if any(pattern != {"Regex": SPLIT_PATTERN} for pattern in patterns):
        raise CheckpointError(f"{path} splits text at {shown(patterns[0])}; Qwen's tokenizer has another pattern")


def _checked_vocabulary(path: Path, vocab: Any) -> dict[str, int]:
    """Return the vocabulary if it is one of byte-level BPE. Raises CheckpointError."""
    if not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
        raise CheckpointError(f"{path}: the vocabulary should give each token its id, it is {shown(vocab)}")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise CheckpointError(f"{path}: the {len(vocab):,} tokens should have the ids from 0 on, each id once")
    letters = _bytes_of_letters().keys()
    if not vocab.keys() >= letters or "" in vocab or not letters >= set("".join(vocab)):
        raise CheckpointError(f"{path}: the vocabulary is not of byte-level BPE: it lacks a byte or has other letters")
    return vocab


def _as_qwens(bpe: tokenizers.models.BPE) -> tokenizers.Tokenizer:
    """Return Qwen's tokenizer with this model, without added tokens and post-processor: it has no control tokens."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERN), behavior="isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def _control_ids(path: Path, ids: Iterable[tuple[object, object]], vocab: dict[str, int]) -> dict[str, int]:
    """Return the ids of control tokens by name. Raises CheckpointError for an id that another token has."""
    names: dict[int, str] = {}
    for name, i in ids:
        if not isinstance(name, str) or type(i) is not int or not 0 <= i < 2**31:
            raise CheckpointError(f"{path}: the added token {shown(name)} should be text with an id, it has {shown(i)}")
        if names.get(i, name) != name or (i < len(vocab) and vocab.get(name) != i):
            raise CheckpointError(f"{path}: the added token {shown(name)} has the id {i} of another token")
        names[i] = name
    if len(set(names.values())) < len(names):
        raise CheckpointError(f"{path}: an added token has two ids")
    return {name: i for i, name in names.items()}
