"""Where the time of a song goes: encode, sample, decode against its length, ours and diffusers', in one run.

    python -m benchmarks.stages --size small                 networks that fit into an hour of two CPU cores
    python -m benchmarks.stages --device cuda --dtype bfloat16 --vae-dtype bfloat16 --seconds 30 120 240 600
    python -m benchmarks.stages --from output/stages.json    draws and prints what was measured before

Encode is the text encoder (transformers' in both) and the condition encoder; sample eight steps without guidance and
what they share; decode the autoencoder, tiled. Random weights, of the same shapes. Times are medians of alternating
runs. On CUDA a second table has the peaks of device memory: what one more run of each allocates beside all weights.
Writes the numbers to --save and a picture to --draw.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from acestep_core.config import FRAME_RATE, ModelConfig, TextEncoderConfig, VAEConfig
from acestep_core.models.model import AceStepModel
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.models.tiling import decode_tiled
from acestep_core.sampling.loop import denoise
from acestep_core.sampling.velocity import network_velocity
from acestep_core.text.encoder import build_qwen3

from .common import alternate, megabytes, table
from .dit_step import SIZES
from .picture import Line, write_chart

STEPS, CAPTION_ROWS, LYRIC_ROWS = 8, 60, 240
STAGES = ("encode", "sample", "decode")
COLOURS = {"encode": "#2a7f3f", "sample": "#1f5fb4", "decode": "#c2410c"}
SMALL_TEXT = TextEncoderConfig(vocab_size=4096, hidden_size=512, intermediate_size=1536, num_hidden_layers=8)
SMALL_VAE = VAEConfig(encoder_hidden_size=32, decoder_channels=32)
Found = dict[str, dict[str, dict[str, float]]]  # by seconds of music, stage and side


@dataclass(frozen=True)
class Size:
    network: ModelConfig
    text: TextEncoderConfig
    vae: VAEConfig


def size(name: str) -> Size:
    """The networks around those of benchmarks.dit_step. The small model's autoencoder has a quarter of the width."""
    if name != "small":
        return Size(SIZES[name], TextEncoderConfig(), VAEConfig())
    network = replace(
        SIZES["small"], encoder_intermediate_size=1536, encoder_num_attention_heads=4, encoder_num_key_value_heads=2,
        num_lyric_encoder_hidden_layers=4, num_timbre_encoder_hidden_layers=2, text_hidden_dim=SMALL_TEXT.hidden_size,
    )  # fmt: skip
    return Size(network, SMALL_TEXT, SMALL_VAE)


class Networks:
    """Both sides' networks of one size."""

    def __init__(self, size: Size, device: str, dtype: torch.dtype, vae_dtype: torch.dtype):
        from diffusers import AceStepTransformer1DModel, AutoencoderOobleck
        from diffusers.pipelines.ace_step.modeling_ace_step import AceStepConditionEncoder

        self.config, text, vae = size.network, size.text, size.vae
        self.device, self.dtype, self.vae_dtype = torch.device(device), dtype, vae_dtype
        self.text = _drawn(build_qwen3(text, device, dtype))
        self.network = _drawn(AceStepModel(self.config, device=device, dtype=dtype))
        self.vae = _drawn(OobleckVAE(vae, device=device, dtype=vae_dtype))
        with self.device:
            self.their_transformer = _drawn(AceStepTransformer1DModel(**_sizes(self.config)).to(dtype))
            self.their_encoder = _drawn(AceStepConditionEncoder(**_encoder_sizes(self.config)).to(dtype))
            self.their_vae = AutoencoderOobleck(
                encoder_hidden_size=vae.encoder_hidden_size, downsampling_ratios=list(vae.downsampling_ratios),
                channel_multiples=list(vae.channel_multiples), decoder_channels=vae.decoder_channels,
                decoder_input_channels=vae.decoder_input_channels, audio_channels=vae.audio_channels,
                sampling_rate=vae.sampling_rate,
            ).eval().to(vae_dtype)  # fmt: skip
        self.their_vae.enable_tiling()


def _drawn(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.02)
    return module.eval().requires_grad_(False)


def _sizes(config: ModelConfig) -> dict[str, object]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "head_dim", "encoder_hidden_size")  # fmt: skip
    return {name: getattr(config, name) for name in names}


def _encoder_sizes(config: ModelConfig) -> dict[str, object]:
    names = ("text_hidden_dim", "timbre_hidden_dim", "num_lyric_encoder_hidden_layers",
             "num_timbre_encoder_hidden_layers", "head_dim")  # fmt: skip
    return {name: getattr(config, name) for name in names} | {
        "hidden_size": config.encoder_hidden_size,
        "intermediate_size": config.encoder_intermediate_size,
        "num_attention_heads": config.encoder_num_attention_heads,
        "num_key_value_heads": config.encoder_num_key_value_heads,
    }


def stages(made: Networks, seconds: int) -> dict[str, dict[str, Callable[[], object]]]:
    """For each stage the two things to time."""
    device, dtype, frames = made.device, made.dtype, seconds * FRAME_RATE
    tokens = torch.zeros(1, CAPTION_ROWS, dtype=torch.long, device=device)
    lyrics = torch.randn(1, LYRIC_ROWS, made.config.text_hidden_dim, dtype=dtype, device=device)
    timbre = torch.randn(1, 1, made.config.timbre_fix_frame, 64, dtype=dtype, device=device)
    ones = [torch.ones(1, rows, dtype=torch.long, device=device) for rows in (CAPTION_ROWS, LYRIC_ROWS)]
    noise, context = (torch.randn(1, frames, width, device=device) for width in (64, 128))
    schedule = torch.linspace(1, 0, STEPS + 1)
    condition = made.network.encoder(made.text(input_ids=tokens).last_hidden_state, lyrics, timbre)
    latents = torch.randn(1, frames, 64, device=device)

    def read() -> torch.Tensor:
        return made.text(input_ids=tokens, attention_mask=ones[0], use_cache=False).last_hidden_state

    def their_encode() -> object:
        return made.their_encoder(
            text_hidden_states=read(), text_attention_mask=ones[0], lyric_hidden_states=lyrics,
            lyric_attention_mask=ones[1], refer_audio_acoustic_hidden_states_packed=timbre[0],
            refer_audio_order_mask=torch.zeros(1, dtype=torch.long, device=device),
        )  # fmt: skip

    def sample() -> torch.Tensor:
        return denoise(network_velocity(made.network, [condition], context, guided=False), noise, schedule)

    def their_sample() -> torch.Tensor:
        x, seen = noise.to(dtype), context.to(dtype)
        for now, then in zip(schedule[:-1], schedule[1:], strict=True):
            t = now.to(device, dtype)[None]
            velocity = made.their_transformer(x, t, t, condition, seen, return_dict=False)[0]
            x = x + (then - now).to(x) * velocity
        return x

    return {
        "encode": {"ours": lambda: made.network.encoder(read(), lyrics, timbre), "diffusers": their_encode},
        "sample": {"ours": sample, "diffusers": their_sample},
        "decode": {
            "ours": lambda: decode_tiled(made.vae, latents, device=device),
            "diffusers": lambda: made.their_vae.decode(latents.transpose(1, 2).to(made.vae_dtype)).sample.float().cpu(),
        },
    }


def measure(made: Networks, lengths: list[int], runs: int, warmup: int) -> tuple[Found, Found]:
    """Seconds, and bytes of the device beside the weights: none where it is no CUDA device."""
    on_cuda = made.device.type == "cuda"

    def finished(run: Callable[[], object]) -> Callable[[], None]:
        def whole() -> None:
            run()
            if on_cuda:
                torch.cuda.synchronize(made.device)

        return whole

    times, peaks = {}, {}
    for seconds in lengths:
        both = stages(made, seconds)
        times[str(seconds)] = {
            stage: alternate({name: finished(run) for name, run in sides.items()}, runs, warmup)
            for stage, sides in both.items()
        }
        if on_cuda:
            peaks[str(seconds)] = {
                stage: {name: peak(run, made.device) for name, run in sides.items()} for stage, sides in both.items()
            }
    return times, peaks


def peak(run: Callable[[], object], device: torch.device) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def peak_rows(peaks: Found) -> list[list[str]]:
    return [
        [f"{seconds} s", *(f"{side['diffusers'] / side['ours']:.2f}× ({megabytes(side['ours'])}, "
                           f"{megabytes(side['diffusers'])})" for side in by_stage.values())]
        for seconds, by_stage in peaks.items()
    ]  # fmt: skip


def rows(found: Found) -> list[list[str]]:
    result = []
    for seconds, by_stage in found.items():
        whole = {side: sum(times[side] for times in by_stage.values()) for side in ("ours", "diffusers")}
        cells = [f"{t['diffusers'] / t['ours']:.2f}× ({t['ours']:.3g} s, {t['diffusers']:.3g} s)"
                 for t in (*by_stage.values(), whole)]  # fmt: skip
        result.append([f"{seconds} s", *cells])
    return result


def draw(path: Path, found: Found, what: str) -> None:
    lines = [
        Line(
            f"{stage}, {side}",
            [(float(seconds), by_stage[stage][side]) for seconds, by_stage in found.items()],
            COLOURS[stage],
            dashed=side != "ours",
        )
        for stage in STAGES
        for side in ("ours", "diffusers")
    ]
    ticks = {float(seconds): f"{seconds} s" for seconds in found}
    write_chart(path, f"Time per stage: {what}", "length of the song", "seconds", lines, ticks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="2b")
    parser.add_argument("--small", action="store_const", const="small", dest="size", help="the same as --size small")
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 30, 60, 120, 240, 600])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--vae-dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--save", type=Path, default=Path("output/stages.json"))
    parser.add_argument("--draw", type=Path, default=Path("docs/time_per_stage.svg"))
    parser.add_argument("--from", type=Path, dest="earlier", metavar="FILE", help="numbers of an earlier run")
    args = parser.parse_args()
    if args.earlier:
        kept = json.loads(args.earlier.read_text(encoding="utf-8"))
    else:
        kinds = [getattr(torch, name) for name in (args.dtype, args.vae_dtype)]
        with torch.inference_mode():
            made = Networks(size(args.size), args.device, *kinds)
            times, peaks = measure(made, args.seconds, args.runs, args.warmup)
        where = torch.cuda.get_device_name(made.device) if made.device.type == "cuda" else "CPU"
        what = f"{args.size} model, {args.dtype} (autoencoder {args.vae_dtype}), {where}"
        kept = {"what": what, "seconds": times, "peaks": peaks}
        args.save.parent.mkdir(parents=True, exist_ok=True)
        args.save.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    args.draw.parent.mkdir(parents=True, exist_ok=True)
    draw(args.draw, kept["seconds"], kept["what"])
    header = ["music", *(f"{stage}: faster (ours, diffusers)" for stage in STAGES), "whole song"]
    print(table(f"Time per stage: {kept['what']}", header, rows(kept["seconds"])))
    if kept.get("peaks"):
        header = ["music", *(f"{stage}: less (ours, diffusers)" for stage in STAGES)]
        print(table(f"Device memory beside the weights: {kept['what']}", header, peak_rows(kept["peaks"])))


if __name__ == "__main__":
    main()
