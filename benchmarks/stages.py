"""Where the time of a song goes: encode, sample, decode against its length, ours, diffusers' and ComfyUI's, in one run.

    python -m benchmarks.stages --size small --once-above 60             half an hour of two CPU cores
    COMFYUI_PATH=... python -m benchmarks.stages                         with ComfyUI's own (0.11.1 and later)
    python -m benchmarks.stages --device cuda --dtype bfloat16 --vae-dtype float16 --seconds 30 120 240 600
    python -m benchmarks.stages --from output/stages.json                draws and prints what was measured before

Encode is the text encoder (transformers' in all) and the condition encoder; sample eight steps without guidance and
what they share; decode the autoencoder, tiled. ComfyUI's nodes do more than is timed here (they ask the condition
encoder and turn audio codes into latents anew in each step) and decode in one piece; they are left out above
--native-seconds. Random weights, of the same shapes. Times are medians of alternating runs after an untimed one; songs
above --once-above run a single time. On CUDA a second table has the peaks of device memory: what one more run of each
allocates beside all weights. Writes the numbers to --save, after each length, and a picture to --draw.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from acestep_core.config import FRAME_RATE, ModelConfig, TextEncoderConfig, VAEConfig
from acestep_core.models.cpu.plugins import install_cpu_plugins
from acestep_core.models.model import AceStepModel
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.models.tiling import decode_tiled
from acestep_core.sampling.loop import denoise
from acestep_core.sampling.velocity import network_velocity
from acestep_core.text.encoder import build_qwen3

from . import native
from .common import alternate, megabytes, table
from .dit_step import SIZES
from .picture import Line, write_chart

STEPS, CAPTION_ROWS, LYRIC_ROWS = 8, 60, 240
STAGES = ("encode", "sample", "decode")
COLOURS = {"encode": "#2a7f3f", "sample": "#1f5fb4", "decode": "#c2410c"}
DASHES = {"ours": "", "diffusers": "7 5", native.NAME: "2 4"}
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
    """All sides' networks of one size."""

    def __init__(self, size: Size, device: str, dtype: torch.dtype, vae_dtype: torch.dtype, graphs: bool = False):
        from diffusers import AceStepTransformer1DModel, AutoencoderOobleck
        from diffusers.pipelines.ace_step.modeling_ace_step import AceStepConditionEncoder

        self.config, text, vae = size.network, size.text, size.vae
        self.device, self.dtype, self.vae_dtype, self.graphs = torch.device(device), dtype, vae_dtype, graphs
        self.text = _drawn(build_qwen3(text, device, dtype))
        self.network = _drawn(AceStepModel(self.config, device=device, dtype=dtype))
        self.vae = _drawn(OobleckVAE(vae, device=device, dtype=vae_dtype))
        for module in (self.network, self.vae):
            install_cpu_plugins(module, self.device)
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
        self.native = self.native_vae = None
        if native.offers(self.config):
            self.native = _drawn(native.network(self.config, self.device, dtype))
            self.native_vae = _drawn(native.autoencoder(vae, self.device, vae_dtype))


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


def stages(made: Networks, seconds: int, with_native: bool = True) -> dict[str, dict[str, Callable[[], object]]]:
    """For each stage the things to time, by side."""
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
        velocity = network_velocity(made.network, [condition], context, guided=False, graphs=made.graphs)
        return denoise(velocity, noise, schedule)

    def their_sample() -> torch.Tensor:
        x, seen = noise.to(dtype), context.to(dtype)
        for now, then in zip(schedule[:-1], schedule[1:], strict=True):
            t = now.to(device, dtype)[None]
            velocity = made.their_transformer(x, t, t, condition, seen, return_dict=False)[0]
            x = x + (then - now).to(x) * velocity
        return x

    def native_sample() -> torch.Tensor:
        x, seen = noise.to(dtype), context.to(dtype)
        for now, then in zip(schedule[:-1], schedule[1:], strict=True):
            velocity = native.velocity(made.native, x, now.to(device, dtype)[None], condition, seen)
            x = x + (then - now).to(x) * velocity
        return x

    found = {
        "encode": {"ours": lambda: made.network.encoder(read(), lyrics, timbre), "diffusers": their_encode},
        "sample": {"ours": sample, "diffusers": their_sample},
        "decode": {
            "ours": lambda: decode_tiled(made.vae, latents, device=device),
            "diffusers": lambda: made.their_vae.decode(latents.mT.to(made.vae_dtype)).sample.float().cpu(),
        },
    }
    if made.native is not None and with_native:
        found["encode"][native.NAME] = lambda: native.condition(made.native, read(), lyrics, timbre[0])
        found["sample"][native.NAME] = native_sample
        found["decode"][native.NAME] = lambda: made.native_vae.decode(latents.mT.to(made.vae_dtype)).float().cpu()
    return found


def measure(
    made: Networks, lengths: list[int], runs: int, warmup: int, once_above: int, native_seconds: int
) -> Iterator[tuple[str, Found, Found]]:
    """Of each length its seconds, and bytes of the device beside the weights: none where it is no CUDA device."""
    on_cuda = made.device.type == "cuda"

    def finished(run: Callable[[], object]) -> Callable[[], None]:
        def whole() -> None:
            run()
            if on_cuda:
                torch.cuda.synchronize(made.device)

        return whole

    for seconds in lengths:
        sides = stages(made, seconds, seconds <= native_seconds)
        counts = (1, 0) if seconds > once_above else (runs, warmup)
        times = {
            stage: alternate({name: finished(run) for name, run in by_side.items()}, *counts)
            for stage, by_side in sides.items()
        }
        peaks = {}
        if on_cuda:
            peaks = {
                stage: {name: peak(run, made.device) for name, run in by_side.items()}
                for stage, by_side in sides.items()
            }
        yield str(seconds), times, peaks


def peak(run: Callable[[], object], device: torch.device) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def rows(
    found: Found, shown: Callable[[float], str], together: Callable[[Iterable[float]], float] = sum
) -> list[list[str]]:
    """Of each length and stage, and of all stages together, how many times as much the others take, then ours."""
    result = []
    for seconds, by_stage in found.items():
        whole = {
            side: together(numbers[side] for numbers in by_stage.values() if side in numbers)
            for side in by_stage["sample"]
        }
        cells = []
        for numbers in (*by_stage.values(), whole):
            others = ", ".join(f"{name} {n / numbers['ours']:.2f}×" for name, n in numbers.items() if name != "ours")
            cells.append(f"{others} ({shown(numbers['ours'])})")
        result.append([f"{seconds} s", *cells])
    return result


def draw(path: Path, found: Found, what: str) -> None:
    lines = [
        Line(
            f"{stage}, {side}",
            points,
            COLOURS[stage],
            dashes,
        )
        for stage in STAGES
        for side, dashes in DASHES.items()
        if (points := [(float(s), of[stage][side]) for s, of in found.items() if side in of[stage]])
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
    parser.add_argument("--vae-dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--graphs", action="store_true", help="record our steps as CUDA graphs")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1, help="untimed runs")
    parser.add_argument("--once-above", type=int, default=600, metavar="SECONDS", help="longer songs run once")
    parser.add_argument("--native-seconds", type=int, default=240, help="the longest song that ComfyUI is given")
    parser.add_argument("--save", type=Path, default=Path("output/stages.json"))
    parser.add_argument("--draw", type=Path, default=Path("docs/time_per_stage.svg"))
    parser.add_argument("--from", type=Path, dest="earlier", metavar="FILE", help="numbers of an earlier run")
    args = parser.parse_args()
    if args.earlier:
        kept = json.loads(args.earlier.read_text(encoding="utf-8"))
    else:
        kinds = [getattr(torch, name) for name in (args.dtype, args.vae_dtype)]
        with torch.inference_mode():
            made = Networks(size(args.size), args.device, *kinds, args.graphs)
            where = torch.cuda.get_device_name(made.device) if made.device.type == "cuda" else "CPU"
            what = f"{args.size} model, {args.dtype} (autoencoder {args.vae_dtype}), {where}"
            what += ", ours as CUDA graphs" if args.graphs else ""
            kept = {"what": what, "seconds": {}, "peaks": {}}
            args.save.parent.mkdir(parents=True, exist_ok=True)
            for length, times, peaks in measure(
                made, args.seconds, args.runs, args.warmup, args.once_above, args.native_seconds
            ):
                kept["seconds"][length] = times
                if peaks:
                    kept["peaks"][length] = peaks
                args.save.write_text(json.dumps(kept, indent=1), encoding="utf-8")
                print(f"{length} s of music are measured.", file=sys.stderr)
    args.draw.parent.mkdir(parents=True, exist_ok=True)
    draw(args.draw, kept["seconds"], kept["what"])
    header = ["music", *(f"{stage}: others' / ours (ours)" for stage in (*STAGES, "whole song"))]
    print(table(f"Time per stage: {kept['what']}", header, rows(kept["seconds"], lambda t: f"{t:.3g} s")))
    if kept.get("peaks"):
        print(table(f"Device memory beside the weights: {kept['what']}", header, rows(kept["peaks"], megabytes, max)))


if __name__ == "__main__":
    main()
