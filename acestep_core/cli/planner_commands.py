"""The commands of the planner, ACE-Step 1.5's 5 Hz LM: `acestep plan`, `acestep write`, `acestep listen`.

Each command reads and writes songs as JSON (see `song_file`), so commands can be chained. For example,
`acestep write "a sea shanty" | acestep plan --from - -o song.json`. Then `acestep --from song.json` makes the audio.
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
from .inputs import AUTO_DURATION, check_counts, is_song_file, read_songs
from .parsers import listen_parser, plan_parser, write_parser
from .terminal import Terminal, log_lines, printable

if TYPE_CHECKING:
    from ..callbacks import Callbacks
    from ..planner.load_planner import Planner
    from ..planner.token_sampling import TokenSampling
    from ..planner.writing import WrittenSong
    from ..song.codes import Codes

Options = Mapping[str, Any]
Work = Callable[["Planner", "list[int]", "Callbacks"], "list[SavedSong]"]


# --- acestep plan ---------------------------------------------------------------------------------------------------


def plan_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Complete the metadata of songs and generate their audio codes."""
    parser = plan_parser()
    options = vars(parser.parse_args(arguments))
    if "caption" not in options and "from" not in options:
        parser.error('a caption or --from is required, for example: acestep plan "warm lo-fi piano"')
    check_counts(options, "best_of")
    songs = read_songs(options)

    def work(planner: Planner, seeds: Sequence[int], callbacks: Callbacks) -> list[SavedSong]:
        return [planned for song in songs for planned in planned_takes(planner, song, seeds, options, callbacks)]

    candidates = 1 if options.get("no_codes") else options.get("best_of", 1)
    _run(options, terminal, work, count=max(options.get("batch", 1), candidates))


def planned_takes(
    planner: Planner, saved: SavedSong, seeds: Sequence[int], options: Options, callbacks: Callbacks
) -> list[SavedSong]:
    """Plan one song with each of the seeds. With --best-of, return the --batch best plans."""
    from ..planner.planning import CODING, PLANNING, ignored_options, plan, plan_codes
    from ..planner.scoring import best_codes

    no_codes, rewrite = options.get("no_codes", False), not options.get("no_rewrite")
    codes_options = [name for name in ("best_of", "guidance", "negative_prompt") if name in options]
    coding = token_sampling_of(CODING, options, "guidance")
    negative_prompt = options.get("negative_prompt", "")
    for sentence in ignored_options(
        saved.song,
        rewrite_caption=rewrite,
        negative_prompt=negative_prompt,
        guidance=coding.guidance,
        without_codes=[f"--{name.replace('_', '-')}" for name in codes_options] if no_codes else [],
    ):
        callbacks.warn(sentence)
    per_take = no_codes or options.get("metadata_per_take")  # without codes, only metadata can differ
    plans = plan(
        planner,
        saved.song,
        seeds if per_take else seeds[:1],
        rewrite_caption=rewrite,
        sampling=token_sampling_of(PLANNING, options),
        callbacks=callbacks,
    )
    plans = plans if per_take else plans * len(seeds)
    if no_codes:
        return [SavedSong(item.song, (), saved.genres, seed) for item, seed in zip(plans, seeds, strict=True)]
    if options.get("best_of", 1) > 1:
        ranked = best_codes(
            planner, plans, seeds, sampling=coding, negative_prompt=negative_prompt, callbacks=callbacks
        )
        return [
            SavedSong(item.song, item.codes, saved.genres, item.seed, round(item.score.reward, 4))
            for item in ranked[: options.get("batch", 1)]
        ]
    codes = plan_codes(planner, plans, seeds, sampling=coding, negative_prompt=negative_prompt, callbacks=callbacks)
    return [
        SavedSong(item.song, item_codes, saved.genres, seed)
        for item, item_codes, seed in zip(plans, codes, seeds, strict=True)
    ]


# --- acestep write --------------------------------------------------------------------------------------------------


def write_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Write a whole song from one line, or polish songs."""
    parser = write_parser()
    options = vars(parser.parse_args(arguments))
    if "idea" in options:
        _compose(options, terminal)
    elif "from" in options:
        _polish(options, terminal)
    else:
        parser.error('an idea or --from is required, for example: acestep write "a sea shanty"')


def _compose(options: Options, terminal: Terminal) -> None:
    for name in ("from", "lyrics"):
        if name in options:
            raise RequestError(
                f"--{name} cannot be combined with an idea; change the written song with `acestep plan --from`"
            )
    given = {name: value for name, value in given_options(options, *METADATA_FIELDS).items() if value != AUTO_DURATION}
    metadata = Metadata(**given)

    def work(planner: Planner, seeds: Sequence[int], callbacks: Callbacks) -> list[SavedSong]:
        from ..planner.writing import WRITING, compose

        written = compose(
            planner,
            options["idea"],
            seeds,
            instrumental=options.get("instrumental", False),
            metadata=metadata,
            sampling=token_sampling_of(WRITING, options),
            callbacks=callbacks,
        )
        return _saved(written, seeds)

    _run(options, terminal, work)


def _polish(options: Options, terminal: Terminal) -> None:
    if options.get("instrumental"):
        raise RequestError("--instrumental needs an idea; a song without lyrics is instrumental already")
    songs = [saved.song for saved in read_songs(options)]

    def work(planner: Planner, seeds: list[int], callbacks: Callbacks) -> list[SavedSong]:
        from ..planner.writing import WRITING, polish

        each = [song for song in songs for _ in seeds]
        sampling = token_sampling_of(WRITING, options)
        return _saved(polish(planner, each, seeds * len(songs), sampling=sampling, callbacks=callbacks), seeds)

    _run(options, terminal, work)


# --- acestep listen -------------------------------------------------------------------------------------------------


def listen_to_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Describe audio or audio codes as a song."""
    options = vars(listen_parser().parse_args(arguments))
    path = options["file"]
    if is_song_file(path):
        codes = [saved.codes for saved in load_codes(path)]
    else:
        from ..audio import read_audio

        waveform, codes = read_audio(path), []

    def work(planner: Planner, seeds: list[int], callbacks: Callbacks) -> list[SavedSong]:
        from ..planner.writing import LISTENING, understand

        songs = codes or [_codes_of(waveform, options, callbacks)]
        each, all_seeds = [song for song in songs for _ in seeds], seeds * len(songs)
        found = understand(
            planner, each, all_seeds, sampling=token_sampling_of(LISTENING, options), callbacks=callbacks
        )
        return _saved(found, seeds, each)

    _run(options, terminal, work)


def _codes_of(waveform: Any, options: Options, callbacks: Callbacks) -> Codes:
    from ..config import SAMPLE_RATE
    from ..pipeline import encode_audio, load_model, tokenize

    load_options = given_options(options, "device", "dtype", "models_dir", "offload")
    model = load_model(options.get("model", "nano"), **load_options, callbacks=callbacks)
    return tokenize(model, encode_audio(model, waveform, SAMPLE_RATE, callbacks=callbacks), callbacks)[0]


# --- shared ---------------------------------------------------------------------------------------------------------


def given_options(options: Options, *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}


def token_sampling_of(defaults: TokenSampling, options: Options, *more: str) -> TokenSampling:
    return replace(defaults, **given_options(options, "temperature", "top_p", *more))


def _saved(written: Sequence[WrittenSong], seeds: Sequence[int], codes: Sequence[Codes] = ()) -> list[SavedSong]:
    """Return the planner's songs with their seeds, which repeat for each input."""
    return [
        SavedSong(item.song, codes[i] if codes else (), item.genres, seeds[i % len(seeds)])
        for i, item in enumerate(written)
    ]


def _run(options: Options, terminal: Terminal, work: Work, count: int | None = None) -> None:
    """Load the planner, call `work` with `count` seeds (default: --batch), and write its songs."""
    from ..callbacks import Callbacks
    from ..lyrics.check import check_lyrics
    from ..planner.load_planner import load_planner
    from ..planner.token_sampling import TokenSampling
    from ..song.seeds import distinct_seeds, random_seed

    check_counts(options, "batch")
    seeds = distinct_seeds(options.get("seed", random_seed()), count or options.get("batch", 1))
    token_sampling_of(TokenSampling(), options, "guidance")  # raises RequestError before the planner is loaded
    output = check_output_path(options["output"], ".json") if "output" in options else None
    callbacks = Callbacks() if options.get("quiet") else Callbacks(progress=terminal.progress)
    load_options = given_options(options, "device", "dtype", "storage", "tokenizer", "models_dir", "offload", "graphs")
    with log_lines(terminal, options):
        planner = load_planner(options.get("planner", "nano"), **load_options, callbacks=callbacks)
        songs = work(planner, seeds, callbacks)
        for note in dict.fromkeys(note for saved in songs for note in check_lyrics(saved.song)):
            callbacks.warn(note)
        text = to_json(songs)
    if output is None:
        _print(text)
    else:
        write_text(output, text)
        print(output)


def _print(text: str) -> None:
    """Print JSON as UTF-8 if another command may read it, and in the console's encoding otherwise."""
    text = printable(text)
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None or sys.stdout.isatty():
        print(text, end="")
    else:
        sys.stdout.flush()
        binary.write(text.encode("utf-8"))
        binary.flush()
