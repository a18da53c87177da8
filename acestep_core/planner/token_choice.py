"""The tokens that constrained text may continue with, and a choice among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..runtime.devices import send
from .token_sampling import TokenSampling, choose_tokens, guide


@dataclass(frozen=True, eq=False)
class TokenChoice:
    """A choice among the token ids `ids` (int64, ascending).

    greedy: take the likeliest of them at any temperature.
    may_end: end the text if the likeliest token of the whole vocabulary is not among `ids`.
    """

    ids: Tensor
    greedy: bool = False
    may_end: bool = False

    @classmethod
    def among(cls, ids: Iterable[int], greedy: bool = False, may_end: bool = False) -> TokenChoice:
        return cls(torch.tensor(sorted(ids), dtype=torch.long), greedy, may_end)

    def __contains__(self, token: int) -> bool:
        return bool((self.ids == token).any())


class TokenPicker:
    """Chooses the next tokens of all rows in one run. The masks of the choices stay on the device until its end.

    size: number of text tokens, of which each row has a logit.
    """

    def __init__(self, size: int, sampling: TokenSampling, device: torch.device):
        self._size, self._sampling, self._device = size, sampling, device
        self._masks: dict[TokenChoice, Tensor] = {}

    def pick(
        self, choices: Sequence[TokenChoice | None], scores: Tensor, guided: bool, noise: Tensor
    ) -> tuple[list[int | None], bool]:
        """Return the chosen token of each row, and True if the logits of all rows with a choice are finite.

        The token is None if the choice ends the text, or if a row has no choice. Waits for the device once.

        scores: logits [rows, size]. If `guided`, as many rows of the negative prompts follow.
        noise: see `choose_tokens`.
        """
        finite = torch.isfinite(scores).all(-1)
        logits = conditional = scores
        if guided:
            conditional, unconditional = scores.chunk(2)
            logits, finite = guide(conditional, unconditional, self._sampling.guidance), finite.view(2, -1).all(0)
        logits = logits.masked_fill(self._excluded(choices), float("-inf"))
        active = [choice for choice in choices if choice is not None]
        best = drawn = first = logits.argmax(-1)
        if self._sampling.temperature and not all(choice.greedy for choice in active):
            drawn = choose_tokens(logits, self._sampling, noise)
        if any(choice.may_end for choice in active):
            first = conditional.argmax(-1)
        tokens: list[int | None] = []
        whole = True
        rows = torch.stack((best, drawn, first, finite.long()), dim=-1).tolist()
        for choice, (best_token, drawn_token, first_token, is_finite) in zip(choices, rows, strict=True):
            if choice is None or choice.may_end and first_token not in choice:
                tokens.append(None)
            else:
                tokens.append(best_token if choice.greedy else drawn_token)
            whole &= choice is None or bool(is_finite)
        return tokens, whole

    def _excluded(self, choices: Sequence[TokenChoice | None]) -> Tensor:
        """Return True for the tokens that each row's choice excludes, [rows or 1, size].

        A row without a choice gets the mask of another row.
        """
        default = next(choice for choice in choices if choice is not None)
        needed = [default if choice is None else choice for choice in choices]
        if all(choice is default for choice in needed):
            return self._mask(default)[None]
        return torch.stack([self._mask(choice) for choice in needed])

    def _mask(self, choice: TokenChoice) -> Tensor:
        """Return True for the tokens that `choice` excludes, [size]."""
        if choice not in self._masks:
            mask = torch.ones(self._size, dtype=torch.bool)
            mask[choice.ids] = False
            self._masks[choice] = send(mask, self._device)
        return self._masks[choice]


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
