"""Time of each stage (encode, sample, decode) against the length of the song: ours, diffusers' and ComfyUI's.

    python -m benchmarks.stages                                          small model: 5 minutes on 2 cores, 3 GB
    COMFYUI_PATH=... python -m benchmarks.stages                         with ComfyUI's networks: 8 minutes
    python -m benchmarks.stages --device cuda --size 2b --dtype bfloat16 --vae-dtype float16 --seconds 30 120 240 600
    python -m benchmarks.stages --seconds 10 30 60 120 240 600 --once-above 60 --draw docs/time_per_stage.svg
                                                                         the README's picture: half an hour
    python -m benchmarks.stages --from output/stages.json                the table of an earlier run

Encode is the text encoder (transformers' on every side) and the condition encoder. Sample is eight steps without
guidance, with their shared constants. Decode is the tiled autoencoder. ComfyUI decodes in one piece. Its nodes also
repeat the condition encoder and the detokenizer in each step, which is not timed.

Weights are random. Times are medians of alternating runs after an untimed one. Songs above --once-above run once, and
songs above --native-seconds run without ComfyUI. On CUDA, a second table has the peaks of device memory beside the
weights. After each length, --save gets the results. 2B in float32 takes over 23 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import time
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
from .chart import Line, write_chart
from .common import alternate, log_progress, megabytes, table
from .dit_step import SIZES

STEPS, CAPTION_ROWS, LYRIC_ROWS = 8, 60, 240
STAGES = ("encode", "sample", "decode")
COLOURS = {"encode": "#2a7f3f", "sample": "#1f5fb4", "decode": "#c2410c"}
DASHES = {"ours": "", "diffusers": "7 5", native.NAME: "2 4"}
SMALL_TEXT = TextEncoderConfig(vocab_size=4096, hidden_size=512, intermediate_size=1536, num_hidden_layers=8)
SMALL_VAE = VAEConfig(encoder_hidden_size=32, decoder_channels=32)
Sides = dict[str, dict[str, float]]  # by stage and side
Results = dict[str, Sides]  # by seconds of music


@dataclass(frozen=True)
class Size:
    network: ModelConfig
    text: TextEncoderConfig
    vae: VAEConfig


def size(name: str) -> Size:
    """Return the configs of all networks. The small model's autoencoder has a quarter of the original's width."""
    if name != "small":
        return Size(SIZES[name], TextEncoderConfig(), VAEConfig())
    network = replace(
        SIZES["small"], encoder_intermediate_size=1536, encoder_num_attention_heads=4, encoder_num_key_value_heads=2,
        num_lyric_encoder_hidden_layers=4, num_timbre_encoder_hidden_layers=2, text_hidden_dim=SMALL_TEXT.hidden_size,
    )  # fmt: skip
    return Size(network, SMALL_TEXT, SMALL_VAE)


class Networks:
    """The networks of all sides, of one size, with random weights. Without `peers` there is ours alone."""

    def __init__(
        self,
        size: Size,
        device: str,
        dtype: torch.dtype,
        vae_dtype: torch.dtype,
        graphs: bool = False,
        peers: bool = True,
    ):
        self.config, vae = size.network, size.vae
        self.device, self.dtype, self.vae_dtype, self.graphs = torch.device(device), dtype, vae_dtype, graphs
        self.text_encoder = _randomise(build_qwen3(size.text, device, dtype))
        self.network = _randomise(AceStepModel(self.config, device=device, dtype=dtype))
        self.vae = _randomise(OobleckVAE(vae, device=device, dtype=vae_dtype))
        for ours in (self.network, self.vae):
            install_cpu_plugins(ours, self.device)
        self.peer_vae = self.native = self.native_vae = None
        if peers:
            self._build_peers(vae, dtype, vae_dtype)

    def _build_peers(self, vae: VAEConfig, dtype: torch.dtype, vae_dtype: torch.dtype) -> None:
        from diffusers import AceStepTransformer1DModel, AutoencoderOobleck
        from diffusers.pipelines.ace_step.modeling_ace_step import AceStepConditionEncoder

        with self.device:
            self.peer_transformer = _randomise(AceStepTransformer1DModel(**_sizes(self.config)).to(dtype))
            self.peer_encoder = _randomise(AceStepConditionEncoder(**_encoder_sizes(self.config)).to(dtype))
            self.peer_vae = AutoencoderOobleck(
                encoder_hidden_size=vae.encoder_hidden_size, downsampling_ratios=list(vae.downsampling_ratios),
                channel_multiples=list(vae.channel_multiples), decoder_channels=vae.decoder_channels,
                decoder_input_channels=vae.decoder_input_channels, audio_channels=vae.audio_channels,
                sampling_rate=vae.sampling_rate,
            ).eval().to(vae_dtype)  # fmt: skip
        self.peer_vae.enable_tiling()
        if native.is_available(self.config):
            self.native = _randomise(native.build_network(self.config, self.device, dtype))
            self.native_vae = _randomise(native.build_autoencoder(vae, self.device, vae_dtype))


def _randomise(module: torch.nn.Module) -> torch.nn.Module:
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


def stages(networks: Networks, seconds: int, with_native: bool = True) -> dict[str, dict[str, Callable[[], object]]]:
    """Return the functions to time, by stage and side."""
    device, dtype, vae_dtype, frames = networks.device, networks.dtype, networks.vae_dtype, seconds * FRAME_RATE
    width, timbre_frames = networks.config.text_hidden_dim, networks.config.timbre_fix_frame
    tokens = torch.zeros(1, CAPTION_ROWS, dtype=torch.long, device=device)
    lyrics = torch.randn(1, LYRIC_ROWS, width, dtype=dtype, device=device)
    timbre = torch.randn(1, 1, timbre_frames, 64, dtype=dtype, device=device)
    masks = [torch.ones(1, rows, dtype=torch.long, device=device) for rows in (CAPTION_ROWS, LYRIC_ROWS)]
    noise, context = (torch.randn(1, frames, width, device=device) for width in (64, 128))
    schedule = torch.linspace(1, 0, STEPS + 1)
    condition = networks.network.encoder(networks.text_encoder(input_ids=tokens).last_hidden_state, lyrics, timbre)
    latents = torch.randn(1, frames, 64, device=device)

    def encode_text() -> torch.Tensor:
        return networks.text_encoder(input_ids=tokens, attention_mask=masks[0], use_cache=False).last_hidden_state

    def peer_encode() -> object:
        return networks.peer_encoder(
            text_hidden_states=encode_text(), text_attention_mask=masks[0], lyric_hidden_states=lyrics,
            lyric_attention_mask=masks[1], refer_audio_acoustic_hidden_states_packed=timbre[0],
            refer_audio_order_mask=torch.zeros(1, dtype=torch.long, device=device),
        )  # fmt: skip

    def sample() -> torch.Tensor:
        velocity = network_velocity(networks.network, [condition], context, guided=False, graphs=networks.graphs)
        return denoise(velocity, noise, schedule)

    def euler(velocity: Callable[..., torch.Tensor]) -> torch.Tensor:
        x, source = noise.to(dtype), context.to(dtype)
        for t, t_next in zip(schedule[:-1], schedule[1:], strict=True):
            x = x + (t_next - t).to(x) * velocity(x, t.to(device, dtype)[None], source)
        return x

    def peer_velocity(x: torch.Tensor, t: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        return networks.peer_transformer(x, t, t, condition, source, return_dict=False)[0]

    def native_velocity(x: torch.Tensor, t: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        return native.velocity(networks.native, x, t, condition, source)

    sides = {
        "encode": {"ours": lambda: networks.network.encoder(encode_text(), lyrics, timbre), "diffusers": peer_encode},
        "sample": {"ours": sample, "diffusers": lambda: euler(peer_velocity)},
        "decode": {
            "ours": lambda: decode_tiled(networks.vae, latents, device=device),
            "diffusers": lambda: networks.peer_vae.decode(latents.mT.to(vae_dtype)).sample.float().cpu(),
        },
    }
    if networks.peer_vae is None:
        return {stage: {"ours": each["ours"]} for stage, each in sides.items()}
    if networks.native is not None and with_native:
        sides["encode"][native.NAME] = lambda: native.condition(networks.native, encode_text(), lyrics, timbre[0])
        sides["sample"][native.NAME] = lambda: euler(native_velocity)
        sides["decode"][native.NAME] = lambda: networks.native_vae.decode(latents.mT.to(vae_dtype)).float().cpu()
    return sides


def measure(
    networks: Networks, lengths: list[int], runs: int, warmup: int, once_above: int, native_seconds: int
) -> Iterator[tuple[str, Sides, Sides]]:
    """Yield each length with its seconds, and on CUDA with its bytes of device memory beside the weights."""
    on_cuda = networks.device.type == "cuda"

    def reported(run: Callable[[], object], label: str) -> Callable[[], None]:
        def whole() -> None:
            started = time.perf_counter()
            run()
            if on_cuda:
                torch.cuda.synchronize(networks.device)
            log_progress(f"{label}: {time.perf_counter() - started:.2f} s")

        return whole

    for seconds in lengths:
        counts = (1, 0) if seconds > once_above else (runs, warmup)
        times: Sides = {}
        peaks: Sides = {}
        for stage, sides in stages(networks, seconds, seconds <= native_seconds).items():
            labels = {side: f"{seconds} s of music, {stage}, {side}" for side in sides}
            times[stage] = alternate({side: reported(run, labels[side]) for side, run in sides.items()}, *counts)
            if on_cuda:
                peaks[stage] = {side: peak(run, networks.device) for side, run in sides.items()}
        yield str(seconds), times, peaks


def peak(run: Callable[[], object], device: torch.device) -> int:
    """Return the bytes of device memory that `run` needs beside what is allocated."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def rows(
    results: Results, show: Callable[[float], str], combine: Callable[[Iterable[float]], float] = sum
) -> list[list[str]]:
    """Return the table of each stage and of all stages: the ratio of the peers to ours, and ours."""
    table_rows = []
    for seconds, by_stage in results.items():
        whole = {
            side: combine(numbers[side] for numbers in by_stage.values() if side in numbers)
            for side in by_stage["sample"]
        }
        cells = []
        for numbers in (*by_stage.values(), whole):
            peers = ", ".join(f"{name} {n / numbers['ours']:.2f}×" for name, n in numbers.items() if name != "ours")
            cells.append(f"{peers} ({show(numbers['ours'])})")
        table_rows.append([f"{seconds} s", *cells])
    return table_rows


def draw(path: Path, results: Results, title: str) -> None:
    """Draw the seconds of all stages and sides."""
    lines = [
        Line(f"{stage}, {side}", points, COLOURS[stage], dashes)
        for stage in STAGES
        for side, dashes in DASHES.items()
        if (points := [(float(s), stages[stage][side]) for s, stages in results.items() if side in stages[stage]])
    ]
    ticks = {float(seconds): f"{seconds} s" for seconds in results}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_chart(path, f"Time per stage: {title}", "length of the song", "seconds", lines, ticks)


def run(args: argparse.Namespace) -> dict:
    """Measure all lengths, save the results after each, and return them."""
    dtype, vae_dtype = (getattr(torch, name) for name in (args.dtype, args.vae_dtype))
    with torch.inference_mode():
        log_progress(f"Building the networks ({args.size})")
        networks = Networks(size(args.size), args.device, dtype, vae_dtype, args.graphs)
        device = torch.cuda.get_device_name(networks.device) if networks.device.type == "cuda" else "CPU"
        title = f"{args.size} model, {args.dtype} (autoencoder {args.vae_dtype}), {device}"
        results = {"what": title + (", ours as CUDA graphs" if args.graphs else ""), "seconds": {}, "peaks": {}}
        args.save.parent.mkdir(parents=True, exist_ok=True)
        for length, times, peaks in measure(
            networks, args.seconds, args.runs, args.warmup, args.once_above, args.native_seconds
        ):
            results["seconds"][length] = times
            if peaks:
                results["peaks"][length] = peaks
            args.save.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 30, 60, 120])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--vae-dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--graphs", action="store_true", help="run our steps as CUDA graphs")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1, help="untimed runs")
    parser.add_argument("--once-above", type=int, default=30, metavar="SECONDS", help="longer songs run once")
    parser.add_argument("--native-seconds", type=int, default=240, help="the longest song for ComfyUI")
    parser.add_argument("--save", type=Path, default=Path("output/stages.json"))
    parser.add_argument("--draw", type=Path, metavar="SVG", help="draw a picture of the times")
    parser.add_argument("--from", type=Path, dest="earlier", metavar="FILE", help="results of an earlier run")
    args = parser.parse_args()
    results = json.loads(args.earlier.read_text(encoding="utf-8")) if args.earlier else run(args)
    if args.draw:
        draw(args.draw, results["seconds"], results["what"])
    header = ["music", *(f"{stage}: peers / ours (ours)" for stage in (*STAGES, "whole song"))]
    print(table(f"Time per stage: {results['what']}", header, rows(results["seconds"], lambda t: f"{t:.3g} s")))
    if results.get("peaks"):
        title = f"Device memory beside the weights: {results['what']}"
        print(table(title, header, rows(results["peaks"], megabytes, max)))


if __name__ == "__main__":
    main()
