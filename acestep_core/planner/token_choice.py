"""The tokens that constrained text may continue with, and a choice among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .rng import RowRng
from .token_sampling import TokenSampling, choose_tokens, guide


@dataclass(frozen=True)
class TokenChoice:
    """A choice among the token ids `ids` (int64, ascending).

    greedy: take the likeliest of them at any temperature.
    may_end: end the text if the likeliest token of the whole vocabulary is not among `ids`.
    """

    ids: Tensor
    greedy: bool = False
    may_end: bool = False
    _on_device: dict[torch.device, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def among(cls, ids: Iterable[int], greedy: bool = False, may_end: bool = False) -> TokenChoice:
        return cls(torch.tensor(sorted(ids), dtype=torch.long), greedy, may_end)

    def pick(self, logits: Tensor, unconditional: Tensor | None, sampling: TokenSampling, rng: RowRng) -> int | None:
        """Return a token id, or None to end the text.

        logits, unconditional: one row's logits of the prompt and of its negative prompt, each [text rows].
        """
        if logits.device not in self._on_device:
            self._on_device[logits.device] = self.ids.to(logits.device)
        ids = self._on_device[logits.device]
        if self.may_end and not bool((ids == logits.argmax()).any()):
            return None
        allowed = logits[ids]
        if unconditional is not None:
            allowed = guide(allowed, unconditional[ids], sampling.guidance)
        noise = None
        if sampling.temperature and not self.greedy:
            noise = rng.exponential(len(ids)).to(allowed.device)[None]
        return int(ids[choose_tokens(allowed[None], sampling, noise)[0]])


class TokenSets:
    """The tokens that each place in an answer allows.

    first: start of a value, with one space.
    visible: first visible character, if the value starts with a blank token.
    inside: any later token of the value.
    next_line: indentation that continues the value on the next line.
    lyrics: any text, or the end of the turn.

    Values exclude tokens with a newline before their last byte, because the grammar would miss the new line. Values
    exclude backticks, because training captions have stray code fences. The tab is the only control character.
    """

    def __init__(self, pieces: Sequence[bytes], control: Iterable[int], turn_end: int):
        """Sort the text tokens into sets. `pieces` holds the bytes of each token, by id."""
        excluded = set(control)
        text = {i: piece for i, piece in enumerate(pieces) if piece and i not in excluded}
        allowed = {i: piece for i, piece in text.items() if _fits(piece)}
        self.line_ends = frozenset(i for i, piece in allowed.items() if piece.endswith(b"\n"))
        self.blanks = frozenset(i for i, piece in allowed.items() if not piece.strip())
        on_line = {i: piece for i, piece in allowed.items() if i not in self.line_ends}
        self.inside = TokenChoice.among(allowed)
        self.first = TokenChoice.among(
            i for i, piece in on_line.items() if piece[:1] == b" " and piece[1:2] not in (b" ", b"\t")
        )
        self.visible = TokenChoice.among(i for i, piece in on_line.items() if piece[:1] not in (b" ", b"\t"))
        self.next_line = TokenChoice.among(
            (i for i, piece in allowed.items() if piece[:1] in (b" ", b"\t")), may_end=True
        )
        self.lyrics = TokenChoice.among([*text, turn_end])


def _fits(piece: bytes) -> bool:
    return b"`" not in piece and all(byte >= 32 or byte == 9 for byte in piece.removesuffix(b"\n"))
