"""The command ``batchmix train``: CIFAR-10 with mixup, from real images to a tested net."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchmix.cli import existing_folder, flag_name, train_folder
from batchmix.recipe.config import CHOICES, PRESETS, TrainConfig, preset

if TYPE_CHECKING:
    from batchmix.scale.world import World

FLAGS = dataclasses.fields(TrainConfig)
TYPES = typing.get_type_hints(TrainConfig)


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to a parser; the flags of a run are the fields of ``TrainConfig``."""
    presets = "\n".join(f"  {name:12}{found.text}" for name, found in PRESETS.items())
    parser = subparsers.add_parser(
        "train",
        help="train on CIFAR-10 with mixup",
        description="Train a small convolutional net on CIFAR-10, test it, and leave a folder of results.\n"
        f"Presets (auto takes the one for this machine):\n{presets}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", metavar="NAME", help="where all flags start from (default: auto)")
    for flag in FLAGS:
        add_flag(parser, flag)
    train_folder.add_flags(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--root",
        type=existing_folder,
        metavar="DIR",
        help="a folder with CIFAR-10, in any published form; it is fetched into an empty one",
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where run folders go")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with the stopped run in this folder; auto: the run is in --out itself, and goes on if it "
        "was begun, as torchrun's restarts need it",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="under torchrun: the processes compute what one would, to rounding; else each mixes and "
        "normalises its part of the batch for itself, which is faster",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="append the summary to a file of records, of which 'batchmix results' takes those of CIFAR-10",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, and nothing else")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Train, and print the summary; 130 where the run was stopped."""
    from batchmix.scale.world import joined

    with joined(args.device) as world:
        return _run(args, world)


def _run(args: argparse.Namespace, world: World) -> int:
    from batchmix.recipe.machine import memory_told
    from batchmix.recipe.progress import Progress
    from batchmix.recipe.run import RunOptions, train

    if world.size > 1:
        args.device = world.device
    if args.data is not None:
        return train_folder.run(args, world)
    train_folder.refuse_flags(args)
    name = _for_this_machine("auto" if args.preset is None else args.preset, args.device)
    options = RunOptions(
        preset=name,
        command="batchmix " + shlex.join(sys.argv[1:]),
        device=args.device,
        data=args.root,
        out=args.out,
        resume=args.resume,
        record=args.record,
        exact=args.exact,
        world=world,
    )
    with Progress(shown=not args.json and world.first) as progress, memory_told():
        summary = train(config_from(args, name), options, progress)
    if summary is None:
        return 130
    if not world.first:
        return 0
    sys.stdout.write((json.dumps(summary) if args.json else _summary_text(summary)) + "\n")
    return 0


def config_from(args: argparse.Namespace, preset_name: str) -> TrainConfig:
    """The preset's config with the flags that were given.

    Raises:
        MixError: If a value is out of range, or the preset is unknown, or flags meet ``--resume``.
    """
    from batchmix.errors import MixError

    given = {flag.name: getattr(args, flag.name) for flag in FLAGS if getattr(args, flag.name) is not None}
    train_folder.refuse_beside_resume(args, given)
    if given.get("mix") not in (None, *CHOICES["mix"]):
        raise MixError.of(
            "--mix", given["mix"], f"{', '.join(CHOICES['mix'])}, or both where --data is folder:PATH"
        )
    return dataclasses.replace(preset(preset_name), **given)


def _for_this_machine(name: str, device: str) -> str:
    """The preset that ``auto`` or ``quick`` stands for here; any other stands for itself."""
    from batchmix.recipe.machine import has_amx, has_bf16_units
    from batchmix.recipe.training import pick_device

    if name not in ("auto", "quick"):
        return name
    on_gpu = pick_device(device).type == "cuda"
    if name == "quick":
        return "quick-bf16" if has_amx() and not on_gpu else "quick"
    if on_gpu:
        return "gpu"
    if has_amx():
        return "cpu-bf16"
    return "cpu-avx512" if has_bf16_units() else "cpu"


def add_flag(parser: argparse.ArgumentParser, flag: dataclasses.Field[Any]) -> None:
    """A flag for a field; left out, it is None, and the preset's value holds."""
    kind = TYPES[flag.name]
    options: dict[str, Any] = {"help": flag.metadata["help"], "default": None}
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif flag.metadata["choices"]:
        options["choices"] = train_folder.MIXES if flag.name == "mix" else flag.metadata["choices"]
    elif typing.get_origin(kind) is tuple:
        options |= {"type": _numbers, "metavar": "N,N,..."}
    else:
        options |= {"type": kind, "metavar": "N" if kind is int else "X"}
    parser.add_argument(flag_name(flag.name), **options)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"takes whole numbers with commas, such as 32,64, got {text!r}"
        ) from None


def _summary_text(summary: dict[str, Any]) -> str:
    pace = summary["images_per_second"]
    beside = "the compilation of the net included" if pace is None else f"{pace:,.0f} images/s"
    lines = {
        "accuracy": f"{summary['accuracy']:.2%}",
        "with test-time augmentation": f"{summary['accuracy_tta']:.2%}",
        "loss": f"{summary['loss']:.4f}",
        "mean confidence": f"{summary['confidence']:.2%}",
        "calibration error (ECE)": f"{summary['ece']:.4f}",
        "training": f"{summary['train_seconds']:.1f} s, {beside}",
        "results": summary["folder"],
    }
    width = max(map(len, lines)) + 2
    return "\n".join(f"{name:{width}}{value}" for name, value in lines.items())
