"""Qwen's byte-level BPE, in which the text of a user is only ever text.

Ordinary Qwen tokenizers turn the characters `<|im_end|>` into a control token wherever they stand. Here the vocabulary
holds no such names: control tokens are put in by their ids, from code.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError
from .prompts import END_OF_TEXT, Prompt

if TYPE_CHECKING:
    import tokenizers

# How Qwen cuts text before merging: contractions, words with one leading sign or blank, single digits, runs of signs,
# line ends, blanks.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Cut:
    """A prompt was longer than its limit.

    position: characters of `Prompt.body` that were kept.
    tokens, kept: how many tokens `Prompt.body` has, and how many of them were kept.
    head_tokens: how many of these the part before the user's text takes.
    """

    position: int
    tokens: int
    kept: int
    head_tokens: int


class Tokenizer:
    """Text to token ids and back. Make one with `Tokenizer.from_folder`.

    bpe: a `tokenizers.Tokenizer` without added tokens or post-processor.
    control_ids: ids of control tokens by name; `<|endoftext|>` must be among them.
    """

    def __init__(self, bpe: tokenizers.Tokenizer, control_ids: dict[str, int]):
        self._bpe = bpe
        self.control_ids = control_ids
        self.end_id = control_ids[END_OF_TEXT]

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Reads `tokenizer.json`, or `vocab.json` and `merges.txt`, from a Hugging Face folder.

        Raises CheckpointError when files are missing, unreadable, or name no `<|endoftext|>`.
        """
        folder = Path(folder)
        if (folder / "tokenizer.json").is_file():
            bpe, control_ids = _from_tokenizer_json(folder / "tokenizer.json")
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            bpe, control_ids = _from_vocab_and_merges(folder)
        else:
            raise CheckpointError(f"no tokenizer in {folder}: it needs tokenizer.json, or vocab.json and merges.txt")
        if END_OF_TEXT not in control_ids:
            raise CheckpointError(f"the tokenizer in {folder} names no {END_OF_TEXT} token; it is not Qwen's")
        return cls(bpe, control_ids)

    @property
    def largest_id(self) -> int:
        """No id that `encode` or `encode_prompt` returns is larger."""
        return max(self.text_size - 1, self.end_id)

    @functools.cached_property
    def text_size(self) -> int:
        """Ids below are text; control tokens come after."""
        return self._bpe.get_vocab_size()  # tokenizers before 0.23.2 count anew, in a tenth of a second

    def pieces(self) -> list[bytes]:
        """The bytes that each text id stands for, by id."""
        letters = _bytes_of_letters()
        names = (self._bpe.id_to_token(i) or "" for i in range(self.text_size))
        return [bytes(letters[letter] for letter in name) for name in names]

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: nothing in it is a control token, nothing is added."""
        return self._bpe.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """The text of plain ids; control tokens have none."""
        return self._bpe.decode(ids, skip_special_tokens=False)

    def encode_prompt(self, prompt: Prompt) -> tuple[list[int], Cut | None]:
        """Ids of a trained string, ended as in training, and what its limit cut off.

        The stream is body, end token, `after`, end token: the template's own, and the one that the text encoder's
        tokenizer appends to everything. Truncation keeps the first `limit − 1` ids and then the last end token.
        """
        body = self._bpe.encode(prompt.body, add_special_tokens=False)
        ids = [*body.ids, self.end_id, *self.encode(prompt.after)]
        keep = len(ids) if prompt.limit is None else min(len(ids), prompt.limit - 1)
        cut = None
        if keep < len(body.ids):
            head_tokens = sum(start < len(prompt.head) for start, _ in body.offsets)
            cut = Cut(position=body.offsets[keep - 1][1], tokens=len(body.ids), kept=keep, head_tokens=head_tokens)
        return [*ids[:keep], self.end_id], cut


def _bytes_of_letters() -> dict[str, int]:
    """Byte-level BPE writes a byte as a letter: itself when it is visible Latin-1, else the next one beyond."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def _from_tokenizer_json(path: Path) -> tuple[tokenizers.Tokenizer, dict[str, int]]:
    import tokenizers

    content = _read_json(path)
    try:
        model = content["model"]
        if model["type"] != "BPE":
            raise CheckpointError(f"{path} is a {model['type']} tokenizer; ACE-Step 1.5 uses Qwen's byte-level BPE")
        control_ids = {token["content"]: token["id"] for token in content["added_tokens"]}
        merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
        # The vocabulary goes straight to the model: through JSON again it would take seconds. Without the added tokens
        # and the post-processor what is left knows text only.
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
    except Exception as error:  # the library raises bare Exception for whatever it dislikes in the file
        raise CheckpointError(f"{path} is not a usable tokenizer: {error!r}") from error
    return bpe, control_ids


def _from_vocab_and_merges(folder: Path) -> tuple[tokenizers.Tokenizer, dict[str, int]]:
    import tokenizers

    try:
        bpe = tokenizers.Tokenizer(
            tokenizers.models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
        )
        control_ids = {}
        if (folder / "added_tokens.json").is_file():
            control_ids |= _read_json(folder / "added_tokens.json")
        if (folder / "tokenizer_config.json").is_file():
            tokens = _read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
            control_ids |= {token["content"]: int(i) for i, token in tokens.items()}
    except CheckpointError:
        raise
    except Exception as error:  # as above
        raise CheckpointError(f"the tokenizer in {folder} is not usable: {error!r}") from error
    bpe.normalizer = tokenizers.normalizers.NFC()
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERN), behavior="isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = tokenizers.decoders.ByteLevel()
    return bpe, control_ids
