"""The options of the commands. Those that are not given are absent, so that they can be told from the ones that are."""

from __future__ import annotations

import argparse

from .. import __version__

EXAMPLES = """\
examples:
  acestep "warm lo-fi piano" --lyrics song.txt --duration 30 --seed 7 -o song.flac
  acestep "orchestral, epic" --model base --steps 60 --guidance 6 --batch 4
  acestep --from song.flac --seed 8 -o other.flac     the same song with another seed
  acestep write "a sea shanty" | acestep plan --from - -o song.json
  acestep --from song.json -o song.flac               what was planned, as sound
  acestep listen song.flac                            what song it is: caption, lyrics, metadata
  acestep models                                      what can be used, and where it was looked for
  acestep download turbo                              fetch a model
"""


def song_parser() -> argparse.ArgumentParser:
    """Of `acestep "caption"`."""
    parser = argparse.ArgumentParser(
        prog="acestep",
        description="Make songs with ACE-Step 1.5.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("caption", nargs="?", help="how it sounds: style, instruments, mood, voice")
    parser.add_argument("--version", action="version", version=f"acestep {__version__}")

    song = _song_options(parser, "up to 600; default 30")
    song.add_argument("--codes", metavar="FILE", help="play the audio codes of this plan; --from takes a plan's, too")
    song.add_argument(
        "--no-codes", dest="codes", action="store_const", const=None, help="play none, whatever --from has"
    )

    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", metavar="FILE", help=".flac, .wav, .ogg or .mp3; default song-N.flac, next N")
    output.add_argument("--seed", type=int, help="same seed, same song; default random")
    output.add_argument("--batch", type=int, metavar="N", help="versions to make, with seeds counting up")
    output.add_argument("--normalize", action=argparse.BooleanOptionalAction, help="peak at -1 dBFS (default)")
    output.add_argument("-q", "--quiet", action="store_true", help="print nothing but the names of the files")
    output.add_argument("-v", "--verbose", action="store_true", help="log time, device, dtype and memory of each phase")

    sampling = parser.add_argument_group("sampling", "defaults are the model variant's own")
    sampling.add_argument("--steps", type=int)
    sampling.add_argument("--shift", type=float, help="above 1: more of the steps near the noise")
    sampling.add_argument("--guidance", type=float, dest="guidance_scale", metavar="SCALE", help="1 is off")
    sampling.add_argument("--guidance-method", metavar="NAME", help="apg, cfg, adg; default apg")
    sampling.add_argument("--solver", metavar="NAME", help="euler, heun, sde; default euler")
    sampling.add_argument("--timesteps", type=_numbers, metavar="T,T,...", help="own times, 1 down to 0")

    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="NAME|PATH", help="see acestep models; default nano")
    model.add_argument("--vae", metavar="NAME|PATH", help="instead of the model's own")
    model.add_argument("--text-encoder", metavar="NAME|PATH", help="instead of the model's own")
    model.add_argument("--variant", metavar="NAME", help="what the model is, if its files do not say: turbo, sft, base")
    _device_options(model)
    model.add_argument("--text-encoder-dtype", metavar="DTYPE", help="default: as --dtype")
    model.add_argument(
        "--vae-dtype", metavar="DTYPE", help="default: float16 on a GPU that has bfloat16, too, else float32"
    )
    model.add_argument(
        "--storage", metavar="KIND", help="int8 or fp8: the transformer in half the memory; default none"
    )
    model.add_argument("--stream", action="store_true", help="of the transformer, too: slower, smallest")
    model.add_argument("--compile", action="store_true", help="compile for the GPU: slow at first")
    model.add_argument("--graphs", action="store_true", help="record a step as a CUDA graph, for fast cards")
    return parser


def plan_parser() -> argparse.ArgumentParser:
    """Return the parser of `acestep plan`."""
    parser = _planner_parser("plan", "Plan a song with the 5 Hz LM: metadata, a detailed caption, audio codes.")
    parser.add_argument("caption", nargs="?", help="style, instruments, mood, voice")
    _song_options(parser)
    plan = parser.add_argument_group("plan")
    plan.add_argument("--no-rewrite", action="store_true", help="keep the caption as it is")
    plan.add_argument("--no-codes", action="store_true", help="metadata and caption only")
    plan.add_argument("--metadata-per-take", action="store_true", help="plan other metadata for each song of a batch")
    plan.add_argument("--best-of", type=int, metavar="N", help="generate codes N times and keep the best ones")
    plan.add_argument("--guidance", type=float, metavar="SCALE", help="CFG scale of the codes; default 2, 1 is off")
    plan.add_argument("--negative-prompt", metavar="TEXT", help="style that the codes avoid; needs guidance above 1")
    return parser


def write_parser() -> argparse.ArgumentParser:
    """Return the parser of `acestep write`."""
    parser = _planner_parser("write", "Write a song from an idea with the 5 Hz LM. With --from, polish a rough song.")
    parser.add_argument("idea", nargs="?", help='one line such as "a sea shanty"; if empty, the planner invents one')
    _song_options(parser)
    parser.add_argument("--instrumental", action="store_true", help="no vocals")
    return parser


def listen_parser() -> argparse.ArgumentParser:
    """Return the parser of `acestep listen`."""
    parser = _planner_parser("listen", "Describe audio with the 5 Hz LM: caption, lyrics, metadata, audio codes.")
    parser.add_argument("file", help="audio file, or song file with audio codes")
    parser.add_argument("--model", metavar="NAME|PATH", help="model that encodes the audio; default nano")
    return parser


def _planner_parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"acestep {name}", description=description, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("--seed", type=int, help="random seed; default random")
    parser.add_argument("--batch", type=int, metavar="N", help="number of songs, with seeds counting up")
    parser.add_argument("-o", "--output", metavar="FILE", help="file for the JSON; default standard output")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument("-v", "--verbose", action="store_true", help="log time, device, dtype and memory of each phase")
    planner = parser.add_argument_group("planner")
    planner.add_argument("--planner", metavar="NAME|PATH", help="see acestep models; default nano")
    planner.add_argument("--tokenizer", metavar="DIR", help="tokenizer folder for a single-file planner")
    _device_options(planner)
    planner.add_argument("--storage", metavar="KIND", help="int8 or fp8 halves the memory of the weights; default none")
    sampling = parser.add_argument_group("token sampling")
    sampling.add_argument("--temperature", type=float, help="0 takes the likeliest; default 0.85, for listen 0.3")
    sampling.add_argument("--top-p", type=float, metavar="P", help="nucleus sampling; default 0.9 for plan, else 1")
    return parser


def _song_options(parser: argparse.ArgumentParser, duration: str = "up to 600") -> argparse._ArgumentGroup:
    song = parser.add_argument_group("song")
    song.add_argument("--from", metavar="FILE", help="song and settings of a file made earlier, - for standard input; "
                      "options win")  # fmt: skip
    song.add_argument("--lyrics", metavar="FILE", help="text file with the lyrics, - for standard input")
    song.add_argument("--duration", type=float, metavar="SECONDS", help=duration)
    song.add_argument("--bpm", type=int, help="30 to 300; default: the model chooses")
    song.add_argument("--key", help='such as "C# minor"')
    song.add_argument("--time-signature", metavar="BEATS", help="2, 3, 4 or 6")
    song.add_argument("--language", metavar="CODE", help="of the lyrics, such as en, zh, ja")
    return song


def _device_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--models-dir", metavar="DIR", help="where to look for models")
    group.add_argument("--device", help="auto, cuda, cuda:1, xpu, mps, cpu")
    group.add_argument("--dtype", help="auto, bfloat16, float16, float32")
    group.add_argument("--offload", action="store_true", help="keep on the GPU only what is running")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers from 1 down to 0 such as 1,0.7,0.4, got {text!r}") from None
