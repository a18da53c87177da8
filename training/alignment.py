"""Train cross-attention heads to follow the lyrics:
`python -m training.alignment --start acestep_core/nano --latents DIR --held DIR --vae DIR --out DIR --minutes 60`.

The pool has sung pieces (`training.pool --sung`). At each patch, some heads learn to attend to the token that is sung
there by the composer's score, and heads that are not shipped predict the place in the lyrics (`training.lyric_places`).
A frozen copy of the starting weights keeps the songs as they are, also for captions in other words, and flow matching
adds the syllables. `training.lyric_heads` measures the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acestep_core.config import FRAME_RATE
from acestep_core.lyrics.capture import TIME
from acestep_core.models.condition import stack_conditions
from acestep_core.song.song import Song
from acestep_core.text.lyric_tokens import LyricTokens, locate_lyrics
from acestep_core.text.prompts import lyric_prompt

from .composer import compose
from .conditioning import conditions, piece_of
from .dit import DiTTrainer, Networks, argument_parser, build_trainer
from .examples import song_of
from .flow import Batch, Mixture, draw_times, masked_error
from .loop import mixed, run
from .lyric_places import NOWHERE, PlaceHeads, features, joined, patch_places, token_rows
from .piece import Piece
from .probes import UNTIMED, HeadProbe, LayerOutput, Result
from .state import load_state, save_state
from .warm_start import load_networks_into
from .wording import free_caption

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Alignment:
    """Options of the training.

    heads: pairs of a layer and its heads.
    weight: of the heads' error.
    velocity: weight of the velocity's error.
    sharpness: factor of the attention's logits over those of a probability. Only sharp attention counts in lyric times.
    layers: the layers whose output predicts places in the lyrics.
    places: weight of the places' error.
    keep: weight of the starting model's velocity. Flow matching has the rest.
    near: share of the songs near the noise level at which lyric times are read. They have flow matching alone.
    near_flow: its weight.
    foreign: share of these that get the lyrics of another song, to which no patch should attend.
    unsung: share of the other songs that get the text of an instrumental. They keep the starting model's velocity.
    unconditional: share of the other songs that get the null condition, with the same velocity.
    worded: share of the other songs whose caption is in free wording. Their starting velocity is that of the composer's
        caption.
    rate: factor of the learning rate of `training.dit`.
    """

    heads: tuple[tuple[int, tuple[int, ...]], ...] = ((2, (2, 3)), (3, (2, 3)), (4, (0, 1)))
    weight: float = 0.5
    velocity: float = 3.0
    sharpness: float = 2.0
    layers: tuple[int, ...] = (1, 2, 3)
    places: float = 0.15
    keep: float = 0.4
    near: float = 0.4
    near_flow: float = 0.2
    foreign: float = 0.15
    unsung: float = 0.2
    unconditional: float = 0.05
    worded: float = 0.3
    rate: float = 0.8
    mixture: Mixture = Mixture(cover=0.15, repaint=0.1, reference=0.2, drop=0)


@dataclass(frozen=True)
class Text:
    """The lyrics of a song as its patches should read them. places: of the patches. nothing: row without lyrics."""

    tokens: LyricTokens
    nothing: int
    places: NDArray[np.integer]


class AlignmentTrainer(DiTTrainer):
    """A `DiTTrainer` of a finished model, of which some heads learn to follow the lyrics.

    teacher: the starting networks.
    """

    def __init__(self, plan: Alignment, teacher: Networks, stage: DiTTrainer):
        self.__dict__.update(stage.__dict__)
        self.plan, self.teacher = plan, teacher.to(self.device).requires_grad_(False)
        self.teacher.model.silence_latent = self.networks.model.silence_latent
        config, layers = self.networks.model.config, self.networks.model.decoder.layers
        self.hidden = [LayerOutput(layers[layer]) for layer in plan.layers]
        widths = [config.encoder_hidden_size] + [config.hidden_size] * len(plan.layers)
        self.places = PlaceHeads(widths).to(self.device)
        saved = load_state(self.out, "places")
        if saved is not None:
            self.places.load_state_dict(saved["heads"])
            self.places.optimiser.load_state_dict(saved["optimiser"])

    def save(self) -> None:
        super().save()
        save_state(
            self.out, "places", {"heads": self.places.state_dict(), "optimiser": self.places.optimiser.state_dict()}
        )

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
        worded = self._reworded(songs, batch.seeds, ~near & (rng.random(count) < plan.worded), rng)
        noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(self.step)).to(self.device)
        t = t.to(self.device)
        x = t[:, None, None] * noise + (1 - t[:, None, None]) * batch.latents
        with mixed(self.device):
            reference = self._reference(batch, songs, dropped, x, t, np.flatnonzero(~near))
            result = self._run(self.networks, batch, worded, dropped, x, t, plan.heads)
        texts = self._texts(batch.seeds, songs, foreign, x.shape[1])
        targets = self._targets(texts, unsung | dropped)
        errors = result.errors(targets, plan.sharpness)
        align = errors.sum() / (targets != UNTIMED).sum().clamp_min(1) / len(errors)
        places = self._place_errors(result, texts, near & ~foreign, ~(unsung | dropped))
        loss, drifted = self._velocity_loss(result, reference, batch, noise, near, unsung | dropped)
        norm = self.optimize(
            plan.velocity * loss + plan.weight * align + plan.places * places.sum(), rate_factor=plan.rate
        )
        self.places.step()
        values = {"loss": loss, "drift": drifted, "align": align}
        values |= {f"place_{i}": value for i, value in enumerate(places)}
        read = near & ~foreign
        if read.any():
            values["read"] = errors[-1][torch.from_numpy(read).to(self.device)].mean()
        return {name: float(value.detach()) for name, value in values.items()} | {"grad": norm}

    def _velocity_loss(
        self, result: Result, reference: Tensor, batch: Batch, noise: Tensor, near: Mask, without_flow: Mask
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of the velocity, and its distance from the starting model's velocity.

        without_flow: songs that only keep the starting model's velocity.
        """
        flow = masked_error(result.velocity, noise - batch.latents, batch.context)
        far = torch.from_numpy(np.flatnonzero(~near)).to(self.device)
        drift = masked_error(result.velocity[far], reference, batch.context[far])
        keep = torch.from_numpy(np.where(without_flow, 1.0, self.plan.keep)).to(flow)
        weight = torch.where(torch.from_numpy(near).to(self.device), self.plan.near_flow, 1 - keep)
        loss = ((weight * flow).sum() + (keep[far] * drift).sum()) / len(flow)
        return loss, drift.mean() if len(far) else torch.zeros((), device=self.device)

    @torch.no_grad()
    def _reference(
        self, batch: Batch, songs: list[Song], dropped: Mask, x: Tensor, t: Tensor, chosen: NDArray[np.integer]
    ) -> Tensor:
        """Return the starting model's velocity of some songs."""
        if not len(chosen):
            return x[:0]
        index = torch.from_numpy(chosen).to(self.device)
        part = replace(
            batch,
            tasks=[batch.tasks[i] for i in chosen],
            context=batch.context[index],
            timbre=batch.timbre[index],
        )
        return self._run(self.teacher, part, [songs[i] for i in chosen], dropped[chosen], x[index], t[index]).velocity

    def _other_texts(self, songs: list[Song], foreign: Mask, unsung: Mask, rng: np.random.Generator) -> list[Song]:
        """Return the songs with other lyrics, or with the text of an instrumental of the same duration."""
        result = list(songs)
        for i in np.flatnonzero(foreign):
            result[i] = replace(songs[i], lyrics=songs[(i + 1) % len(songs)].lyrics)
        for i in np.flatnonzero(unsung):
            text = song_of(_unsung_piece(rng), rng, self.recipe.metadata_dropout)
            result[i] = replace(text, metadata=replace(text.metadata, duration=songs[i].metadata.duration))
        return result

    def _reworded(self, songs: list[Song], seeds: list[int], chosen: Mask, rng: np.random.Generator) -> list[Song]:
        """Return the songs, some with a caption in free wording."""
        return [
            replace(song, caption=free_caption(piece_of(seed), rng)) if other else song
            for song, seed, other in zip(songs, seeds, chosen, strict=True)
        ]

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
        return Result(model.decoder(x, t, replace(prepared, cross=cross)), rows, probes, prepared.mask)

    def _texts(self, seeds: list[int], songs: list[Song], foreign: Mask, frames: int) -> list[Text]:
        """Return what the patches of each song should read."""
        tokenizer, patch = self.networks.tower.tokenizer, self.networks.model.config.patch_size
        patches, texts = -(-frames // patch), []
        for i, (seed, song) in enumerate(zip(seeds, songs, strict=True)):
            prompt = lyric_prompt(song)
            places = patch_places(compose(seed), patches, patch / FRAME_RATE)
            if foreign[i] and song.lyrics != piece_of(seed).lyrics:
                places[:] = NOWHERE
            nothing = len(tokenizer.encode_prompt(prompt)[0])  # the timbre, whose row follows the lyrics
            texts.append(Text(locate_lyrics(tokenizer, prompt), nothing, places))
        return texts

    def _targets(self, texts: list[Text], untimed: Mask) -> Tensor:
        """Return the condition row that each patch of each song should attend to, [B, P]."""
        rows = [
            np.full(len(text.places), UNTIMED) if skip else token_rows(text.places, text.tokens, text.nothing)
            for text, skip in zip(texts, untimed, strict=True)
        ]
        return torch.from_numpy(np.stack(rows)).to(self.device)

    def _place_errors(self, result: Result, texts: list[Text], read: Mask, lyrics: Mask) -> Tensor:
        """Return the error of each place head: of the lyric encoder, then of the layers.

        read: songs near the noise level of lyric times, whose latents hold the syllables. lyrics: songs with lyrics.
        """
        errors = [torch.zeros((), device=self.device)] * len(self.places.heads)
        rows, found = [], []
        for i in np.flatnonzero(lyrics):
            tokens = texts[i].tokens
            rows.append(result.rows[i][0, tokens.first : tokens.first + len(tokens.spans)])
            found.append(features(tokens.text, np.array([start for start, _ in tokens.spans])))
        if rows:
            errors[0] = self.places.heads[0](torch.cat(rows), joined(found))
        if read.any():
            chosen = np.flatnonzero(read)
            sung = joined([features(texts[i].tokens.text, texts[i].places) for i in chosen])
            index = torch.from_numpy(chosen).to(self.device)
            for head, (layer, hook) in enumerate(zip(self.plan.layers, self.hidden, strict=True), start=1):
                assert hook.rows is not None, layer
                errors[head] = self.places.heads[head](hook.rows[index].flatten(0, 1), sung)
        return torch.stack(errors)

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
            texts = self._texts(batch.seeds, batch.songs, none, batch.latents.shape[1])
            targets = self._targets(texts, none)
            for time in (TIME, 1.0):
                t = torch.full((len(batch),), time, device=self.device)
                x = time * noise + (1 - time) * batch.latents
                with mixed(self.device):
                    reference = self._run(self.teacher, batch, batch.songs, none, x, t).velocity
                    result = self._run(self.networks, batch, batch.songs, none, x, t, self.plan.heads)
                errors = result.errors(targets, self.plan.sharpness)
                if time == TIME:
                    for head, error in enumerate(self._place_errors(result, texts, ~none, ~none)):
                        totals.setdefault(f"place_{head}", []).append(float(error))
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
    """Freeze everything except for the transformer, the lyric encoder and the caption's encoder."""
    trainer.heads.requires_grad_(False)
    trainer.networks.requires_grad_(False)
    encoder = trainer.networks.model.encoder
    for part in (trainer.networks.model.decoder, encoder.lyric_encoder, encoder.text_projector):
        part.requires_grad_(True)
    trainer.networks.tower.qwen.layers.requires_grad_(True)


def main() -> None:
    args = argument_parser().parse_args()
    if args.start is None:
        raise SystemExit("start: missing. Give a checkpoint, such as acestep_core/nano.")
    stage = build_trainer(args)
    tower = stage.networks.tower
    teacher = Networks(stage.networks.model.config, tower.config, tower.tokenizer)
    load_networks_into(teacher, args.start)
    if not args.no_compile:
        stage.compile()  # before the trainer replaces `forward` of some layers
    trainer = AlignmentTrainer(Alignment(), teacher, stage)
    freeze_for_alignment(trainer)
    run(trainer, args.minutes, evaluate_every=100)


if __name__ == "__main__":
    main()
