"""``batchmix train --data folder:PATH``: a timm model on one's own images."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchmix.cli import flag_name
from batchmix.errors import MixError
from batchmix.files import expanded
from batchmix.finetune.config import MIXES, FolderConfig
from batchmix.recipe.config import TrainConfig

if TYPE_CHECKING:
    from batchmix.scale.world import World

__all__ = ["MIXES", "add_flags", "config_from", "refuse_beside_resume", "refuse_flags", "run"]

FIELDS = dataclasses.fields(FolderConfig)
SHARED = {flag.name for flag in dataclasses.fields(TrainConfig)} & {flag.name for flag in FIELDS}
OTHERS = {flag.name for flag in dataclasses.fields(TrainConfig)} - SHARED
OWN = ("workers", "checkpoint_every")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what this training has beside the recipe's flags, which it shares by name."""
    group = parser.add_argument_group(
        "on a folder of your own images",
        "--mix, --alpha, --epochs, --batch-size, --weight-decay, --label-smoothing and --seed hold there too",
    )
    group.add_argument(
        "--data",
        metavar="NAME",
        help="folder:PATH, as for 'batchmix data', which finds broken images beforehand; else CIFAR-10",
    )
    kinds = typing.get_type_hints(FolderConfig)
    for flag in FIELDS:
        if flag.name in SHARED:
            continue
        kind = kinds[flag.name]
        told: dict[str, Any] = {"help": f"{flag.metadata['help']} (default: {flag.default})", "default": None}
        if kind is bool:
            told["action"] = argparse.BooleanOptionalAction
        else:
            told |= {"type": kind, "metavar": {str: "NAME", int: "N"}.get(kind, "X")}
        group.add_argument(flag_name(flag.name), **told)
    group.add_argument(
        "--workers", type=int, metavar="N", help="processes that decode, a rank (default: cores)"
    )
    group.add_argument(
        "--checkpoint-every", type=int, metavar="N", help="steps between checkpoints, beside those of epochs"
    )


def refuse_flags(args: argparse.Namespace) -> None:
    """Refuse flags of a folder where there is none.

    Raises:
        MixError: If one was given; the message names it.
    """
    for name in (*(flag.name for flag in FIELDS if flag.name not in SHARED), *OWN):
        if getattr(args, name) is not None:
            raise MixError.of(flag_name(name), getattr(args, name), "nothing unless --data is folder:PATH")


def config_from(args: argparse.Namespace) -> FolderConfig:
    """The config of the flags that were given.

    Raises:
        MixError: If a value is out of range, or a flag is of the CIFAR-10 recipe, or flags meet ``--resume``.
    """
    for name in (*OTHERS, "preset", "root"):
        if getattr(args, name) is not None:
            raise MixError.of(flag_name(name), getattr(args, name), "nothing beside --data folder:PATH")
    given = {flag.name: getattr(args, flag.name) for flag in FIELDS if getattr(args, flag.name) is not None}
    refuse_beside_resume(args, given)
    return FolderConfig(**given)


def refuse_beside_resume(args: argparse.Namespace, given: Iterable[str]) -> None:
    """Refuse settings beside a stopped run, which has its own.

    Raises:
        MixError: If some were given; the message names them.
    """
    given = [*given, *(name for name in ("preset", "exact") if getattr(args, name))]
    if given and args.resume not in (None, Path("auto")):
        raise MixError(
            f"--resume takes the stopped run's own settings, got {', '.join(map(flag_name, given))} too"
        )


def run(args: argparse.Namespace, world: World) -> int:
    """Train, and print the summary; 130 where the run was stopped."""
    kind, _, path = args.data.partition(":")
    if kind != "folder" or not path:
        raise MixError.of("--data", args.data, "folder:PATH")
    config = config_from(args)
    for name in OWN:
        if (getattr(args, name) or 0) < 0:
            raise MixError.of(flag_name(name), getattr(args, name), "a number >= 0")
    from batchmix.finetune.run import FolderOptions, default_workers, train_folder
    from batchmix.recipe.machine import memory_told
    from batchmix.recipe.progress import Progress

    options = FolderOptions(
        preset="folder",
        command="batchmix " + shlex.join(sys.argv[1:]),
        device=args.device,
        data=expanded(path),
        out=args.out,
        resume=args.resume,
        record=args.record,
        exact=args.exact,
        world=world,
        workers=default_workers() if args.workers is None else args.workers,
        checkpoint_every=args.checkpoint_every or 0,
    )
    with Progress(shown=not args.json and world.first) as progress, memory_told():
        summary = train_folder(config, options, progress)
    if summary is None:
        return 130
    if world.first:
        sys.stdout.write((json.dumps(summary) if args.json else _text(summary)) + "\n")
    return 0


def _text(summary: dict[str, Any]) -> str:
    lines = {
        "accuracy": f"{summary['accuracy']:.2%}",
        "of averaged weights": f"{summary['accuracy_ema']:.2%}",
        "loss": f"{summary['loss']:.4f}",
        "training": f"{summary['train_seconds']:.1f} s, {summary['images_per_second']:,.0f} images/s",
        "results": summary["folder"],
    }
    width = max(map(len, lines)) + 2
    return "\n".join(f"{name:{width}}{value}" for name, value in lines.items())
