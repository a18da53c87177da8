"""The text encoder: Qwen3 hidden states for the caption, bare token embeddings for the lyrics.

The network is transformers' own Qwen3Model, so the names of its tensors are the checkpoint's. This module builds it
empty; `acestep_core.checkpoints` fills it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..config import TextEncoderConfig
from ..edit.tasks import TEXT2MUSIC, Task
from ..errors import AceStepError, CheckpointError, NonFiniteError
from ..song.song import Song
from .prompts import ORIGINAL, Prompt, PromptStyle, caption_prompt, lyric_prompt
from .tokenizer import Cut, Tokenizer

log = logging.getLogger("acestep")


@dataclass(frozen=True)
class TextCondition:
    """What the text of one song becomes, in the dtype and on the device of the text encoder.

    caption: `[1, caption tokens, width]`, last hidden states after the final norm.
    lyrics: `[1, lyric tokens, width]`, rows of the embedding table; the condition encoder has its own layers for them.
    caption_prompt, lyric_prompt: the strings as the tokenizer got them.
    warnings: sentences for the user.
    text_only: `caption` under the instruction of a song from text alone, for edits that let go of their source on the way;
    None where that is the task.
    """

    caption: torch.Tensor
    lyrics: torch.Tensor
    caption_prompt: str
    lyric_prompt: str
    warnings: tuple[str, ...] = ()
    text_only: torch.Tensor | None = None


class TextEncoder:
    """A Qwen3Model and its tokenizer.

    module: the network. Whoever owns placement may move it between calls; `encode` runs where its embedding table is.
    """

    def __init__(self, module: torch.nn.Module, tokenizer: Tokenizer):
        rows = module.get_input_embeddings().num_embeddings
        if tokenizer.largest_id >= rows:
            raise CheckpointError(
                "tokenizer and text encoder do not belong together: the tokenizer has ids up to "
                f"{tokenizer.largest_id}, the text encoder has {rows} embeddings"
            )
        self.module = module
        self.tokenizer = tokenizer

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
        """Text states of one song; songs are encoded one by one, unpadded.

        `task` and `tracks` give the instruction: COVER when the song comes with audio codes. When source audio sets the
        length, put its seconds into the song's metadata first. The rest as for `caption_prompt`. Warnings are returned,
        and logged.
        """
        stems = {"whole_caption": whole_caption, "explicit_mask": explicit_mask}
        caption, lyrics = caption_prompt(song, task, style, tracks, **stems), lyric_prompt(song, style)
        caption_ids, caption_cut = self.tokenizer.encode_prompt(caption)
        lyric_ids, lyric_cut = self.tokenizer.encode_prompt(lyrics)
        warnings = list(song.warnings)
        if caption_cut:
            warnings.append(caption_cut_sentence(caption, caption_cut))
        if lyric_cut:
            warnings.append(lyric_cut_sentence(lyrics, lyric_cut))
        for warning in warnings:
            log.warning(warning)
        return TextCondition(
            caption=self._hidden_states(caption_ids, style.attend_end),
            lyrics=self.module.get_input_embeddings()(self._tensor(lyric_ids)),
            caption_prompt=caption.text,
            lyric_prompt=lyrics.text,
            warnings=tuple(warnings),
            text_only=None if task is TEXT2MUSIC else self._plain(song, style),
        )

    def _plain(self, song: Song, style: PromptStyle) -> torch.Tensor:
        """Of the song as one from text alone, which names no stems in any model."""
        caption = caption_prompt(song, TEXT2MUSIC, replace(style, stem_caption=False))
        return self._hidden_states(self.tokenizer.encode_prompt(caption)[0], style.attend_end)

    def _tensor(self, ids: list[int]) -> torch.Tensor:
        return torch.tensor([ids], dtype=torch.long, device=self.module.get_input_embeddings().weight.device)

    def _hidden_states(self, ids: list[int], attend_end: bool) -> torch.Tensor:
        tokens = self._tensor(ids)
        mask = None  # plainly causal
        if not attend_end:
            # The end token and what follows are never looked at, though they have states of their own.
            mask = torch.ones_like(tokens)
            mask[:, ids.index(self.tokenizer.end_id) :] = 0
        states = self.module(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        if not torch.isfinite(states).all():
            raise NonFiniteError(
                f"the text encoder produced NaN or infinity in {states.dtype}: run it in float32 or bfloat16, or load "
                "the file again if it may be damaged"
            )
        return states


def lyric_cut_sentence(prompt: Prompt, cut: Cut) -> str:
    """Where the lyrics stop being sung, for a human."""
    return (
        f"the lyrics are {cut.tokens - cut.head_tokens} tokens long and only the first {cut.kept - cut.head_tokens} "
        f"are sung: they are cut after {_place(prompt, cut)}; shorten them or make two songs"
    )


def caption_cut_sentence(prompt: Prompt, cut: Cut) -> str:
    """What of caption and metadata is not read, for a human."""
    if cut.position > len(prompt.head) + len(prompt.content):
        where = "the metadata (BPM, time signature, key, duration) is not read to its end"
    else:
        where = f"it is cut after {_place(prompt, cut)}, and no metadata (BPM, time signature, key, duration) is read"
    return (
        f"the caption is too long: with instruction and metadata it takes {cut.tokens} tokens and only the first "
        f"{cut.kept} are read: {where}; shorten it"
    )


def _place(prompt: Prompt, cut: Cut) -> str:
    """The last words kept and the line they stand on: `'…and the night is over' (line 71)`."""
    kept = prompt.content[: max(cut.position - len(prompt.head), 0)]
    line = kept.rstrip().count("\n") + 1
    words = " ".join(kept.split())
    if len(words) > 40:
        # From a word's start on, where the language has blanks between words.
        words = "…" + (words[-40:].partition(" ")[2] or words[-40:])
    return f"'{words}' (line {line})"


def build_qwen3(
    config: TextEncoderConfig, device: torch.device | str = "meta", dtype: torch.dtype = torch.float32
) -> torch.nn.Module:
    """A Qwen3Model of these dimensions for inference, its weights not set (its buffers are).

    On the meta device it costs nothing: assign the weights, then call `materialise_buffers`. `dtype` is for weights;
    the rotary frequencies stay float32, so do not cast the whole module later.
    """
    try:
        from transformers import Qwen3Config, Qwen3Model
    except ImportError as error:
        raise AceStepError(
            "the text encoder needs transformers 4.51 or newer, with its Qwen3 model: pip install -U transformers "
            f"({error})"
        ) from error
    with torch.device("meta"):
        model = Qwen3Model(
            Qwen3Config(
                vocab_size=config.vocab_size,
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                num_key_value_heads=config.num_key_value_heads,
                head_dim=config.head_dim,
                rope_theta=config.rope_theta,
                rms_norm_eps=config.rms_norm_eps,
                max_position_embeddings=config.max_position_embeddings,
                tie_word_embeddings=config.tie_word_embeddings,
                use_cache=False,
                sliding_window=None,
                attn_implementation="sdpa",
            )
        )
    model = model.to(dtype).eval().requires_grad_(False)
    if torch.device(device).type != "meta":
        model = model.to_empty(device=device)
        materialise_buffers(model, device)
    return model


def materialise_buffers(model: torch.nn.Module, device: torch.device | str) -> None:
    """Gives a Qwen3Model built on the meta device its rotary frequencies: float32, on `device`.

    No checkpoint holds them. They are computed here because transformers does it differently from version to version.
    """
    config = model.config
    # transformers 5 keeps the base in a dict, 4 as a plain attribute.
    base = (getattr(config, "rope_parameters", None) or {}).get("rope_theta") or config.rope_theta
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = (1.0 / base**exponents).to(device)
    rotary = model.rotary_emb
    for name, buffer in list(rotary.named_buffers()):
        if name not in ("inv_freq", "original_inv_freq"):
            raise AceStepError(
                f"this transformers version has a rotary buffer {name!r} {tuple(buffer.shape)} that is not known here; "
                "install one from 4.51 to 5.x"
            )
        rotary.register_buffer(name, frequencies.clone(), persistent=False)
    # transformers 4 keeps this one as a plain attribute, an alias that would stay on the meta device.
    if "original_inv_freq" not in dict(rotary.named_buffers()):
        rotary.original_inv_freq = rotary.inv_freq
