"""The options of `acestep label` and `acestep train`."""

from __future__ import annotations

import argparse


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

    adapter.add_argument(
        "--dropout",
        type=float,
        metavar="SHARE",
        help="inputs that the adapter does not see in a step; 0.1 for few songs; default 0",
    )

    training = parser.add_argument_group("training")
    training.add_argument("--steps", type=int, help="updates of the weights; default 1000")
    training.add_argument("--batch", type=int, metavar="N", help="crops computed at once; default 1")
    training.add_argument("--accumulation", type=int, metavar="N", help="batches per step; default 4")
    training.add_argument("--learning-rate", type=float, metavar="RATE", help="at its peak; default 1e-4")
    training.add_argument("--warmup", type=int, metavar="STEPS", help="steps up to the peak; default 100")
    training.add_argument(
        "--optimizer", metavar="NAME", help="adamw, or adamw8bit for less memory (needs bitsandbytes); default adamw"
    )
    training.add_argument(
        "--ema", type=float, metavar="DECAY", help="average the adapter over the steps, such as 0.999; default 0: off"
    )
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
