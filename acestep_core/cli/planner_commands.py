"""The commands of the planner: `acestep plan`, `acestep write`, `acestep listen`.

Each prints a song as one JSON object (several in a list), and reads what any other wrote, so that one command's output
is the next one's input: `acestep write "a sea shanty" | acestep plan --from - -o song.json`, and
`acestep --from song.json` plays it. See `song_file` for the names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..files import check_output_path, write_text
from ..song.song import Metadata
from ..song.song_file import METADATA_FIELDS, SavedSong, load_codes, to_json
from .inputs import check_counts, is_song_file, read_songs
from .options import listen_parser, plan_parser, write_parser
from .terminal import Terminal

if TYPE_CHECKING:
    from ..callbacks import Callbacks
    from ..planner.functions import Written
    from ..planner.load_planner import Planner
    from ..planner.token_sampling import Sampling
    from ..song.codes import Codes

Given = Mapping[str, Any]


# --- acestep plan ---------------------------------------------------------------------------------------------------


def plan_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Fills in what a song leaves open and writes its audio codes."""
    parser = plan_parser()
    given = vars(parser.parse_args(arguments))
    if "caption" not in given and "from" not in given:
        parser.error('say how the song shall sound, such as: acestep plan "warm lo-fi piano"')
    check_counts(given, "batch", "best_of")
    songs = read_songs(given)

    def make(planner: Planner, seeds: Sequence[int], callbacks: Callbacks) -> list[SavedSong]:
        return [made for song in songs for made in _planned(planner, song, seeds, given, callbacks)]

    tries = 1 if given.get("no_codes") else given.get("best_of", 1)
    _run(given, terminal, make, seeds=max(given.get("batch", 1), tries))


def _planned(
    planner: Planner, kept: SavedSong, seeds: Sequence[int], given: Given, callbacks: Callbacks
) -> list[SavedSong]:
    """One song, as often as the batch is large."""
    from ..planner.functions import CODING, PLANNING, ignored, plan
    from ..planner.functions import codes as write_codes
    from ..planner.scoring import best_codes

    batch, tries = given.get("batch", 1), given.get("best_of", 1)
    each = given.get("plan_each") or given.get("no_codes")  # without codes there is nothing else to tell them apart
    sampling = _sampling(PLANNING, given)
    rewrite = not given.get("no_rewrite")
    of_codes = [name for name in ("best_of", "guidance", "negative", "first_layout") if name in given]
    guidance = given.get("guidance", CODING.guidance)
    without = [f"--{name.replace('_', '-')}" for name in of_codes] if given.get("no_codes") else []
    for sentence in ignored(kept.song, rewrite=rewrite, negative=given.get("negative", ""), guidance=guidance,
                            without_codes=without):  # fmt: skip
        callbacks.warn(sentence)
    plans = plan(
        planner, kept.song, seeds if each else seeds[:1], rewrite=rewrite, sampling=sampling, callbacks=callbacks
    )
    if given.get("no_codes"):
        made = [SavedSong(item.song, genres=kept.genres, seed=seed) for item, seed in zip(plans, seeds, strict=True)]
        return made[:batch]
    sampling = _sampling(CODING, given, "guidance")
    wishes = {"sampling": sampling, "negative": given.get("negative", ""), "legacy": given.get("first_layout", False)}
    planned = plans if each else plans[0]
    if tries > 1:
        best = best_codes(planner, planned, seeds, **wishes, callbacks=callbacks)[:batch]
        return [SavedSong(item.song, item.codes, kept.genres, item.seed, round(item.score.reward, 4)) for item in best]
    written = write_codes(planner, planned, seeds, **wishes, callbacks=callbacks)
    songs = [item.song for item in plans] if each else [plans[0].song] * len(seeds)
    return [SavedSong(*made) for made in zip(songs, written, [kept.genres] * len(seeds), seeds, strict=True)]


# --- acestep write --------------------------------------------------------------------------------------------------


def write_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Makes a whole song of one line, or polishes one."""
    parser = write_parser()
    given = vars(parser.parse_args(arguments))
    if "idea" not in given and "from" not in given:
        parser.error('say what it shall be about, such as: acestep write "a sea shanty"')
    if "idea" in given:
        _compose(given, terminal)
    else:
        _polish(given, terminal)


def _compose(given: Given, terminal: Terminal) -> None:
    for name in ("from", "lyrics"):
        if name in given:
            raise RequestError(
                f"--{name} is for a song that is there already; an idea is told in words, and what comes out can be "
                "changed with `acestep plan --from`"
            )
    wishes = {"facts": Metadata(**_given(given, *METADATA_FIELDS)), "instrumental": given.get("instrumental", False)}

    def make(planner: Planner, seeds: Sequence[int], callbacks: Callbacks) -> list[SavedSong]:
        from ..planner.functions import WRITING, compose

        sampling = _sampling(WRITING, given)
        return _kept(compose(planner, given["idea"], seeds, **wishes, sampling=sampling, callbacks=callbacks), seeds)

    _run(given, terminal, make, seeds=given.get("batch", 1))


def _polish(given: Given, terminal: Terminal) -> None:
    if given.get("instrumental"):
        raise RequestError("--instrumental is for an idea; a song that is there already is one if it has no lyrics")
    songs = [kept.song for kept in read_songs(given)]

    def make(planner: Planner, seeds: Sequence[int], callbacks: Callbacks) -> list[SavedSong]:
        from ..planner.functions import WRITING, polish

        each = [song for song in songs for _ in seeds]
        return _kept(
            polish(planner, each, seeds * len(songs), sampling=_sampling(WRITING, given), callbacks=callbacks), seeds
        )

    _run(given, terminal, make, seeds=given.get("batch", 1))


# --- acestep listen -------------------------------------------------------------------------------------------------


def listen_to_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Tells what song a recording is."""
    given = vars(listen_parser().parse_args(arguments))
    path = given["file"]
    if is_song_file(path):
        codes = [song.codes for song in load_codes(path)]
    else:
        from ..audio import read_audio

        waveform, codes = read_audio(path), []

    def make(planner: Planner, seeds: Sequence[int], callbacks: Callbacks) -> list[SavedSong]:
        from ..planner.functions import LISTENING, understand

        songs = codes or [_codes_of(waveform, given, callbacks)]
        each = [song for song in songs for _ in seeds]
        heard = understand(planner, each, seeds * len(songs), sampling=_sampling(LISTENING, given), callbacks=callbacks)
        return _kept(heard, seeds, each)

    _run(given, terminal, make, seeds=given.get("batch", 1))


def _codes_of(waveform: Any, given: Given, callbacks: Callbacks) -> Codes:
    from ..config import SAMPLE_RATE
    from ..pipeline import encode_audio, load_model, tokenize

    options = _given(given, "dtype", "models_dir", "offload")
    model = load_model(given.get("model", "nano"), device=given.get("device", "auto"), **options, callbacks=callbacks)
    return tokenize(model, encode_audio(model, waveform, SAMPLE_RATE, callbacks=callbacks), callbacks)[0]


# --- what they share ------------------------------------------------------------------------------------------------


def _given(given: Given, *names: str) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _sampling(usual: Sampling, given: Given, *more: str) -> Sampling:
    return replace(usual, **_given(given, "temperature", "top_p", *more))


def _kept(written: Sequence[Written], seeds: Sequence[int], codes: Sequence[Codes] = ()) -> list[SavedSong]:
    """What the planner wrote, for each of the seeds in turn."""
    return [
        SavedSong(item.song, codes[i] if codes else (), item.genres, seeds[i % len(seeds)])
        for i, item in enumerate(written)
    ]


def _run(
    given: Given, terminal: Terminal, make: Callable[[Planner, list[int], Callbacks], list[SavedSong]], *, seeds: int
) -> None:
    """Loads the planner, lets `make` use it with so many seeds and writes what it made."""
    from ..callbacks import Callbacks
    from ..cli import log_lines
    from ..planner.load_planner import load_planner
    from ..planner.token_sampling import Sampling
    from ..song.seeds import batch_seeds, random_seed

    check_counts(given, "batch")
    all_seeds = batch_seeds(given.get("seed", random_seed()), seeds)
    _sampling(Sampling(), given, "guidance")  # checks them
    output = check_output_path(given["output"]) if "output" in given else None
    callbacks = Callbacks() if given.get("quiet") else Callbacks(progress=terminal.progress)
    options = _given(given, "device", "dtype", "storage", "tokenizer", "models_dir", "offload")
    with log_lines(terminal, given):
        planner = load_planner(given.get("planner", "nano"), **options, callbacks=callbacks)
        text = to_json(make(planner, all_seeds, callbacks))
    if output is None:
        _print(text)
    else:
        write_text(output, text)
        print(output)


def _print(text: str) -> None:
    """As UTF-8, because another command may read it; where the console has no bytes, as it likes."""
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None or sys.stdout.isatty():
        print(text, end="")
    else:
        sys.stdout.flush()
        binary.write(text.encode("utf-8"))
        binary.flush()
