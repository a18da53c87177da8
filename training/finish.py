"""Write a trained nano as a checkpoint:
`python -m training.finish --dit DIR --vae DIR --planner DIR --out acestep_core/nano`.

`--dit` is the folder of `training.distill` or `training.alignment` (turbo), or of `training.dit` with `--base`. The
checkpoint has the averaged weights. `--heads 3.2 3.3` lists heads that follow the lyrics, by layer and head.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import nano_config
from .conditioning import nano_tokenizer
from .dit import Networks
from .export import FILE_LIMIT, silence_of, write_network, write_planner, write_text_encoder, write_vae
from .lyric_heads import Head, config_value
from .planner import build_planner, merge_levels, share_levels
from .state import Average, load_state
from .vae import load_trained

NOTE = "nano is a miniature trained on synthetic music: it shows how everything works, not how ACE-Step sounds"
TOTAL_LIMIT = 32_000_000  # bytes


def finish(
    dit: Path,
    vae_folder: Path,
    out: Path,
    turbo: bool = True,
    planner: Path | None = None,
    heads: Sequence[Head] = (),
) -> int:
    """Write the checkpoint and return its size in bytes.

    Raises FileNotFoundError if there is no training state, and ValueError if the checkpoint is too large.
    """
    saved = load_state(dit, "dit")
    if saved is None:
        raise FileNotFoundError(f"dit: no training state in {dit}. Run `python -m training.dit` first.")
    networks = Networks(nano_config.MODEL, nano_config.TEXT, nano_tokenizer(dit / "tokenizer"))
    networks.load_state_dict(saved["networks"])
    average = Average(networks)
    average.load(saved["average"])
    average.swap()
    listed = {int(layer): tuple(own) for layer, own in config_value(heads).items()}
    networks.model.config = replace(networks.model.config, lyric_alignment_layers_config=listed)
    vae = load_trained(vae_folder)
    write_text_encoder(out, networks.tower.qwen, networks.tower.config, dit / "tokenizer")
    write_vae(out, vae)
    write_network(out, networks.model, silence_of(vae), NOTE, turbo)
    if planner is not None:
        write_trained_planner(planner, out, dit / "tokenizer")
    sizes = {path: path.stat().st_size for path in out.rglob("*") if path.is_file()}
    total, largest = sum(sizes.values()), max(sizes, key=sizes.__getitem__)
    if total > TOTAL_LIMIT or sizes[largest] > FILE_LIMIT:
        raise ValueError(
            f"out: nano has {total / 1e6:.1f} MB and {largest.name} {sizes[largest] / 1e6:.1f} MB. "
            f"The limits are {TOTAL_LIMIT / 1e6:.0f} MB and {FILE_LIMIT / 1e6:.0f} MB a file."
        )
    return total


def write_trained_planner(folder: Path, out: Path, tokenizer: Path) -> None:
    """Write the planner from the training state in `folder`."""
    saved = load_state(folder, "planner")
    if saved is None:
        raise FileNotFoundError(f"planner: no training state in {folder}. Run `python -m training.planner` first.")
    rows = saved["network"]["model.embed_tokens.parametrizations.weight.original"].shape[0]
    network = build_planner(rows)
    share_levels(network, rows - nano_config.CODES)
    network.load_state_dict(saved["network"])
    average = Average(network)
    average.load(saved["average"])
    average.swap()
    merge_levels(network)
    write_planner(out, network.model, replace(nano_config.PLANNER, vocab_size=rows), tokenizer)


def head(text: str) -> Head:
    """Return the layer and the head that `text` names, such as "3.2"."""
    layer, number = text.split(".")
    return int(layer), int(number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dit", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--planner", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", nargs="*", default=(), type=head, help="heads that follow the lyrics, such as 3.2")
    parser.add_argument("--base", action="store_true", help="write a base model, which is not distilled")
    args = parser.parse_args()
    size = finish(args.dit, args.vae, args.out, not args.base, args.planner, args.heads)
    parser.exit(0, f"{size / 1e6:.1f} MB in {args.out}\n")


if __name__ == "__main__":
    main()
