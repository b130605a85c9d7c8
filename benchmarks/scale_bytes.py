"""The bytes a step of every cross-rank option, for a model of timm: the table of docs/scale.md.

    python benchmarks/scale_bytes.py --page docs/scale.md

Counted from the model's own weights and norms. Nothing is sent, and no weights are made.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import nn

from batchmix.errors import DataError
from batchmix.files import put_between, write_whole
from batchmix.scale.stopping import ASK_EVERY

BEGIN, END = "<!-- bytes:begin -->", "<!-- bytes:end -->"
FLOAT, COUNTER = 4, 8  # bytes


@dataclass(frozen=True)
class Model:
    """What counts of a model: weights, channels of all batch norms together, and how many norms."""

    name: str
    weights: int
    channels: int
    norms: int


def model_of(name: str) -> Model:
    """Count a timm model."""
    with torch.device("meta"):
        net = timm.create_model(name)
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    channels = sum(norm.num_features for norm in norms)
    return Model(name, sum(weight.numel() for weight in net.parameters()), channels, len(norms))


def table(model: Model, images: int, side: int) -> list[str]:
    """The lines between the marks."""
    pixels = images * 3 * side**2
    norm = FLOAT * (2 * model.channels + model.norms)
    rows = (
        ("gradients", "always", "4P", size(FLOAT * model.weights)),
        ("mixing within the rank", "default", "0", "0"),
        ("draws of a shared mix", "`--exact`", "0: computed by everybody", "0"),
        (
            "partners of other ranks",
            "`--exact`, folders",
            "0 on the network; up to nS decoded more, from the disk",
            f"up to {size(pixels)} of pixels",
        ),
        (
            "batch norm",
            "`--exact`",
            "4(2C + L) forward, the same backward",
            f"{size(2 * norm)}, in {4 * model.norms} messages",
        ),
        ("partners from the next rank", "`bm.from_next_rank` on uint8", "nS, once; no ring", size(pixels)),
        ("the same on float32", "`bm.from_next_rank`", "4nS", size(FLOAT * pixels)),
        ("loss, accuracy", "where a report is due", "8", "8 B"),
        ("whether to stop, and the pace", f"there, and every {ASK_EVERY} s or so", "16", "16 B"),
        (
            "running statistics, of weights and average",
            "before a test, folders",
            "16(C + L)",
            size(2 * (2 * FLOAT * model.channels + COUNTER * model.norms)),
        ),
    )
    head = (
        "what",
        "when",
        "bytes summed or sent by each rank, a step",
        f"{model.name}, n = {images}, {side} px",
    )
    return [
        row_of(head),
        "|---|---|---|---|",
        *map(row_of, rows),
        "",
        f"{model.name} has P = {model.weights:,}, C = {model.channels:,} and L = {model.norms}. Counted by "
        "`python benchmarks/scale_bytes.py --page docs/scale.md`.",
    ]


def row_of(cells: tuple[str, ...]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def size(count: int) -> str:
    """Bytes in a unit that is read at a glance, thousands as in networks."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e8 else f"{count / 1e6:.2g} MB"


def main() -> None:
    """Count, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="resnet50", help="a timm model (default: resnet50)")
    add("--images", type=int, default=64, help="of a rank, a step (default: 64)")
    add("--side", type=int, default=224, help="of an image in pixels (default: 224)")
    add("--page", type=Path, metavar="FILE", help="the page to write it to; the terminal if left out")
    args = parser.parse_args()
    if not timm.is_model(args.model):
        parser.error(f"--model takes the name of a timm model, got {args.model!r}")
    for name in ("images", "side"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} takes a whole number >= 1, got {getattr(args, name)}")
    lines = table(model_of(args.model), args.images, args.side)
    if args.page is None:
        sys.stdout.write("\n".join(lines) + "\n")
        return
    try:
        text = put_between(args.page.read_text(), BEGIN, END, "\n".join(lines))
        write_whole(args.page, [text.encode()])
    except (DataError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
