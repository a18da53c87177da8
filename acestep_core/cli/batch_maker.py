"""Make songs of a batch: plan, generate, finish, write."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..batch.jobs import BatchJob, MadeSong, Outcome
from ..batch.memory_use import MemoryUse
from ..callbacks import Callbacks
from ..errors import AceStepError, Cancelled, first_line
from ..song.song_file import SavedSong
from .batch_rows import BatchSong
from .best_of import check_heads
from .edit_inputs import EditedRecording
from .finishing import with_ending
from .planner_commands import given_options, planned_takes, token_sampling_of
from .song_command import FinishedTake, finished_takes, generate_takes, load_for_recipe, lyric_notes
from .tagging import with_song

if TYPE_CHECKING:
    from pathlib import Path

    from ..audio.measured import MusicFilter
    from ..batch.outputs import SongStore
    from ..pipeline import Model, Result
    from ..planner.load_planner import Planner

log = logging.getLogger("acestep")

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
PLANNER_OPTIONS = ("device", "dtype", "storage", "tokenizer", "models_dir", "offload", "graphs")


@dataclass
class _Song:
    """A job on its way. notes: sentences for the manifest."""

    job: BatchJob
    content: BatchSong
    notes: list[str] = field(default_factory=list)
    recording: EditedRecording | None = None
    takes: list[FinishedTake] = field(default_factory=list)
    sample_rate: int = 0
    seconds: float = 0.0
    plan_score: float | None = None
    error: Exception | None = None


class BatchSongMaker:
    """Makes the songs of a batch with the models that their recipes name. Keeps the last model and the last planner.

    store: where the files go.
    together: the largest number of songs to sample at once, None for what the memory of the device holds.
    keep: songs whose measured tempo or key does not match are not written.
    cancelled: True stops the work soon.

    Calls from several threads overlap: one of them plans while another samples.
    """

    def __init__(
        self,
        store: SongStore,
        together: int | None = None,
        keep: MusicFilter | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store, self._together, self._keep, self._cancelled = store, together, keep, cancelled
        self._planning, self._sampling = threading.Lock(), threading.Lock()
        self._model: tuple[object, Model] | None = None
        self._planner: tuple[object, Planner] | None = None
        self._memory = MemoryUse()

    def make(self, jobs: Sequence[BatchJob]) -> list[Outcome]:
        """Return one outcome for each job. An error costs its job alone. Raises Cancelled."""
        songs = [_Song(job, job.content) for job in jobs]
        with self._planning:
            for song in songs:
                if song.content.edited is not None:
                    with _caught([song]):
                        song.recording = song.content.edited.recording()
            self._plan([song for song in songs if song.content.plan is not None])
        with self._sampling:
            for group in _groups([song for song in songs if song.error is None]):
                self._sample(group)
        return [self._written(song) for song in songs]

    # --- planning ---------------------------------------------------------------------------------------------------

    def _plan(self, songs: Sequence[_Song]) -> None:
        if not songs:
            return
        first = songs[0].content.plan or {}
        try:
            if len(songs) > 1 and first.get("best_of", 1) == 1:
                self._plan_together(songs)
                return
        except Exception as error:
            _raise_stop(error)
        for song in songs:
            with _caught([song]):
                self._plan_alone(song)

    def _plan_together(self, songs: Sequence[_Song]) -> None:
        """Plan several songs in one batch. They share the options of the plan."""
        from ..planner.planning import CODING, PLANNING, plan, plan_codes

        options = songs[0].content.plan or {}
        planner, callbacks = self._planner_for(options), self._callbacks(songs)
        seeds = [_plan_seed(song.content) for song in songs]
        requests = [song.content.recipe.song for song in songs]
        with _own_stream(planner):
            plans = plan(
                planner,
                requests,
                seeds,
                rewrite_caption=not options.get("no_rewrite"),
                sampling=token_sampling_of(PLANNING, options),
                callbacks=callbacks,
            )
            codes: Sequence[Any] = [()] * len(songs)
            if not options.get("no_codes"):
                codes = plan_codes(
                    planner,
                    plans,
                    seeds,
                    sampling=token_sampling_of(CODING, options, "guidance"),
                    negative_prompt=options.get("negative_prompt", ""),
                    callbacks=callbacks,
                )
        for song, planned, own in zip(songs, plans, codes, strict=True):
            song.content = _with_plan(song.content, SavedSong(planned.song, own))

    def _plan_alone(self, song: _Song) -> None:
        options = song.content.plan or {}
        planner, seed = self._planner_for(options), _plan_seed(song.content)
        seeds = [seed + i for i in range(1 if options.get("no_codes") else options.get("best_of", 1))]
        with _own_stream(planner):
            saved = planned_takes(
                planner, SavedSong(song.content.recipe.song), seeds, options, self._callbacks([song])
            )[0]
        song.content, song.plan_score = _with_plan(song.content, saved), saved.score

    def _planner_for(self, options: dict[str, Any]) -> Planner:
        from ..planner.load_planner import load_planner

        name, given = options.get("planner", "nano"), given_options(options, *PLANNER_OPTIONS)
        key = (name, sorted(given.items()))
        if self._planner is None or self._planner[0] != key:
            self._planner = None  # its memory is free before the next one is loaded
            self._planner = key, load_planner(name, **given, callbacks=self._callbacks([]))
        return self._planner[1]

    # --- sampling ---------------------------------------------------------------------------------------------------

    def _sample(self, songs: Sequence[_Song]) -> None:
        with _caught(songs):
            model = self._model_for(songs[0])
            at_once = 1
            waiting = list(songs)
            while waiting:
                at_once = self._at_once(model, waiting)
                part, waiting = waiting[:at_once], waiting[at_once:]
                if not self._generated_together(model, part):
                    for song in part:
                        with _caught([song]):
                            self._generate(model, [song])

    def _generated_together(self, model: Model, songs: Sequence[_Song]) -> bool:
        """Return True if the songs are generated in one batch, False if each is to be tried alone."""
        if len(songs) == 1:
            return False
        try:
            self._generate(model, songs)
            return True
        except Exception as error:
            _raise_stop(error)
            log.info("%d songs in one batch: %s; each is made alone", len(songs), first_line(error))
            self._memory.lower(len(songs))
            return False

    def _at_once(self, model: Model, songs: Sequence[_Song]) -> int:
        most = len(songs) if self._together is None else self._together
        if self._together is None:
            most = min(most, self._memory.songs(_device(model), _frames(songs[0].content)))
        return max(1, most // songs[0].content.takes)

    def _generate(self, model: Model, songs: Sequence[_Song]) -> None:
        started, callbacks = time.monotonic(), self._callbacks(songs)
        contents = [song.content for song in songs]
        with self._memory.measured(_device(model), _frames(contents[0]) * len(songs) * contents[0].takes):
            if len(songs) == 1:
                song, content = songs[0], contents[0]
                if content.takes > content.keep:
                    check_heads(model)
                song.notes += lyric_notes([content.recipe])
                result, scores, recording = generate_takes(
                    model, content.recipe, song.recording, content.takes, content.keep, callbacks
                )
                song.takes = list(finished_takes(result, content.recipe, recording, content.options, scores))
                song.sample_rate = result.sample_rate
            else:
                self._generate_group(model, songs, callbacks)
        for song in songs:
            song.seconds = (time.monotonic() - started) / len(songs)

    def _generate_group(self, model: Model, songs: Sequence[_Song], callbacks: Callbacks) -> None:
        from ..edit.edit import Edit
        from ..edit.tasks import TEXT2MUSIC
        from ..pipeline import generate

        contents = [song.content for song in songs]
        recipes = [content.recipe for content in contents]
        keep = contents[0].keep
        result = generate(
            model,
            [with_ending(recipe) for recipe in recipes],
            batch=keep,
            seed=[recipe.seed + i for recipe in recipes for i in range(keep)],
            settings=recipes[0].settings,
            normalize=recipes[0].normalize,
            edit=Edit(TEXT2MUSIC, codes=tuple(recipe.codes for recipe in recipes)) if recipes[0].codes else None,
            callbacks=callbacks,
        )
        for place, (song, content) in enumerate(zip(songs, contents, strict=True)):
            song.notes += lyric_notes([content.recipe])
            own = _items(result, place * keep, keep)
            song.takes = list(finished_takes(own, content.recipe, None, content.options))
            song.sample_rate = result.sample_rate

    def _model_for(self, song: _Song) -> Model:
        key = song.job.model
        if self._model is None or self._model[0] != key:
            self._model = None  # its memory is free before the next one is loaded
            self._memory = MemoryUse()
            self._model = key, load_for_recipe(song.content.recipe, song.content.options, self._callbacks([]))
        return self._model[1]

    # --- results ----------------------------------------------------------------------------------------------------

    def _written(self, song: _Song) -> Outcome:
        written = []
        try:
            if song.error is None:
                for name, take in zip(song.job.files, song.takes, strict=True):
                    written.append(self._write(song, name, take))
                return Outcome(song.job.number, written)
        except Exception as error:
            _raise_stop(error)
            song.error = error
        song.takes = []
        sentence = f"{song.job.place}: {_sentence(song.error)}"
        return Outcome(song.job.number, error=sentence, fatal=_is_full(song.error))

    def _write(self, song: _Song, name: str, take: FinishedTake) -> MadeSong:
        from ..audio import write_audio
        from ..audio.measured import measure_music

        settings, tags = take.recipe.to_dict(), song.content.tags
        content: tuple[Any, ...] = (take.waveform, song.sample_rate, settings)
        if tags is not None:
            content = (*content, with_song(tags, take.recipe.song))

        def write(path: Path) -> None:
            write_audio(path, *content)

        music = take.music or measure_music(take.waveform, song.sample_rate)
        differences = [] if self._keep is None else self._keep.mismatches(take.recipe.song, music)
        data = None if differences else self._store.store(name, write)
        scores = {"lyrics": settings.get("lyric_score"), "codes": song.plan_score}
        entry = {
            "row": song.job.number,
            "dropped" if differences else "file": name,
            "because": differences,
            "key": song.job.entry_key(bool(differences)),
            "seconds": round(take.waveform.shape[-1] / song.sample_rate, 3),
            "made_in": round(song.seconds / len(song.takes), 3),
            "scores": {name: score for name, score in scores.items() if score is not None},
            "measured": music.to_dict(),
            "notes": list(dict.fromkeys(song.notes)),
            "recipe": settings,
        }
        return MadeSong(name, {name: value for name, value in entry.items() if value not in ([], {})}, data)

    def _callbacks(self, songs: Sequence[_Song]) -> Callbacks:
        def warning(sentence: str) -> None:
            for song in songs:
                song.notes.append(sentence)

        return Callbacks(cancelled=self._cancelled, warning=warning)


def _device(model: Model) -> Any:
    return getattr(model.placement, "device", None)


def _groups(songs: Sequence[_Song]) -> list[list[_Song]]:
    """Return songs that can be sampled in one batch together."""
    groups: dict[Any, list[_Song]] = {}
    for place, song in enumerate(songs):
        content, recipe = song.content, song.content.recipe
        alone = content.edited is not None or content.takes > content.keep
        same = (recipe.settings, recipe.normalize, content.keep, len(recipe.codes), song.job.model)
        groups.setdefault((place,) if alone else (_frames(content), *same), []).append(song)
    return list(groups.values())


def _frames(content: BatchSong) -> int:
    from ..config import FRAME_RATE
    from ..text.prompts import DEFAULT_SECONDS

    return max(1, round(FRAME_RATE * (with_ending(content.recipe).metadata.duration or DEFAULT_SECONDS)))


def _items(result: Result, start: int, count: int) -> Result:
    part = slice(start, start + count)
    return replace(
        result,
        waveform=result.waveform[part],
        latents=result.latents[part],
        songs=result.songs[part],
        seeds=result.seeds[part],
        codes=result.codes[part] if len(result.codes) == len(result.songs) else result.codes,
    )


def _plan_seed(content: BatchSong) -> int:
    return (content.plan or {}).get("seed", content.recipe.seed)


def _with_plan(content: BatchSong, saved: SavedSong) -> BatchSong:
    return replace(content, recipe=replace(content.recipe, song=saved.song, codes=saved.codes))


@contextmanager
def _own_stream(planner: Planner) -> Iterator[None]:
    """Let the planner run beside the work of another thread."""
    import torch

    device = getattr(planner.placement, "device", None)
    if device is None or device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield


@contextmanager
def _caught(songs: Sequence[_Song]) -> Iterator[None]:
    """Record an error in these songs, instead of raising it. A stop is raised."""
    try:
        yield
    except Exception as error:
        _raise_stop(error)
        for song in songs:
            song.error = song.error or error


def _raise_stop(error: Exception) -> None:
    if isinstance(error, Cancelled):
        raise error


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__
    return False


def _sentence(error: Exception | None) -> str:
    if isinstance(error, AceStepError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}" if error is not None else ""
