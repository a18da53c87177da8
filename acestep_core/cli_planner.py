"""The commands of the planner: `acestep plan`, `acestep write`, `acestep listen`.

Each prints a song as one JSON object, and reads one with `--from`, so that one command's output is the next one's
input: `acestep write "a sea shanty" | acestep plan --from - -o song.json`. Names are those of a song's settings
(caption, lyrics, bpm, key, …), with `genres`, `codes` and the `seed` beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RequestError
from .song import Metadata, Song
from .terminal import Terminal

if TYPE_CHECKING:
    from .codes import Codes
    from .planner.functions import Planned, Written
    from .planner.loading import Planner
    from .runtime import Hooks

FACTS = tuple(item.name for item in fields(Metadata))


# --- acestep plan ---------------------------------------------------------------------------------------------------


def plan_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Fills in what a song leaves open and writes its audio codes."""
    parser = _parser("plan", "Plan a song: its metadata, a caption in the words of training, its audio codes.")
    parser.add_argument("caption", nargs="?", help="how it sounds")
    _song_options(parser)
    parser.add_argument("--no-rewrite", action="store_true", help="leave the caption as it is")
    parser.add_argument("--no-codes", action="store_true", help="metadata only")
    parser.add_argument("--best-of", type=int, metavar="N", help="write codes N times and keep those that fit best")
    parser.add_argument("--guidance", type=float, metavar="SCALE", help="of the codes; default 2, 1 is off")
    given = vars(parser.parse_args(arguments))
    if "caption" not in given and "from" not in given:
        parser.error('say how the song shall sound, such as: acestep plan "warm lo-fi piano"')
    tries = given.get("best_of", 1)
    if tries < 1:
        raise RequestError(f"--best-of must be at least 1, got {tries}")
    song, _ = read_song(given)
    _write(given, terminal, lambda planner, seed, hooks: _planned(planner, song, seed, tries, given, hooks))


def _planned(
    planner: Planner, song: Song, seed: int, tries: int, given: Mapping[str, Any], hooks: Hooks
) -> dict[str, Any]:
    from dataclasses import replace

    from .planner.functions import CODING, plan
    from .planner.scoring import best_codes
    from .sampling.noise import batch_seeds

    sampling = replace(CODING, guidance=given["guidance"]) if "guidance" in given else CODING
    (planned,) = plan(planner, song, [seed], rewrite=not given.get("no_rewrite"), hooks=hooks)
    if given.get("no_codes"):
        return song_to_dict(planned, seed)
    seeds = batch_seeds(seed, tries)
    if tries == 1:
        from .planner.functions import codes

        (written,) = codes(planner, planned, seeds, sampling=sampling, hooks=hooks)
        return song_to_dict(planned, seed, written)
    best = best_codes(planner, planned, seeds, sampling=sampling, hooks=hooks)[0]
    return song_to_dict(planned, seed, best.codes) | {"score": round(best.score.reward, 4)}


# --- acestep write --------------------------------------------------------------------------------------------------


def write_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Makes a whole song of one line, or polishes one."""
    parser = _parser("write", "Write a song from an idea; or, with --from and no idea, polish a rough one.")
    parser.add_argument("idea", nargs="?", help='one line, such as "a sea shanty"; empty for a surprise')
    _song_options(parser)
    parser.add_argument("--instrumental", action="store_true", help="nothing is sung")
    given = vars(parser.parse_args(arguments))
    if "idea" not in given and "from" not in given:
        parser.error('say what it shall be about, such as: acestep write "a sea shanty"')
    if "idea" not in given:
        song, _ = read_song(given)
        _write(given, terminal, lambda planner, seed, hooks: _polished(planner, song, seed, hooks))
        return
    ignored = [name for name in ("from", "lyrics", "duration", "bpm", "key", "time_signature") if name in given]
    if ignored:
        raise RequestError(
            f"--{ignored[0].replace('_', '-')} is for a song that is there already; an idea is told in words, and "
            "what comes out can be changed with `acestep plan --from`"
        )
    Metadata(language=given.get("language"))
    _write(given, terminal, lambda planner, seed, hooks: _composed(planner, seed, given, hooks))


def _composed(planner: Planner, seed: int, given: Mapping[str, Any], hooks: Hooks) -> dict[str, Any]:
    from .planner.functions import compose

    wishes = {"instrumental": given.get("instrumental", False), "language": given.get("language")}
    return song_to_dict(compose(planner, given["idea"], [seed], **wishes, hooks=hooks)[0], seed)


def _polished(planner: Planner, song: Song, seed: int, hooks: Hooks) -> dict[str, Any]:
    from .planner.functions import polish

    return song_to_dict(polish(planner, song, [seed], hooks=hooks)[0], seed)


# --- acestep listen -------------------------------------------------------------------------------------------------


def listen_to_song(arguments: Sequence[str], terminal: Terminal) -> None:
    """Tells what song a recording is."""
    parser = _parser("listen", "Hear what a song is: caption, lyrics, metadata, audio codes.")
    parser.add_argument("file", help="audio, or .json with audio codes")
    parser.add_argument("--model", metavar="NAME|PATH", help="whose VAE and audio tokenizer listen; default nano")
    given = vars(parser.parse_args(arguments))
    path = given["file"]
    if path == "-" or path.lower().endswith(".json"):
        _, found = read_song({"from": path})
        if not found:
            raise RequestError(f"{path} holds no audio codes; `acestep plan` writes some")
        _write(given, terminal, lambda planner, seed, hooks: _heard(planner, found, seed, hooks))
        return
    from .audio import read_audio

    waveform = read_audio(path)

    def hear(planner: Planner, seed: int, hooks: Hooks) -> dict[str, Any]:
        return _heard(planner, _codes_of(waveform, given, hooks), seed, hooks)

    _write(given, terminal, hear)


def _heard(planner: Planner, codes: Codes, seed: int, hooks: Hooks) -> dict[str, Any]:
    from .planner.functions import understand

    return song_to_dict(understand(planner, codes, [seed], hooks=hooks)[0], seed, codes)


def _codes_of(waveform: Any, given: Mapping[str, Any], hooks: Hooks) -> Codes:
    from .config import SAMPLE_RATE
    from .pipeline import encode_audio, load_model, tokenize

    options = {name: given[name] for name in ("dtype", "models_dir", "offload") if name in given}
    model = load_model(given.get("model", "nano"), device=given.get("device", "auto"), **options, hooks=hooks)
    return tokenize(model, encode_audio(model, waveform, SAMPLE_RATE, hooks=hooks), hooks)[0]


# --- what they share ------------------------------------------------------------------------------------------------


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    """Options that are not given are absent, so that they can be told from the ones that are."""
    parser = argparse.ArgumentParser(
        prog=f"acestep {name}", description=description, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("--seed", type=int, help="same seed, same words; default random")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the JSON there instead of printing it")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument("-v", "--verbose", action="store_true", help="log time, device, dtype and memory of each phase")
    model = parser.add_argument_group("planner")
    model.add_argument("--planner", metavar="NAME|PATH", help="see acestep models; default nano")
    model.add_argument("--tokenizer", metavar="DIR", help="for a single file that none is found beside")
    model.add_argument("--models-dir", metavar="DIR", help="where to look for models")
    model.add_argument("--device", help="auto, cuda, cuda:1, xpu, mps, cpu")
    model.add_argument("--dtype", help="auto, bfloat16, float16, float32")
    model.add_argument("--offload", action="store_true", help="keep on the GPU only what is running")
    return parser


def _song_options(parser: argparse.ArgumentParser) -> None:
    song = parser.add_argument_group("song")
    song.add_argument("--from", metavar="FILE", help="a song in JSON, - for standard input; options win")
    song.add_argument("--lyrics", metavar="FILE", help="text file with the lyrics, - for standard input")
    song.add_argument("--duration", type=float, metavar="SECONDS", help="up to 600")
    song.add_argument("--bpm", type=int, help="30 to 300")
    song.add_argument("--key", help='such as "C# minor"')
    song.add_argument("--time-signature", metavar="BEATS", help="2, 3, 4 or 6")
    song.add_argument("--language", metavar="CODE", help="of the lyrics, such as en, zh, ja")


def read_song(given: Mapping[str, Any]) -> tuple[Song, Codes]:
    """The song of the options over that of the file of `--from`, and the audio codes that the file holds."""
    from .codes import check_codes, parse_codes

    values: dict[str, Any] = {}
    if "from" in given:
        source = given["from"]
        try:
            values = json.loads(_read_text(source, "song"))
        except ValueError as error:
            raise RequestError(f"{source} is no song in JSON: {error}") from error
        if not isinstance(values, dict):
            raise RequestError(f"{source} should hold one song, an object with a caption; it holds {values!r:.40}")
    codes = values.get("codes") or ()
    if not isinstance(codes, (str, list, tuple)):
        raise RequestError(f"{given['from']}: codes should be text or a list of numbers, they are {codes!r:.40}")
    codes = parse_codes(codes) if isinstance(codes, str) else check_codes(codes)
    values |= {name: given[name] for name in ("caption", *FACTS) if name in given}
    if "lyrics" in given:
        values["lyrics"] = _read_text(given["lyrics"], "lyrics")
    metadata = Metadata(**{name: values[name] for name in FACTS if name in values})
    return Song(values.get("caption", ""), values.get("lyrics", ""), metadata), codes


def _read_text(path: str, what: str) -> str:
    try:
        # Bytes, because Windows decodes its standard input as an old code page.
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"the {what} file {path} cannot be read as UTF-8 text: {error}") from error


def song_to_dict(made: Planned | Written, seed: int, codes: Codes = ()) -> dict[str, Any]:
    """A song ready for JSON. What is not known is left out."""
    from .codes import format_codes

    song = made.song
    values = {
        "caption": song.caption,
        "lyrics": song.lyrics,
        **asdict(song.metadata),
        "genres": made.block.get("genres"),
        "codes": format_codes(codes) or None,
        "seed": seed,
    }
    return {name: value for name, value in values.items() if value is not None}


def _write(given: Mapping[str, Any], terminal: Terminal, make: Callable[[Planner, int, Hooks], dict[str, Any]]) -> None:
    """Loads the planner, lets `make` use it and writes what it made."""
    from .cli import log_lines
    from .pipeline import random_seed
    from .planner.loading import load_planner
    from .runtime import Hooks
    from .sampling.noise import batch_seeds

    (seed,) = batch_seeds(given.get("seed", random_seed()), 1)
    output = Path(given["output"]) if "output" in given else None
    if output is not None and not output.parent.is_dir():
        raise RequestError(f"cannot write {output}: the folder {output.parent} does not exist")
    hooks = Hooks() if given.get("quiet") else Hooks(progress=terminal.progress)
    options = {name: given[name] for name in ("device", "dtype", "tokenizer", "models_dir", "offload") if name in given}
    with log_lines(terminal, given):
        planner = load_planner(given.get("planner", "nano"), **options, hooks=hooks)
        text = json.dumps(make(planner, seed, hooks), ensure_ascii=False, indent=1)
    if output is None:
        _print(text)
        return
    partial = output.with_name(f".{output.name}.partial")
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, output)
    except OSError as error:
        raise RequestError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    print(output)


def _print(text: str) -> None:
    """As UTF-8, because another command may read it; where the console has no bytes, as it likes."""
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None or sys.stdout.isatty():
        print(text)
    else:
        sys.stdout.flush()
        binary.write(text.encode("utf-8") + b"\n")
        binary.flush()
