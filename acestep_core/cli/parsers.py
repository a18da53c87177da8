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
    batch.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of the songs and manifest.jsonl")
    batch.add_argument("--format", metavar="NAME", help="flac (default), wav, ogg, opus, mp3 or m4a")
    batch.add_argument(
        "--together",
        type=int,
        metavar="N",
        help="songs of one length in one batch; default: by free memory; on a CPU 1",
    )
    batch.add_argument("--plan", action="store_true", help="plan every song without audio codes with the 5 Hz LM")
    batch.add_argument("--planner", metavar="NAME|PATH", help="--plan with this planner; default nano")
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


def label_parser() -> argparse.ArgumentParser:
    """Return the parser of `acestep label`."""
    parser = argparse.ArgumentParser(
        prog="acestep label",
        description="Describe songs with the 5 Hz LM, to train on them. SONG.json gets what is missing; what is there "
        "stays. BPM and key are also measured.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("folder", help="folder of audio files with or without text files")
    parser.add_argument(
        "--fields", metavar="NAMES", help="some of caption,lyrics,genre,bpm,key,time_signature,language; default all"
    )
    parser.add_argument("--seed", type=int, help="random seed; default 0")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the names of the files")
    parser.add_argument("-v", "--verbose", action="store_true", help="log time, device, dtype and memory of each phase")
    model = parser.add_argument_group("model")
    model.add_argument("--planner", metavar="NAME|PATH", help="see acestep models; default nano")
    model.add_argument("--model", metavar="NAME|PATH", help="model that encodes the audio; default nano")
    model.add_argument("--storage", metavar="KIND", help="int8 or fp8 halves the memory of the planner")
    model.add_argument("--work", metavar="DIR", help="folder of the encoded audio; default FOLDER.train")
    model.add_argument("--models-dir", metavar="DIR", help="folder of models")
    model.add_argument("--device", help="auto, cuda, cuda:1, xpu, mps, cpu")
    model.add_argument("--dtype", help="auto, bfloat16, float16, float32")
    return parser


def train_parser() -> argparse.ArgumentParser:
    """Return the parser of `acestep train`."""
    parser = argparse.ArgumentParser(
        prog="acestep train",
        description="Train a LoRA on your own songs. If the process ends, the same command continues the training.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("dataset", help="folder of audio files with text files, or a dataset.json")
    parser.add_argument("-o", "--output", metavar="FILE", help="file of the adapter, .safetensors")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument("-v", "--verbose", action="store_true", help="log time, device, dtype and memory of each phase")

    songs = parser.add_argument_group("songs")
    songs.add_argument("--check", action="store_true", help="list all problems of the songs and train nothing")
    songs.add_argument("--trigger", metavar="WORD", help="word in every caption, which then asks for the style")
    songs.add_argument("--trigger-position", metavar="PLACE", help="prepend (default), append or replace the caption")
    songs.add_argument(
        "--crop", type=float, metavar="SECONDS", help="part of a song that a step sees; 0: all; default 30"
    )
    songs.add_argument("--write-dataset", metavar="FILE", help="write the dataset.json of the original trainer")

    adapter = parser.add_argument_group("adapter")
    adapter.add_argument("--kind", metavar="NAME", help="lora, dora or lokr; default lora")
    adapter.add_argument("--rank", type=int, help="higher learns more of the songs; 8 to 64, default 16")
    adapter.add_argument("--alpha", type=float, help="strength in training is alpha / rank; default twice the rank")
    adapter.add_argument("--rank-stabilized", action="store_true", help="alpha / sqrt(rank) instead (rsLoRA)")
    adapter.add_argument("--modules", metavar="NAME", help="attention, or all with the MLPs; default attention")

    training = parser.add_argument_group("training")
    training.add_argument("--steps", type=int, help="updates of the weights; default 1000")
    training.add_argument("--batch", type=int, metavar="N", help="crops computed at once; default 1")
    training.add_argument("--accumulation", type=int, metavar="N", help="batches per step; default 4")
    training.add_argument("--learning-rate", type=float, metavar="RATE", help="at its peak; default 1e-4")
    training.add_argument("--warmup", type=int, metavar="STEPS", help="steps up to the peak; default 100")
    training.add_argument("--weight-decay", type=float, metavar="W", help="of AdamW; default 0.01")
    training.add_argument("--clip", type=float, metavar="NORM", help="largest norm of the gradient; default 1")
    training.add_argument("--times", metavar="NAME", help="timesteps: turbo or continuous; default by the model")
    training.add_argument(
        "--condition-dropout", type=float, metavar="SHARE", help="crops without text; default 0.15, for turbo 0"
    )
    training.add_argument("--seed", type=int, help="of order, crops and noise; default 0")
    training.add_argument(
        "--held-out",
        type=_number_or_names,
        metavar="N|FILES",
        help="songs to measure the loss on instead of training on them: a number, or names such as a.flac,b.flac; "
        "FILE-best.safetensors is the adapter with their lowest loss; default 0",
    )
    training.add_argument(
        "--held-out-every", type=int, metavar="STEPS", help="steps between two measurements; default 50"
    )
    training.add_argument(
        "--patience", type=int, metavar="N", help="end after N measurements without a lower loss; default 0: never"
    )
    training.add_argument(
        "--recompute",
        action=argparse.BooleanOptionalAction,
        help="gradient checkpointing: less memory, more time; default on for GPUs and --storage",
    )

    run = parser.add_argument_group("run")
    run.add_argument("--sample-every", type=int, metavar="STEPS", help="make a song of one seed every N steps")
    run.add_argument("--sample", metavar="CAPTION", help="caption of that song; default: that of the first song")
    run.add_argument("--save-every", type=int, metavar="STEPS", help="steps between two states; default 50")
    run.add_argument(
        "--work", metavar="DIR", help="folder of features, states, losses and samples; default DATASET.train"
    )
    run.add_argument("--restart", action="store_true", help="start again instead of continuing")
    run.add_argument(
        "--json", action="store_true", help="progress, problems and files as JSON lines, for another program"
    )
    run.add_argument("--stop-with-input", action="store_true", help="stop and keep the state when standard input ends")

    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="NAME|PATH", help="see acestep models; default nano")
    model.add_argument("--vae", metavar="NAME|PATH", help="another VAE")
    model.add_argument("--text-encoder", metavar="NAME|PATH", help="another text encoder")
    model.add_argument("--tokenizer", metavar="DIR", help="tokenizer folder for a single-file text encoder")
    model.add_argument("--variant", metavar="NAME", help="turbo, sft or base, if the model's files do not contain it")
    model.add_argument("--storage", metavar="KIND", help="int8 or fp8 halves the memory of the diffusion model")
    model.add_argument("--models-dir", metavar="DIR", help="folder of models")
    model.add_argument("--device", help="auto, cuda, cuda:1, xpu, mps, cpu")
    model.add_argument("--dtype", help="auto, bfloat16, float32")
    return parser


def _number_or_names(text: str) -> int | tuple[str, ...]:
    return int(text) if text.strip().isdecimal() else tuple(name for each in text.split(",") if (name := each.strip()))


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
