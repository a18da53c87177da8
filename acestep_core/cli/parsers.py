"""The argument parsers of the commands. An option that the user does not give is absent from the result."""

from __future__ import annotations

import argparse

from .. import __version__
from .finishing import finish_options
from .inputs import AUTO_DURATION
from .tagging import tag_options

EXAMPLES = """\
examples:
  acestep "warm lo-fi piano" --lyrics song.txt --duration 30 --seed 7 -o song.flac
  acestep "orchestral, epic" --model base --steps 60 --guidance 6 --batch 4
  acestep --from song.flac --seed 8 -o other.flac     the same song with another seed
  acestep write "a sea shanty" | acestep plan --from - -o song.json
  acestep --from song.json -o song.flac               audio of a planned song
  acestep repaint song.flac --where 10-15 -o new.flac    10 to 15 seconds again; also extend, cover, stems, morph
  acestep "slow blues" --duration 60 --ending --loudness streaming    a song that ends, at -14 LUFS
  acestep listen song.flac                            caption, lyrics and metadata of audio
  acestep times song.flac --formats lrc,srt           when each line is sung
  acestep picture song.flac                           the waveform as a PNG file
  acestep "indie pop" --lyrics song.txt --best-of 4   the take of four that follows the lyrics best
  acestep "piano" --lora style --lora voice:0.6       LoRAs, the second at 60 %; acestep loras lists them
  acestep batch songs.jsonl -o out                    many songs; the same command goes on where it stopped
  acestep label my-band                               captions and metadata for songs without text files
  acestep train my-band -o my-band.safetensors        a LoRA of your own songs; --check lists what is wrong with them
  acestep models                                      the models and where they are stored
  acestep download turbo                              download a model
  acestep doctor                                      what works on this machine, device by device
"""


def song_parser() -> argparse.ArgumentParser:
    """Return the parser of `acestep "caption"`."""
    parser = argparse.ArgumentParser(
        prog="acestep",
        description="Generate songs with ACE-Step 1.5.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("caption", nargs="?", help="style, instruments, mood, voice")
    parser.add_argument("--version", action="version", version=f"acestep {__version__}")

    song = _song_options(parser, "up to 600; default 30; auto fits the lyrics")
    song.add_argument("--codes", metavar="FILE", help="song file with the audio codes; default: the codes of --from")
    song.add_argument(
        "--no-codes", dest="codes", action="store_const", const=None, help="ignore the audio codes of --from"
    )

    generation_options(parser)
    return parser


def edit_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a command that edits a recording, without the options of that edit."""
    parser = argparse.ArgumentParser(
        prog=f"acestep {name}", description=description, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("file", help="audio file of up to 600 seconds")
    parser.add_argument("caption", nargs="?", help="style of the new song; default: the caption in the file's tags")
    _text_options(parser, "text and settings of another song; default: the tags of FILE")
    generation_options(parser)
    return parser


def batch_parser() -> argparse.ArgumentParser:
    """Return the parser of `acestep batch`."""
    parser = argparse.ArgumentParser(
        prog="acestep batch",
        description="Make the songs of a list. If the process ends, the same command goes on where it stopped.",
        epilog="A row of the list has the options of acestep as fields, with _ for -, and caption and lyrics as text: "
        '{"caption": "warm piano", "duration": 30, "steps": 8}. The field "command" edits "file": repaint, extend, '
        'cover, stems or morph. "plan" is true or an object of options of acestep plan. "output" names the file.',
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("list", help="JSONL or CSV file with a song per line, or a folder of song files")
    batch = parser.add_argument_group("batch")
    batch.add_argument(
        "-o", "--output", required=True, metavar="DIR|URL", help="folder of the songs and manifest.jsonl"
    )
    batch.add_argument("--format", metavar="NAME", help="flac (default), wav, ogg, opus, mp3 or m4a")
    batch.add_argument(
        "--together",
        type=int,
        metavar="N",
        help="songs of one length in one batch; default: by free memory; on a CPU 1",
    )
    batch.add_argument(
        "--keep",
        action="append",
        metavar="RULE",
        help="write only songs that measure as their metadata says: bpm:±4%%, key or key:relative; repeatable",
    )
    batch.add_argument("--plan", action="store_true", help="plan every song without audio codes with the 5 Hz LM")
    batch.add_argument("--planner", metavar="NAME|PATH", help="--plan with this planner; default nano")
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument(
        "--ray",
        nargs="?",
        const=None,
        metavar="ADDRESS",
        help="make the songs with Ray: on all GPUs or cores of this machine, or on the cluster at an address or auto",
    )
    cluster.add_argument("--workers", type=int, metavar="N", help="number of workers; default: as many as fit")
    cluster.add_argument(
        "--worker-gpus", type=float, metavar="N", help="GPUs of a worker, such as 1 or 0.5; default 1 if there are any"
    )
    cluster.add_argument("--worker-cpus", type=float, metavar="N", help="CPU cores of a worker; default 1")
    song = parser.add_argument_group("song", "these and all options below are defaults for the rows")
    _metadata_options(song)
    song.add_argument("--duration", type=_duration, metavar="SECONDS|auto", help="up to 600; default 30")
    generation_options(parser, file=False)
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
    plan.add_argument(
        "--graphs",
        action=argparse.BooleanOptionalAction,
        help="generate codes with CUDA graphs, faster on NVIDIA GPUs; default on",
    )
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


def times_parser() -> argparse.ArgumentParser:
    """Return the parser of `acestep times`."""
    parser = argparse.ArgumentParser(
        prog="acestep times",
        description="Find when each word of a song is sung, and which lines are missing.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("file", help="audio file of up to 600 seconds, of any program")
    parser.add_argument("--lyrics", metavar="FILE", help="text file with the lyrics; default: from the tags of FILE")
    parser.add_argument("--language", metavar="CODE", help="language of the lyrics, such as en, zh, ja")
    parser.add_argument(
        "--formats",
        metavar="NAMES",
        help="files to write beside FILE: json, lrc or elrc (with words), srt, vtt; default: print the LRC",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the LRC or the names of the files")
    parser.add_argument("-v", "--verbose", action="store_true", help="log time, device, dtype and memory of each phase")
    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="NAME|PATH", help="see acestep models; default: from the tags of FILE")
    model.add_argument("--storage", metavar="KIND", help="int8 or fp8 halves the memory of the diffusion model")
    _device_options(model)
    return parser


def picture_parser() -> argparse.ArgumentParser:
    """Return the parser of `acestep picture`."""
    parser = argparse.ArgumentParser(prog="acestep picture", description="Draw a song as a PNG file.")
    parser.add_argument("file", help="audio file of any length")
    parser.add_argument("-o", "--output", metavar="FILE", help="PNG file; default: FILE with the suffix .png")
    parser.add_argument("--kind", default="waveform", help="waveform or spectrogram; default waveform")
    parser.add_argument("--width", type=int, default=1024, metavar="PIXELS", help="16 to 8192; default 1024")
    parser.add_argument("--height", type=int, default=256, metavar="PIXELS", help="16 to 8192; default 256")
    return parser


def _planner_parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"acestep {name}", description=description, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("--seed", type=int, help="random seed; default random")
    parser.add_argument("--batch", type=int, metavar="N", help="number of songs, with seeds counting up")
    parser.add_argument("-o", "--output", metavar="FILE", help="a .json file; default standard output")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument("-v", "--verbose", action="store_true", help="log time, device, dtype and memory of each phase")
    planner = parser.add_argument_group("planner")
    planner.add_argument("--planner", metavar="NAME|PATH", help="see acestep models; default nano")
    planner.add_argument("--tokenizer", metavar="DIR", help="tokenizer folder for a single-file planner")
    _device_options(planner)
    planner.add_argument("--storage", metavar="KIND", help="int8 or fp8 halves the memory of the weights; default none")
    sampling = parser.add_argument_group("token sampling")
    sampling.add_argument("--temperature", type=float, help="0 takes the likeliest token; default 0.85, for listen 0.3")
    sampling.add_argument("--top-p", type=float, metavar="P", help="nucleus sampling; default 0.9 for plan, else 1")
    return parser


def generation_options(parser: argparse.ArgumentParser, *, file: bool = True) -> None:
    """Add the options of every command that generates songs: output, finishing, tags, sampling, model.

    file: False leaves out the file of the output.
    """
    output = parser.add_argument_group("output")
    if file:
        output.add_argument(
            "-o",
            "--output",
            metavar="FILE",
            help=".flac, .wav, .ogg, .opus, .mp3 or .m4a; default: the next free song-N.flac",
        )
    output.add_argument("--seed", type=int, help="random seed; default random")
    output.add_argument("--batch", type=int, metavar="N", help="number of takes, with seeds counting up")
    output.add_argument(
        "--best-of", type=int, metavar="N", help="generate N takes and keep the best ones by their lyrics; default off"
    )
    output.add_argument("--normalize", action=argparse.BooleanOptionalAction, help="peak at -1 dBFS (default)")
    output.add_argument("-q", "--quiet", action="store_true", help="print only the names of the files")
    output.add_argument("-v", "--verbose", action="store_true", help="log time, device, dtype and memory of each phase")

    finish_options(parser)
    tag_options(parser)

    sampling = parser.add_argument_group("sampling", "defaults depend on the model variant")
    sampling.add_argument("--steps", type=int, help="sampling steps: about 8 for turbo, 50 for base and sft")
    sampling.add_argument("--shift", type=float, help="timestep shift; above 1 moves steps towards the noise")
    sampling.add_argument(
        "--guidance", type=float, dest="guidance_scale", metavar="SCALE", help="guidance scale (CFG); 1 is off"
    )
    sampling.add_argument("--guidance-method", metavar="NAME", help="apg, cfg or adg; default apg")
    sampling.add_argument(
        "--guidance-start", type=float, metavar="SHARE", help="share of the steps before guidance; default 0"
    )
    sampling.add_argument(
        "--guidance-end",
        type=float,
        metavar="SHARE",
        help="share of the steps after which guidance is off: 0.7 is faster and less harsh; default 1",
    )
    sampling.add_argument(
        "--negative-caption", metavar="TEXT", help="style that the song avoids; needs guidance above 1"
    )
    sampling.add_argument(
        "--solver",
        metavar="NAME",
        help="sampler: euler, heun, sde, or dpmpp_3m for precision with few steps; default euler",
    )
    sampling.add_argument("--timesteps", type=_numbers, metavar="T,T,...", help="custom timesteps from 1 down to 0")
    sampling.add_argument(
        "--dcw",
        metavar="NAME",
        help="wavelet correction of few steps, as on turbo: double, low, high or pix; default off",
    )
    sampling.add_argument(
        "--dcw-strength", type=float, metavar="FACTOR", help="strength of --dcw; default 1, the original's"
    )

    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="NAME|PATH", help="see acestep models; default nano")
    model.add_argument("--vae", metavar="NAME|PATH", help="another VAE")
    model.add_argument("--text-encoder", metavar="NAME|PATH", help="another text encoder")
    model.add_argument("--variant", metavar="NAME", help="turbo, sft or base, if the model's files do not contain it")
    model.add_argument(
        "--lora",
        action="append",
        metavar="NAME|PATH[:STRENGTH]",
        help="LoRA or other adapter, see acestep loras; repeatable; strength 1 is as trained; replaces those of --from",
    )
    _device_options(model)
    model.add_argument("--text-encoder-dtype", metavar="DTYPE", help="default: --dtype")
    model.add_argument("--vae-dtype", metavar="DTYPE", help="default: float16 on a GPU with bfloat16, else float32")
    model.add_argument(
        "--storage", metavar="KIND", help="int8 or fp8 halves the memory of the diffusion model; default none"
    )
    model.add_argument(
        "--stream", action="store_true", help="offload the layers of the diffusion model too: slowest, least memory"
    )
    model.add_argument("--compile", action="store_true", help="torch.compile for the GPU; the first song is slow")
    model.add_argument(
        "--graphs",
        action=argparse.BooleanOptionalAction,
        help="replay sampling steps as CUDA graphs, for fast NVIDIA GPUs; default off",
    )


def _song_options(
    parser: argparse.ArgumentParser, duration: str = "up to 600; auto (default) is the planner's"
) -> argparse._ArgumentGroup:
    song = _text_options(
        parser,
        "song and settings of a song or audio file, also one that ComfyUI saved, - for standard input; "
        "other options take precedence",
    )
    song.add_argument("--duration", type=_duration, metavar="SECONDS|auto", help=duration)
    return song


def _text_options(parser: argparse.ArgumentParser, source: str) -> argparse._ArgumentGroup:
    song = parser.add_argument_group("song")
    song.add_argument("--from", metavar="FILE", help=source)
    song.add_argument("--lyrics", metavar="FILE", help="text file with the lyrics, - for standard input")
    _metadata_options(song)
    return song


def _metadata_options(song: argparse._ArgumentGroup) -> None:
    song.add_argument("--bpm", type=int, help="30 to 300; default: the model chooses")
    song.add_argument("--key", help='such as "C# minor"')
    song.add_argument("--time-signature", metavar="BEATS", help="2, 3, 4 or 6")
    song.add_argument("--language", metavar="CODE", help="language of the lyrics, such as en, zh, ja")


def _device_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--models-dir", metavar="DIR", help="folder of models")
    group.add_argument("--device", help="auto, cuda, cuda:1, xpu, mps, cpu")
    group.add_argument("--dtype", help="auto, bfloat16, float16, float32")
    group.add_argument("--offload", action="store_true", help="keep only the running network on the GPU")


def _duration(text: str) -> float | str:
    try:
        return text if text == AUTO_DURATION else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of seconds or {AUTO_DURATION}, got {text!r}") from None


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers from 1 down to 0, such as 1,0.7,0.4, got {text!r}") from None
