"""Train cross-attention heads to follow the lyrics:
`python -m training.alignment --start acestep_core/nano --latents DIR --held DIR --vae DIR --out DIR --minutes 50`.

The pool has sung pieces (`training.pool --sung`). At each patch, some heads learn to attend to the token that is sung
there by the composer's score. A frozen copy of the starting weights keeps the songs as they are, and flow matching
adds the syllables. A linear head that is not shipped predicts the vowels from the middle layer.
`training.lyric_heads` measures the result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from acestep_core.config import FRAME_RATE
from acestep_core.lyrics.capture import TIME
from acestep_core.lyrics.structure import parse_lyrics
from acestep_core.models.condition import stack_conditions
from acestep_core.models.dit import CrossState
from acestep_core.song.song import Song
from acestep_core.text.lyric_tokens import LyricTokens, locate_lyrics
from acestep_core.text.prompts import lyric_prompt

from .composer import compose
from .conditioning import conditions, piece_of
from .dit import DiTTrainer, Networks, argument_parser, build_trainer
from .examples import song_of
from .flow import Batch, Mixture, draw_times, masked_error
from .loop import mixed, run
from .piece import Piece
from .singing import sung_syllables
from .state import load_state, save_state
from .styles import BEATS
from .warm_start import load_networks_into

PAUSE = 0.15  # seconds that a syllable sounds after its note
VOWELS = "aeiou"
UNTIMED = -100  # target of a patch without one

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Alignment:
    """Options of the training.

    heads: pairs of a layer and its heads.
    weight: of the heads' error.
    sharpness: factor of the attention's logits over those of a probability. Only sharp attention counts in lyric times.
    vowels: weight of the vowels' error.
    keep: weight of the starting model's velocity. Flow matching has the rest.
    near: share of the songs near the noise level at which lyric times are read.
    foreign: share of these that get the lyrics of another song, to which no patch should attend.
    unsung: share of the other songs that get the text of an instrumental. They keep the starting model's velocity.
    unconditional: share of the other songs that get the null condition, with the same velocity.
    rate: factor of the learning rate of `training.dit`.
    """

    heads: tuple[tuple[int, tuple[int, ...]], ...] = ((3, (2, 3)), (4, (0, 1)))
    weight: float = 0.5
    sharpness: float = 2.0
    vowels: float = 0.3
    keep: float = 0.7
    near: float = 0.6
    foreign: float = 0.15
    unsung: float = 0.25
    unconditional: float = 0.05
    rate: float = 0.5
    mixture: Mixture = Mixture(cover=0.15, repaint=0.1, reference=0.2, drop=0)


def token_targets(
    piece: Piece, tokens: LyricTokens, nothing: int, patches: int, patch_seconds: float
) -> NDArray[np.integer]:
    """Return the condition row that each patch should attend to, [patches].

    A section's target is its tag until the first syllable. A pause after a line has the line break. nothing: row for
    the patches after the last line.
    """
    first_characters = np.array([start for start, _ in tokens.spans])
    targets = np.full(patches, nothing)
    centres = (np.arange(patches) + 0.5) * patch_seconds

    def fill(start: float, end: float, place: int) -> None:
        row = tokens.first + int(np.searchsorted(first_characters, place, side="right")) - 1
        targets[(centres >= start) & (centres < end)] = nothing if place < 0 else row

    bar_seconds = piece.beat_seconds * BEATS[piece.meter]
    structure, sung = parse_lyrics(piece.lyrics), sung_syllables(piece)
    ends = [(section.bar + section.bars) * bar_seconds for section in piece.sections]
    for section, text, end in zip(piece.sections, structure.sections, ends, strict=True):
        fill(section.bar * bar_seconds, end, text.place)
    section_of = [structure.lines[syllable.line].section or 0 for syllable in sung]
    for index, syllable in enumerate(sung):
        after = sung[index + 1] if section_of[index + 1 : index + 2] == [section_of[index]] else None
        end = ends[section_of[index]] if after is None else after.start
        if after is None or after.line != syllable.line:
            pause = min(syllable.end + PAUSE, end)
            fill(pause, end, piece.lyrics.find("\n", syllable.last))
            end = pause
        fill(syllable.start, end, syllable.first)
    return targets


def vowel_rows(piece: Piece, frames: int) -> NDArray[np.integer]:
    """Return the vowel that is sung at each frame, [frames]: 0 for none, else from 1 on."""
    rows = np.zeros(frames, np.int64)
    for note in piece.notes:
        if note.places:
            first, last = round(note.start * FRAME_RATE), round((note.start + note.seconds) * FRAME_RATE)
            rows[first:last] = 1 + VOWELS.index(note.vowel)
    return rows


class VowelHead(nn.Module):
    """A linear head that predicts the vowel of each frame from hidden rows, with an optimiser of its own."""

    def __init__(self, width: int, patch: int, rate: float = 1e-3):
        super().__init__()
        self.patch = patch
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, patch * (1 + len(VOWELS)))
        self.optimiser = torch.optim.AdamW(self.parameters(), lr=rate)

    def forward(self, hidden: Tensor, vowels: Tensor) -> Tensor:
        """Return the mean error of `hidden` [B, P, width] against `vowel_rows` [B, T]."""
        predicted = self.out(self.norm(hidden.float())).unflatten(-1, (self.patch, -1)).flatten(1, 2)
        return F.cross_entropy(predicted[:, : vowels.shape[1]].mT, vowels)

    def step(self) -> None:
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)


class HeadProbe:
    """A probe that stores the queries of one layer's cross-attention. state: the layer's input, with the probe."""

    def __init__(self, state: CrossState, heads: Sequence[int]):
        self.keys, self.heads = state.keys, heads
        self.queries: Tensor | None = None
        self.state = replace(state, probe=self._store)

    def _store(self, queries: Tensor) -> None:
        self.queries = queries

    def error(self, targets: Tensor, mask: Tensor | None, sharpness: float) -> Tensor:
        """Return the mean cross-entropy of the heads at each patch, [B, P]. It is 0 at an untimed one."""
        assert self.queries is not None
        errors = []
        for head in self.heads:
            group, own = divmod(head, self.queries.shape[2])
            keys = self.keys[:, group].float()
            scores = self.queries[:, group, own].float() @ keys.mT / (math.sqrt(keys.shape[-1]) * sharpness)
            if mask is not None:
                scores = scores.masked_fill(~mask[:, 0], -torch.inf)
            errors.append(F.cross_entropy(scores.mT, targets, reduction="none", ignore_index=UNTIMED))
        return torch.stack(errors).mean(0)


@dataclass(frozen=True)
class Result:
    """A velocity [B, T, 64] with the attention that led to it. mask: of the condition rows."""

    velocity: Tensor
    probes: list[HeadProbe]
    mask: Tensor | None

    def errors(self, targets: Tensor, sharpness: float) -> Tensor:
        """Return the error of each probed layer at each patch, [layers, B, P]."""
        return torch.stack([probe.error(targets, self.mask, sharpness) for probe in self.probes])


class AlignmentTrainer(DiTTrainer):
    """A `DiTTrainer` of a finished model, of which some heads learn to follow the lyrics.

    teacher: the starting networks.
    """

    def __init__(self, plan: Alignment, teacher: Networks, stage: DiTTrainer):
        self.__dict__.update(stage.__dict__)
        self.plan, self.teacher = plan, teacher.to(self.device).requires_grad_(False)
        self.teacher.model.silence_latent = self.networks.model.silence_latent
        config = self.networks.model.config
        self.vowels = VowelHead(config.hidden_size, config.patch_size).to(self.device)
        saved = load_state(self.out, "vowels")
        if saved is not None:
            self.vowels.load_state_dict(saved["head"])
            self.vowels.optimiser.load_state_dict(saved["optimiser"])

    def save(self) -> None:
        super().save()
        head = {"head": self.vowels.state_dict(), "optimiser": self.vowels.optimiser.state_dict()}
        save_state(self.out, "vowels", head)

    def train_step(self) -> dict[str, float]:
        plan = self.plan
        rng = np.random.default_rng([self.recipe.seed, 3, self.step])
        batch = self.batch(self.pool, rng, plan.mixture, self.recipe.frames)
        count = len(batch)
        near = rng.random(count) < plan.near
        around = TIME * rng.choice([0.5, 1.0, 1.0, 2.0], count)
        t = torch.where(torch.from_numpy(near), torch.from_numpy(around).float(), draw_times(count, rng))
        foreign = near & (rng.random(count) < plan.foreign)
        unsung = ~near & (rng.random(count) < plan.unsung)
        dropped = ~near & (rng.random(count) < plan.unconditional)
        songs = self._other_texts(batch.songs, foreign, unsung, rng)
        noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(self.step)).to(self.device)
        t = t.to(self.device)
        x = t[:, None, None] * noise + (1 - t[:, None, None]) * batch.latents
        with mixed(self.device):
            with torch.no_grad():
                reference = self._run(self.teacher, batch, songs, dropped, x, t).velocity
            result = self._run(self.networks, batch, songs, dropped, x, t, plan.heads)
        drift = masked_error(result.velocity, reference, batch.context)
        flow = masked_error(result.velocity, noise - batch.latents, batch.context)
        keep = torch.from_numpy(np.where(foreign | unsung | dropped, 1.0, plan.keep)).to(drift)
        targets = self._targets(batch.seeds, songs, foreign, unsung | dropped, x.shape[1])
        errors = result.errors(targets, plan.sharpness)
        align = errors.sum() / (targets != UNTIMED).sum().clamp_min(1) / len(errors)
        loss = (keep * drift + (1 - keep) * flow).mean()
        vowels = self._vowel_error(batch, near)
        norm = self.optimize(loss + plan.weight * align + plan.vowels * vowels, rate_factor=plan.rate)
        self.vowels.step()
        values = {"loss": loss, "drift": drift.mean(), "align": align, "vowels": vowels}
        read = near & ~foreign
        if read.any():
            values["read"] = errors[-1][torch.from_numpy(read).to(self.device)].mean()
        return {name: float(value.detach()) for name, value in values.items()} | {"grad": norm}

    def _other_texts(self, songs: list[Song], foreign: Mask, unsung: Mask, rng: np.random.Generator) -> list[Song]:
        """Return the songs with other lyrics, or with the text of an instrumental of the same duration."""
        result = list(songs)
        for i in np.flatnonzero(foreign):
            result[i] = replace(songs[i], lyrics=songs[(i + 1) % len(songs)].lyrics)
        for i in np.flatnonzero(unsung):
            text = song_of(_unsung_piece(rng), rng, self.recipe.metadata_dropout)
            result[i] = replace(text, metadata=replace(text.metadata, duration=songs[i].metadata.duration))
        return result

    def _vowel_error(self, batch: Batch, near: Mask) -> Tensor:
        """Return the error of the vowels, which the latents hold near the noise level of lyric times."""
        if not near.any():
            return torch.zeros((), device=self.device)
        frames = batch.latents.shape[1]
        rows = [vowel_rows(compose(batch.seeds[i]), frames) for i in np.flatnonzero(near)]
        hidden = self.middle.rows[torch.from_numpy(near).to(self.device)]
        return self.vowels(hidden, torch.from_numpy(np.stack(rows)).to(self.device))

    def _run(
        self,
        networks: Networks,
        batch: Batch,
        songs: list[Song],
        dropped: Mask,
        x: Tensor,
        t: Tensor,
        heads: Sequence[tuple[int, Sequence[int]]] = (),
    ) -> Result:
        model = networks.model
        rows = conditions(model.encoder, networks.tower, songs, batch.tasks, batch.timbre)
        condition, mask = stack_conditions(
            [model.null_condition_emb if drop else row for row, drop in zip(rows, dropped, strict=True)]
        )
        prepared = model.decoder.prepare(batch.context, condition, mask)
        cross, probes = list(prepared.cross), []
        for layer, own in heads:
            probes.append(HeadProbe(cross[layer], own))
            cross[layer] = probes[-1].state
        return Result(model.decoder(x, t, replace(prepared, cross=cross)), probes, prepared.mask)

    def _targets(self, seeds: list[int], songs: list[Song], foreign: Mask, untimed: Mask, frames: int) -> Tensor:
        """Return the targets of all songs, [B, P]."""
        tokenizer, patch = self.networks.tower.tokenizer, self.networks.model.config.patch_size
        patches, targets = -(-frames // patch), []
        for i, (seed, song) in enumerate(zip(seeds, songs, strict=True)):
            prompt = lyric_prompt(song)
            nothing = len(tokenizer.encode_prompt(prompt)[0])  # the timbre, whose row follows the lyrics
            if untimed[i]:
                targets.append(np.full(patches, UNTIMED))
            elif foreign[i] and song.lyrics != piece_of(seed).lyrics:
                targets.append(np.full(patches, nothing))
            else:
                tokens = locate_lyrics(tokenizer, prompt)
                targets.append(token_targets(compose(seed), tokens, nothing, patches, patch / FRAME_RATE))
        return torch.from_numpy(np.stack(targets)).to(self.device)

    @torch.no_grad()
    def evaluate(self, songs: bool = False) -> dict[str, float]:
        """Return the averaged weights' errors on held-out pieces, where lyric times are read and at pure noise."""
        self.average.swap()
        rng = np.random.default_rng(7)
        totals: dict[str, list[float]] = {}
        for index in range(6):
            batch = self.batch(self.held, rng, Mixture(0, 0, 0, 0), 1500)
            noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(index)).to(self.device)
            none = np.zeros(len(batch), bool)
            for time in (TIME, 1.0):
                t = torch.full((len(batch),), time, device=self.device)
                x = time * noise + (1 - time) * batch.latents
                with mixed(self.device):
                    reference = self._run(self.teacher, batch, batch.songs, none, x, t).velocity
                    result = self._run(self.networks, batch, batch.songs, none, x, t, self.plan.heads)
                targets = self._targets(batch.seeds, batch.songs, none, none, x.shape[1])
                errors = result.errors(targets, self.plan.sharpness)
                if time == TIME:
                    totals.setdefault("vowels", []).append(float(self._vowel_error(batch, ~none)))
                for (layer, _), error in zip(self.plan.heads, errors, strict=True):
                    totals.setdefault(f"align_{layer}_{time:g}", []).append(float(error.mean()))
                flow = (result.velocity - noise + batch.latents).square().mean()
                totals.setdefault(f"flow_{time:g}", []).append(float(flow))
                drift = (result.velocity - reference).square().mean()
                totals.setdefault(f"drift_{time:g}", []).append(float(drift))
        self.average.swap()
        return {name: float(np.mean(values)) for name, values in totals.items()}


def _unsung_piece(rng: np.random.Generator) -> Piece:
    """Return the text of a random instrumental piece."""
    pieces = (piece_of(int(rng.integers(0, 6000))) for _ in itertools.count())
    return next(piece for piece in pieces if "voice" not in piece.instruments)


def freeze_for_alignment(trainer: DiTTrainer) -> None:
    """Freeze everything except for the transformer and the lyric encoder."""
    trainer.heads.requires_grad_(False)
    trainer.networks.requires_grad_(False)
    for part in (trainer.networks.model.decoder, trainer.networks.model.encoder.lyric_encoder):
        part.requires_grad_(True)


def main() -> None:
    args = argument_parser().parse_args()
    if args.start is None:
        raise SystemExit("start: missing. Give a checkpoint, such as acestep_core/nano.")
    stage = build_trainer(args)
    tower = stage.networks.tower
    teacher = Networks(stage.networks.model.config, tower.config, tower.tokenizer)
    load_networks_into(teacher, args.start)
    trainer = AlignmentTrainer(Alignment(), teacher, stage)
    freeze_for_alignment(trainer)
    if not args.no_compile:
        trainer.compile()
    run(trainer, args.minutes, evaluate_every=100)


if __name__ == "__main__":
    main()
