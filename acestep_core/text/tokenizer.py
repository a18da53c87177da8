"""Qwen's byte-level BPE without control tokens in the text of a user.

Other Qwen tokenizers turn the characters `<|im_end|>` into a control token everywhere. Here the vocabulary has no
control tokens; only code adds them, by id.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
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


def _bytes_of_letters() -> dict[str, int]:
    """Return the byte of each character of byte-level BPE.

    A visible Latin-1 character stands for its own byte. Characters from U+0100 on stand for the other bytes.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _from_tokenizer_json(path: Path) -> tuple[tokenizers.Tokenizer, dict[str, int]]:
    import tokenizers

    content = _read_json(path)
    try:
        model = content["model"]
        if model["type"] != "BPE":
            raise CheckpointError(f"{path} is a {model['type']} tokenizer; ACE-Step 1.5 uses Qwen's byte-level BPE")
        control_ids = {token["content"]: token["id"] for token in content["added_tokens"]}
        merges: Any = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
        # Pass the vocabulary to the model directly: writing it as JSON and reading it again takes seconds. Without
        # added tokens and post-processor, the tokenizer has no control tokens.
        bpe = tokenizers.Tokenizer.from_str(
            json.dumps(
                content
                | {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": [], "post_processor": None}
                | {"truncation": None, "padding": None}
            )
        )
        bpe.model = tokenizers.models.BPE(model["vocab"], merges, ignore_merges=model.get("ignore_merges", False))
    except CheckpointError:
        raise
    except Exception as error:  # the library raises bare Exception for invalid files
        raise CheckpointError(f"{path} is not a usable tokenizer: {error!r}") from error
    return bpe, control_ids


def _from_vocab_and_merges(folder: Path) -> tuple[tokenizers.Tokenizer, dict[str, int]]:
    import tokenizers

    try:
        bpe = tokenizers.Tokenizer(
            tokenizers.models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
        )
        control_ids: dict[str, int] = {}
        if os.path.isfile(folder / "added_tokens.json"):
            control_ids |= _read_json(folder / "added_tokens.json")
        if os.path.isfile(folder / "tokenizer_config.json"):
            tokens = _read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
            control_ids |= {token["content"]: int(i) for i, token in tokens.items()}
    except CheckpointError:
        raise
    except Exception as error:  # as in _from_tokenizer_json
        raise CheckpointError(f"{folder}: the tokenizer is not usable: {error!r}") from error
    bpe.normalizer = tokenizers.normalizers.NFC()
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERN), behavior="isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = tokenizers.decoders.ByteLevel()
    return bpe, control_ids
