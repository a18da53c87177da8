"""The text encoder: Qwen3 hidden states for the caption, token embeddings for the lyrics.

The network is transformers' Qwen3Model, so its tensor names are the checkpoint's. This module builds the network
without weights; `acestep_core.checkpoints` loads them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..config import TextEncoderConfig
from ..edit.tasks import TEXT2MUSIC, Task
from ..errors import AceStepError, CheckpointError, NonFiniteError
from ..song.song import Song
from .lyric_tokens import LyricTokens, locate_lyrics
from .prompts import ORIGINAL, Prompt, PromptStyle, caption_prompt, lyric_prompt
from .tokenizer import Tokenizer, Truncation

if TYPE_CHECKING:
    from transformers import Qwen3Model

log = logging.getLogger("acestep")


@dataclass(frozen=True)
class TextCondition:
    """The encoded text of one song, in the dtype and on the device of the text encoder.

    caption: `[1, caption tokens, width]`, hidden states after the final norm.
    lyrics: `[1, lyric tokens, width]`, token embeddings; the condition encoder has its own layers for them.
    caption_prompt, lyric_prompt: the strings before tokenization.
    warnings: sentences for the user.
    text_only: `caption` with the text2music instruction, for edits that drop their source during sampling; None if the
    task is text2music.
    lyric_tokens: places of the lyrics' tokens, for lyric times.
    """

    caption: torch.Tensor
    lyrics: torch.Tensor
    caption_prompt: str
    lyric_prompt: str
    warnings: tuple[str, ...] = ()
    text_only: torch.Tensor | None = None
    lyric_tokens: LyricTokens | None = None


class TextEncoder:
    """A Qwen3Model (`module`) and its tokenizer. `encode` runs on the device of the embedding table.

    Raises CheckpointError if the tokenizer has ids without an embedding.
    """

    def __init__(self, module: Qwen3Model, tokenizer: Tokenizer):
        self.module = module
        self.tokenizer = tokenizer
        rows = self.module.embed_tokens.num_embeddings
        if tokenizer.largest_id >= rows:
            raise CheckpointError(
                "tokenizer and text encoder do not belong together: the tokenizer has ids up to "
                f"{tokenizer.largest_id}, the text encoder has {rows} embeddings"
            )

    @torch.no_grad()
    def encode(
        self,
        song: Song,
        task: Task = TEXT2MUSIC,
        style: PromptStyle = ORIGINAL,
        tracks: Sequence[str] = (),
        *,
        whole_caption: str = "",
        explicit_mask: bool = True,
    ) -> TextCondition:
        """Encode the text of one song, without padding.

        task, tracks: select the instruction; COVER for a song with audio codes.
        style, whole_caption, explicit_mask: as for `caption_prompt`.
        For an edit, set the song's duration to that of the source first. Warnings are logged and returned. Raises
        NonFiniteError.
        """
        caption = caption_prompt(song, task, style, tracks, whole_caption=whole_caption, explicit_mask=explicit_mask)
        lyrics = lyric_prompt(song)
        caption_ids, caption_truncation = self.tokenizer.encode_prompt(caption)
        lyric_ids, lyric_truncation = self.tokenizer.encode_prompt(lyrics)
        warnings = list(song.warnings)
        if caption_truncation:
            warnings.append(_caption_warning(caption, caption_truncation))
        if lyric_truncation:
            warnings.append(lyric_warning(lyrics, lyric_truncation))
        for warning in warnings:
            log.warning(warning)
        return TextCondition(
            caption=self._hidden_states(caption_ids),
            lyrics=self.module.embed_tokens(self._tensor(lyric_ids)),
            caption_prompt=caption.text,
            lyric_prompt=lyrics.text,
            warnings=tuple(warnings),
            text_only=None if task is TEXT2MUSIC else self._text_only(song),
            lyric_tokens=locate_lyrics(self.tokenizer, lyrics),
        )

    def _text_only(self, song: Song) -> torch.Tensor:
        return self._hidden_states(self.tokenizer.encode_prompt(caption_prompt(song, TEXT2MUSIC))[0])

    def _tensor(self, ids: list[int]) -> torch.Tensor:
        return torch.tensor([ids], dtype=torch.long, device=self.module.embed_tokens.weight.device)

    def _hidden_states(self, ids: list[int]) -> torch.Tensor:
        states = self.module(input_ids=self._tensor(ids), use_cache=False).last_hidden_state
        if not torch.isfinite(states).all():
            raise NonFiniteError(
                f"the text encoder produced NaN or infinity in {states.dtype}: run it in float32 or bfloat16, or "
                "replace its file"
            )
        return states


def lyric_warning(prompt: Prompt, truncation: Truncation) -> str:
    """Return the sentence for lyrics that are too long: how much of them the model gets, and where they are cut."""
    tokens, remaining = truncation.tokens - truncation.head_tokens, truncation.remaining - truncation.head_tokens
    return (
        f"lyrics: {tokens} tokens are too long, only the first {remaining} are used, up to "
        f"{_end_of_text(prompt, truncation)}; shorten the lyrics or make two songs"
    )


def _caption_warning(prompt: Prompt, truncation: Truncation) -> str:
    if truncation.position > len(prompt.head) + len(prompt.content):
        problem = "the metadata (BPM, time signature, key, duration) is cut off"
    else:
        problem = (
            f"the text after {_end_of_text(prompt, truncation)} and the metadata (BPM, time signature, key, duration) "
            "are cut off"
        )
    return (
        f"caption: with instruction and metadata its {truncation.tokens} tokens are too long, only the first "
        f"{truncation.remaining} are used; {problem}; shorten the caption"
    )


def _end_of_text(prompt: Prompt, truncation: Truncation) -> str:
    """Return the last words before the cut and their line, as in `'…and the night is over' (line 71)`."""
    content = prompt.content[: max(truncation.position - len(prompt.head), 0)]
    line = content.rstrip().count("\n") + 1
    words = " ".join(content.split())
    if len(words) > 40:
        # Start at a word, in languages with spaces.
        words = "…" + (words[-40:].partition(" ")[2] or words[-40:])
    return f"'{words}' (line {line})"


def build_qwen3(
    config: TextEncoderConfig, device: torch.device | str = "meta", dtype: torch.dtype = torch.float32
) -> Qwen3Model:
    """Build a Qwen3Model for inference, with uninitialised weights.

    On the meta device nothing is allocated: assign the weights, then call `materialise_buffers`. On any other device
    the buffers are ready. `dtype` applies to weights only. Rotary frequencies stay float32, so do not cast the whole
    module later. Raises AceStepError if transformers has no Qwen3.
    """
    try:
        from transformers import Qwen3Config, Qwen3Model
    except ImportError as error:
        raise AceStepError(
            f"the text encoder needs transformers 4.51 or newer ({error}); run: pip install -U transformers"
        ) from error
    values: dict[str, Any] = {
        **asdict(config),
        "use_cache": False,
        "sliding_window": None,
        "attn_implementation": "sdpa",
    }
    with torch.device("meta"):
        model: Any = Qwen3Model(Qwen3Config(**values))
    model = model.to(dtype).eval().requires_grad_(False)
    if torch.device(device).type != "meta":
        model = model.to_empty(device=device)
        materialise_buffers(model, device)
    return model


def materialise_buffers(model: Qwen3Model, device: torch.device | str) -> None:
    """Compute the rotary frequencies of a Qwen3Model that was built on the meta device, in float32 on `device`.

    No checkpoint holds these buffers, and versions of transformers compute them in different places.
    """
    config = model.config
    # transformers 5 stores the base in a dict, 4 in an attribute.
    base = (getattr(config, "rope_parameters", None) or {}).get("rope_theta") or config.rope_theta
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = (1.0 / base**exponents).to(device)
    rotary = model.rotary_emb
    for name, buffer in list(rotary.named_buffers()):
        if name not in ("inv_freq", "original_inv_freq"):
            raise AceStepError(
                f"transformers: unknown rotary buffer {name!r} {tuple(buffer.shape)}; install version 4.51 to 5.x"
            )
        rotary.register_buffer(name, frequencies.clone(), persistent=False)
    # In transformers 4 this is an attribute, an alias that would stay on the meta device.
    if "original_inv_freq" not in dict(rotary.named_buffers()):
        rotary.original_inv_freq = rotary.inv_freq
