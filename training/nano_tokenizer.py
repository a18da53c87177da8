"""Train nano's tokenizer: a Qwen-style BPE with a small vocabulary.

The files have the layout of Qwen3-Embedding's, with a post-processor that appends the end token. The same texts in the
same order give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TEXT = "<|endoftext|>"
CONTROL_TOKENS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>", "<think>", "</think>")  # these get the last ids


def train_nano_tokenizer(texts: Iterable[str], folder: str | Path, vocab_size: int = 2048) -> int:
    """Write tokenizer.json, tokenizer_config.json, vocab.json and merges.txt, and return the size of the vocabulary.

    `vocab_size` includes the 256 bytes and the control tokens. The vocabulary is smaller if `texts` repeat too little.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size - len(CONTROL_TOKENS),
            min_frequency=2,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    # Control tokens are added after training, so that they are not in the BPE vocabulary, as in Qwen's.
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROL_TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END_OF_TEXT}", pair=None, special_tokens=[(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps(_config(tokenizer), indent=2) + "\n", encoding="utf-8")
    return tokenizer.get_vocab_size()


def _config(tokenizer: Tokenizer) -> dict:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    ids = {name: str(tokenizer.token_to_id(name)) for name in CONTROL_TOKENS}
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {ids[name]: {"content": name, **flags} for name in CONTROL_TOKENS},
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "padding_side": "right",
        "model_max_length": 32768,
        "clean_up_tokenization_spaces": False,
    }
