"""Trains the planner on the composer's pieces and their audio codes:
`python -m training.planner --latents DIR --fsq DIR --tokenizer DIR --out DIR --minutes N`.

Every piece is an example of a plan and its codes, and of what codes are; many more, which are never played, are
examples of a song from a few words, and of the same put into good words. Only the answers are learned. `--tokenizer`:
the one of the text encoder.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from acestep_core.checkpoints.build import load_network
from acestep_core.models.audio_tokenizer import levels_of
from acestep_core.models.model import AceStepModel
from acestep_core.planner import chat_prompts as prompts
from acestep_core.planner.metadata_text import write_block
from acestep_core.planner.vocabulary import Vocabulary

from . import nano_config
from .composer import Piece
from .conditioning import nano_tokenizer, piece_of
from .export import NETWORK_FOLDER, silence_of
from .latents import LatentPool
from .loop import mixed, run
from .pool import HELD_OUT
from .random_nano import variance_preserving
from .start import take_planner
from .state import Average, load_state, save_state
from .styles import STYLES
from .vae import trained

log = logging.getLogger("acestep")
IGNORED = -100
WORDS_ALONE = 20_000  # pieces whose words are learned without their sound


@dataclass(frozen=True)
class Recipe:
    """Defaults are for one CPU core. The shares are of the tasks; what is left is plan and codes."""

    rows: int = 16
    rate: float = 2e-3
    warmup: int = 100
    half_life: int = 1500
    inspire: float = 0.15
    polish: float = 0.1
    understand: float = 0.25
    unconditional: float = 0.1  # of plan and codes: no request, nothing thought
    seed: int = 0


def block_of(piece: Piece, genres: bool) -> str:
    """The reasoning that leads to the piece."""
    facts = {
        "bpm": piece.bpm,
        "caption": piece.caption,
        "duration": piece.seconds,
        "keyscale": piece.key,
        "language": piece.language,
        "timesignature": piece.meter,
    }
    return write_block(facts | ({"genres": STYLES[piece.style].names[0]} if genres else {}))


def idea_of(piece: Piece, rng: np.random.Generator) -> str:
    """What somebody might have asked for who got this piece: a few words of its caption."""
    words = piece.caption.rstrip(".").replace(",", "").split()
    style = STYLES[piece.style].names[int(rng.integers(len(STYLES[piece.style].names)))]
    if rng.random() < 0.4:
        return style
    first = int(rng.integers(max(1, len(words) - 3)))
    return f"{style}, {' '.join(words[first : first + int(rng.integers(2, 6))]).lower()}"


def song_example(
    words: Vocabulary, piece: Piece, recipe: Recipe, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Prompt and answer as ids: a whole song from a few words, or the same put into good words."""
    answer = [*_block(words, piece, genres=True), *_song(words, piece)]
    if rng.random() < recipe.inspire / (recipe.inspire + recipe.polish):
        return prompts.inspire_prompt(words, idea_of(piece, rng), "voice" not in piece.instruments), answer
    return prompts.format_prompt(words, idea_of(piece, rng), piece.lyrics), answer


def code_example(
    words: Vocabulary, piece: Piece, codes: list[int], recipe: Recipe, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Prompt and answer as ids: what the codes are, or a plan and its codes."""
    if rng.random() < recipe.understand / (1 - recipe.inspire - recipe.polish):
        return prompts.understand_prompt(words, codes), [*_block(words, piece, genres=True), *_song(words, piece)]
    answer = [*words.code_ids(codes), words.turn_end]
    if rng.random() < recipe.unconditional:
        return prompts.unconditional_prompt(words), answer
    caption = piece.caption if rng.random() < 0.6 else idea_of(piece, rng)
    plan = _block(words, piece, genres=False)
    return prompts.plan_prompt(words, caption, piece.lyrics), [*plan, *words.encode("\n\n"), *answer]


def _song(words: Vocabulary, piece: Piece) -> list[int]:
    return [*words.encode(f"\n\n# Lyric\n{piece.lyrics}"), words.turn_end]


def _block(words: Vocabulary, piece: Piece, genres: bool) -> list[int]:
    return [words.think, *words.encode(f"\n{block_of(piece, genres)}\n"), words.think_end]


@torch.no_grad()
def codes_of_pool(pool: LatentPool, model: AceStepModel, shifts: int = 1) -> list[tuple[int, list[int]]]:
    """Seed and audio codes of every piece, so many times, each time without one more of its first frames: other codes
    for the same music. A code is five frames."""
    rows = []
    for pieces in pool.by_frames.values():
        for seed, latents in pieces:
            frames = torch.from_numpy(latents.astype(np.float32))
            rows += [(seed, model.tokenize(frames[None, shift:])[0].tolist()) for shift in range(shifts)]
    return rows


class SharedLevels(nn.Module):
    """Rows of a table, of which those of audio codes are their own and a row for each of their levels.

    A code is one level on each of a few axes. Alone, 2560 rows would have to be learned each by itself, of pieces that
    use each of them some thirty times.
    """

    def __init__(self, table: Tensor, first: int):
        super().__init__()
        self.first, count = first, len(nano_config.LEVELS)
        rows = table.detach()[first:]
        starts = torch.tensor([sum(nano_config.LEVELS[:axis]) for axis in range(count)], device=rows.device)
        levels = levels_of(torch.arange(nano_config.CODES, device=rows.device), nano_config.LEVELS) + starts
        self.register_buffer("levels", levels, persistent=False)  # [codes, axes], rows of `shared`
        sums = torch.zeros(sum(nano_config.LEVELS), rows.shape[1], device=rows.device)
        sums.index_add_(0, levels.flatten(), rows.repeat_interleave(count, 0))
        uses = levels.flatten().bincount()[:, None]
        self.shared = nn.Parameter(sums / uses - rows.mean(dim=0) * (1 - 1 / count))

    def forward(self, own: Tensor) -> Tensor:
        return torch.cat((own[: self.first], own[self.first :] + self.shared[self.levels].sum(dim=1)))

    def right_inverse(self, table: Tensor) -> Tensor:
        """What is a code's own begins with nothing: of a table, what its levels have in common is taken over."""
        return torch.cat((table[: self.first], torch.zeros_like(table[self.first :])))


def share_levels(network: nn.Module, first: int) -> None:
    """From now on audio codes, rows from `first` on, share what they learn."""
    table = network.model.embed_tokens
    parametrize.register_parametrization(table, "weight", SharedLevels(table.weight, first), unsafe=True)


def settle_levels(network: nn.Module) -> None:
    """Undoes `share_levels`: a plain table of the same numbers."""
    parametrize.remove_parametrizations(network.model.embed_tokens, "weight")


def build(vocabulary: int) -> nn.Module:
    """transformers' Qwen3: the same network as the core's, which is made for writing and not for learning."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = asdict(nano_config.PLANNER) | {"vocab_size": vocabulary, "tie_word_embeddings": True}
    theta = config.pop("rope_theta")
    for ours in ("audio_base", "audio_codes"):
        config.pop(ours)
    return Qwen3ForCausalLM(Qwen3Config(**config, rope_parameters={"rope_type": "default", "rope_theta": theta}))


class PlannerTrainer:
    def __init__(
        self,
        recipe: Recipe,
        pieces: list[tuple[int, list[int]]],
        held: list[tuple[int, list[int]]],
        words: Vocabulary,
        out: Path,
        device: str = "cpu",
        start: Path | None = None,
    ):
        self.recipe, self.pieces, self.held, self.words, self.out = recipe, pieces, held, words, out
        self.device = torch.device(device)
        self.step, self.seconds = 0, 0.0
        self.network = build(words.audio_base + words.codes).to(self.device)
        variance_preserving(self.network, torch.Generator().manual_seed(recipe.seed))
        self.network.requires_grad_(True)
        with torch.no_grad():  # the table is the output head too: logits shall start small
            self.network.model.embed_tokens.weight.mul_(self.network.config.hidden_size**-0.5)
        if start is not None:
            take_planner(self.network.model, start)
        share_levels(self.network, words.audio_base)
        self.average = Average(self.network)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.05
        )
        self.compute = self.network.model
        saved = load_state(out, "planner")
        if saved is not None:
            self.step, self.seconds = saved["step"], saved["seconds"]
            self.network.load_state_dict(saved["network"])
            self.average.load(saved["average"])
            self.optimiser.load_state_dict(saved["optimiser"])

    def compile(self) -> PlannerTrainer:
        self.compute = torch.compile(self.network.model, dynamic=True)
        return self

    def save(self) -> None:
        save_state(
            self.out,
            "planner",
            {
                "step": self.step,
                "seconds": self.seconds,
                "network": self.network.state_dict(),
                "average": self.average.state(),
                "optimiser": self.optimiser.state_dict(),
            },
        )

    def batch(self, pieces: list[tuple[int, list[int]]], rows: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Ids and what is to be learned of them, each `[rows, tokens]`."""
        both = []
        first = HELD_OUT if pieces is self.held else 0
        for _ in range(rows):
            if rng.random() < self.recipe.inspire + self.recipe.polish:  # needs no sound, so there is no end of it
                piece = piece_of(first + int(rng.integers(WORDS_ALONE)))
                prompt, answer = song_example(self.words, piece, self.recipe, rng)
            else:
                seed, codes = pieces[int(rng.integers(len(pieces)))]
                prompt, answer = code_example(self.words, piece_of(seed), codes, self.recipe, rng)
            both.append((prompt + answer, [IGNORED] * len(prompt) + answer))
        longest = max(len(ids) for ids, _ in both)
        ids = torch.tensor([row + [self.words.turn_end] * (longest - len(row)) for row, _ in both])
        wanted = torch.tensor([row + [IGNORED] * (longest - len(row)) for _, row in both])
        return ids.to(self.device), wanted.to(self.device)

    def loss(self, ids: Tensor, wanted: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Mean over the tokens to be learned; and that of words and of codes apart."""
        with mixed(self.device), parametrize.cached():
            hidden = self.compute(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            learned = wanted[:, 1:] != IGNORED
            logits = F.linear(hidden[learned], self.network.model.embed_tokens.weight)
        targets = wanted[:, 1:][learned]
        losses = F.cross_entropy(logits.float(), targets, reduction="none")
        is_code = targets >= self.words.audio_base
        apart = {"words": losses[~is_code], "codes": losses[is_code]}
        return losses.mean(), {name: float(part.detach().mean()) for name, part in apart.items() if len(part)}

    def train_step(self) -> dict[str, float]:
        recipe = self.recipe
        ids, wanted = self.batch(self.pieces, recipe.rows, np.random.default_rng([recipe.seed, 3, self.step]))
        for group in self.optimiser.param_groups:
            group["lr"] = (
                recipe.rate * min(1, (self.step + 1) / recipe.warmup) / (1 + self.step / recipe.half_life) ** 0.5
            )
        loss, parts = self.loss(ids, wanted)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimiser.step()
            self.average.update(self.step)
        self.step += 1
        return {"loss": float(loss.detach()), "words": 0.0, "codes": 0.0} | parts

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Losses on held-out pieces, by the averaged weights."""
        self.average.swap()
        ids, wanted = self.batch(self.held, 48, np.random.default_rng(5))
        _, parts = self.loss(ids, wanted)
        self.average.swap()
        return {"words": 0.0, "codes": 0.0} | parts


def quantiser(fsq: Path | None, vae: Path, start: Path | None = None) -> AceStepModel:
    """A model of which the audio tokenizer is trained: the state in `fsq`, or a checkpoint's."""
    if fsq is None and start is not None:
        model, _ = load_network(start / NETWORK_FOLDER, device="cpu", dtype=torch.float32)
    else:
        model = AceStepModel(nano_config.MODEL).eval().requires_grad_(False)
        saved = None if fsq is None else load_state(fsq, "fsq")
        if saved is None:
            raise FileNotFoundError(f"no state of the audio codes in {fsq}: train them first (python -m training.fsq)")
        model.tokenizer.load_state_dict(saved["tokenizer"])
        model.detokenizer.load_state_dict(saved["detokenizer"])
    model.silence_latent = silence_of(trained(vae))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("latents", "held", "vae", "tokenizer", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--fsq", type=Path, help="audio codes, unless --start brings them")
    parser.add_argument("--start", type=Path, help="a checkpoint to begin with, such as acestep_core/nano")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rows", type=int, default=Recipe.rows)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    model = quantiser(args.fsq, args.vae, args.start)
    pieces = codes_of_pool(LatentPool(args.latents), model, model.tokenizer.window)
    held = codes_of_pool(LatentPool(args.held), model)
    words = Vocabulary.of(nano_tokenizer(args.tokenizer), codes=nano_config.CODES)
    trainer = PlannerTrainer(Recipe(rows=args.rows), pieces, held, words, args.out, args.device, args.start)
    log.info(
        "%.1f M parameters, %d examples of pieces, %d codes",
        sum(p.numel() for p in trainer.network.parameters()) / 1e6,
        len(pieces),
        sum(len(codes) for _, codes in pieces),
    )
    run(trainer if args.no_compile else trainer.compile(), args.minutes)


if __name__ == "__main__":
    main()
