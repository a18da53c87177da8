"""Train the planner (5 Hz LM) on composed pieces and their audio codes:
`python -m training.planner --latents DIR --fsq DIR --tokenizer DIR --out DIR --minutes N`.

The pool's pieces are examples of planning codes and of understanding codes. Many other pieces, which are never
rendered, are examples of the text tasks inspire and format. The loss covers only the answers. `--tokenizer` is the text
encoder's tokenizer.
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
from .conditioning import nano_tokenizer, piece_of
from .export import NETWORK_FOLDER, silence_of
from .initialization import init_transformer
from .latents import LatentPool
from .loop import mixed, run
from .piece import Piece
from .pool import HELD_OUT
from .state import Average, load_state, save_state
from .styles import STYLES
from .vae import load_trained
from .warm_start import load_planner_into

log = logging.getLogger("acestep")
IGNORED = -100
TEXT_PIECES = 20_000  # pieces of the text tasks, which need no sound


@dataclass(frozen=True)
class PlannerRecipe:
    """Hyperparameters for one CPU core, and the shares of the tasks. The rest is planning."""

    rows: int = 16
    rate: float = 2e-3
    warmup: int = 100
    half_life: int = 1500
    inspire: float = 0.15
    format: float = 0.1
    understand: float = 0.25
    unconditional: float = 0.1  # share of planning without a request or a plan
    seed: int = 0


def block_of(piece: Piece, genres: bool) -> str:
    """Return the metadata block of a piece."""
    metadata = {
        "bpm": piece.bpm,
        "caption": piece.caption,
        "duration": piece.seconds,
        "keyscale": piece.key,
        "language": piece.language,
        "timesignature": piece.meter,
    }
    return write_block(metadata | ({"genres": STYLES[piece.style].names[0]} if genres else {}))


def query_of(piece: Piece, rng: np.random.Generator) -> str:
    """Return a short query for a piece: its style, and mostly some words of its caption."""
    caption = piece.caption.rstrip(".").replace(",", "").split()
    style = STYLES[piece.style].names[int(rng.integers(len(STYLES[piece.style].names)))]
    if rng.random() < 0.4:
        return style
    first = int(rng.integers(max(1, len(caption) - 3)))
    return f"{style}, {' '.join(caption[first : first + int(rng.integers(2, 6))]).lower()}"


def song_example(
    vocabulary: Vocabulary, piece: Piece, recipe: PlannerRecipe, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Return the ids of prompt and answer for inspire or format: a whole song from a short query."""
    answer = [*_block(vocabulary, piece, genres=True), *_song(vocabulary, piece)]
    if rng.random() < recipe.inspire / (recipe.inspire + recipe.format):
        return prompts.inspire_prompt(vocabulary, query_of(piece, rng), "voice" not in piece.instruments), answer
    return prompts.format_prompt(vocabulary, query_of(piece, rng), piece.lyrics), answer


def code_example(
    vocabulary: Vocabulary, piece: Piece, codes: list[int], recipe: PlannerRecipe, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Return the ids of prompt and answer for understanding codes or planning them."""
    if rng.random() < recipe.understand / (1 - recipe.inspire - recipe.format):
        return prompts.understand_prompt(vocabulary, codes), [
            *_block(vocabulary, piece, genres=True),
            *_song(vocabulary, piece),
        ]
    answer = [*vocabulary.code_ids(codes), vocabulary.turn_end]
    if rng.random() < recipe.unconditional:
        return prompts.unconditional_prompt(vocabulary), answer
    caption = piece.caption if rng.random() < 0.6 else query_of(piece, rng)
    plan = _block(vocabulary, piece, genres=False)
    return prompts.plan_prompt(vocabulary, caption, piece.lyrics), [*plan, *vocabulary.encode("\n\n"), *answer]


def _song(vocabulary: Vocabulary, piece: Piece) -> list[int]:
    return [*vocabulary.encode(f"\n\n# Lyric\n{piece.lyrics}"), vocabulary.turn_end]


def _block(vocabulary: Vocabulary, piece: Piece, genres: bool) -> list[int]:
    return [vocabulary.think, *vocabulary.encode(f"\n{block_of(piece, genres)}\n"), vocabulary.think_end]


@torch.no_grad()
def codes_of_pool(pool: LatentPool, model: AceStepModel, shifts: int = 1) -> list[tuple[int, list[int]]]:
    """Return seed and audio codes of every piece at each shift.

    A shift of one frame gives other codes for the same music, because a code is five frames.
    """
    rows = []
    for pieces in pool.by_frames.values():
        for seed, latents in pieces:
            frames = torch.from_numpy(latents.astype(np.float32))
            rows += [(seed, model.tokenize(frames[None, shift:])[0].tolist()) for shift in range(shifts)]
    return rows


class SharedLevels(nn.Module):
    """A parametrization of the embedding table in which audio codes share the rows of their FSQ levels.

    A code is one level on each of a few axes. Its embedding is its own row plus one shared row for each level. Without
    sharing, each of 2560 rows would learn from some thirty uses alone.
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
        """Start a code's own row at zero, because its levels have shared rows already."""
        return torch.cat((table[: self.first], torch.zeros_like(table[self.first :])))


def share_levels(network: nn.Module, first: int) -> None:
    """Parametrize the embedding table so that audio codes (rows from `first` on) share rows by level."""
    table = network.model.embed_tokens
    parametrize.register_parametrization(table, "weight", SharedLevels(table.weight, first), unsafe=True)


def merge_levels(network: nn.Module) -> None:
    """Undo `share_levels` and keep the values of the table."""
    parametrize.remove_parametrizations(network.model.embed_tokens, "weight")


def build_planner(rows: int) -> nn.Module:
    """Build transformers' Qwen3 with nano's dimensions, because the core's network is for inference only."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = asdict(nano_config.PLANNER) | {"vocab_size": rows, "tie_word_embeddings": True}
    theta = config.pop("rope_theta")
    for name in ("audio_base", "audio_codes"):
        config.pop(name)
    return Qwen3ForCausalLM(Qwen3Config(**config, rope_parameters={"rope_type": "default", "rope_theta": theta}))


class PlannerTrainer:
    def __init__(
        self,
        recipe: PlannerRecipe,
        pieces: list[tuple[int, list[int]]],
        held: list[tuple[int, list[int]]],
        vocabulary: Vocabulary,
        out: Path,
        device: str = "cpu",
        start: Path | None = None,
    ):
        self.recipe, self.pieces, self.held, self.vocabulary, self.out = recipe, pieces, held, vocabulary, out
        self.device = torch.device(device)
        self.step, self.seconds = 0, 0.0
        self.network = build_planner(vocabulary.audio_base + vocabulary.codes).to(self.device)
        init_transformer(self.network, torch.Generator().manual_seed(recipe.seed))
        self.network.requires_grad_(True)
        with torch.no_grad():  # the table is also the output head, whose logits shall start small
            self.network.model.embed_tokens.weight.mul_(self.network.config.hidden_size**-0.5)
        if start is not None:
            load_planner_into(self.network.model, start)
        share_levels(self.network, vocabulary.audio_base)
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
        """Return ids and targets, each `[rows, tokens]`."""
        examples = []
        first = HELD_OUT if pieces is self.held else 0
        for _ in range(rows):
            if rng.random() < self.recipe.inspire + self.recipe.format:  # text tasks
                piece = piece_of(first + int(rng.integers(TEXT_PIECES)))
                prompt, answer = song_example(self.vocabulary, piece, self.recipe, rng)
            else:
                seed, codes = pieces[int(rng.integers(len(pieces)))]
                prompt, answer = code_example(self.vocabulary, piece_of(seed), codes, self.recipe, rng)
            examples.append((prompt + answer, [IGNORED] * len(prompt) + answer))
        longest = max(len(ids) for ids, _ in examples)
        ids = torch.tensor([row + [self.vocabulary.turn_end] * (longest - len(row)) for row, _ in examples])
        targets = torch.tensor([row + [IGNORED] * (longest - len(row)) for _, row in examples])
        return ids.to(self.device), targets.to(self.device)

    def loss(self, ids: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss of the answers, and the means of text tokens and of codes."""
        with mixed(self.device), parametrize.cached():
            hidden = self.compute(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            learned = targets[:, 1:] != IGNORED
            logits = F.linear(hidden[learned], self.network.model.embed_tokens.weight)
        targets = targets[:, 1:][learned]
        losses = F.cross_entropy(logits.float(), targets, reduction="none")
        is_code = targets >= self.vocabulary.audio_base
        parts = {"text": losses[~is_code], "codes": losses[is_code]}
        return losses.mean(), {name: float(part.detach().mean()) for name, part in parts.items() if len(part)}

    def train_step(self) -> dict[str, float]:
        recipe = self.recipe
        ids, targets = self.batch(self.pieces, recipe.rows, np.random.default_rng([recipe.seed, 3, self.step]))
        for group in self.optimiser.param_groups:
            group["lr"] = (
                recipe.rate * min(1, (self.step + 1) / recipe.warmup) / (1 + self.step / recipe.half_life) ** 0.5
            )
        loss, parts = self.loss(ids, targets)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimiser.step()
            self.average.update(self.step)
        self.step += 1
        return {"loss": float(loss.detach()), "text": 0.0, "codes": 0.0} | parts

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the losses of the averaged weights on held-out pieces."""
        self.average.swap()
        ids, targets = self.batch(self.held, 48, np.random.default_rng(5))
        _, parts = self.loss(ids, targets)
        self.average.swap()
        return {"text": 0.0, "codes": 0.0} | parts


def load_audio_tokenizer(fsq: Path | None, vae: Path, start: Path | None = None) -> AceStepModel:
    """Return a model with a trained audio tokenizer, from the state in `fsq` or from a checkpoint.

    Raises FileNotFoundError if there is neither.
    """
    if fsq is None and start is not None:
        model, _ = load_network(start / NETWORK_FOLDER, device="cpu", dtype=torch.float32)
    else:
        model = AceStepModel(nano_config.MODEL).eval().requires_grad_(False)
        saved = None if fsq is None else load_state(fsq, "fsq")
        if saved is None:
            raise FileNotFoundError(f"fsq: no training state in {fsq}. Run `python -m training.fsq` first.")
        model.tokenizer.load_state_dict(saved["tokenizer"])
        model.detokenizer.load_state_dict(saved["detokenizer"])
    model.silence_latent = silence_of(load_trained(vae))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("latents", "held", "vae", "tokenizer", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--fsq", type=Path, help="the folder of training.fsq; not needed with --start")
    parser.add_argument("--start", type=Path, help="a checkpoint to start from, such as acestep_core/nano")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rows", type=int, default=PlannerRecipe.rows)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    model = load_audio_tokenizer(args.fsq, args.vae, args.start)
    pieces = codes_of_pool(LatentPool(args.latents), model, model.tokenizer.window)
    held = codes_of_pool(LatentPool(args.held), model)
    vocabulary = Vocabulary.of(nano_tokenizer(args.tokenizer), codes=nano_config.CODES)
    trainer = PlannerTrainer(PlannerRecipe(rows=args.rows), pieces, held, vocabulary, args.out, args.device, args.start)
    log.info(
        "%.1f M parameters, %d examples, %d codes",
        sum(p.numel() for p in trainer.network.parameters()) / 1e6,
        len(pieces),
        sum(len(codes) for _, codes in pieces),
    )
    run(trainer if args.no_compile else trainer.compile(), args.minutes)


if __name__ == "__main__":
    main()
