"""The command ``batchmix data``: what is there of an image set, and fetching what is missing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchmix.errors import MixError

if TYPE_CHECKING:
    from batchmix.data.search import Finding


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to a parser.

    Args:
        subparsers: What ``ArgumentParser.add_subparsers`` gave.
    """
    parser = subparsers.add_parser(
        "data",
        help="fetch CIFAR-10 or another image set, and check it",
        description="Show what is there of CIFAR-10, check every byte of it against the official checksums, "
        "and fetch it (about 170 MB; 184 MB on disk) where it is missing. Likewise for cifar100 (184 MB) and "
        "fashion-mnist (55 MB); a folder of images is decoded once and kept.",
    )
    parser.add_argument(
        "name",
        nargs="?",
        default="cifar10",
        metavar="NAME",
        help="cifar10 (the default), cifar100, fashion-mnist, or folder:PATH with PATH/CLASS/IMAGE, or "
        "train/CLASS/IMAGE and test/CLASS/IMAGE below PATH; where there is no test/, val/, valid/ or "
        "validation/ serves",
    )
    parser.add_argument(
        "--size", type=int, metavar="PIXELS", help="height and width of the images of a folder (default: 32)"
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        help="a folder that holds the set in any of its published forms, or a new or empty folder to keep "
        "it in (default: $BATCHMIX_DATA, else $XDG_CACHE_HOME/batchmix, else ~/.cache/batchmix)",
    )
    parser.add_argument(
        "--no-download", action="store_true", help="only look; fail where the data are not there"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Show what is there, and fetch what is missing.

    Args:
        args: ``name`` (str), ``size`` (int or None), ``root`` (Path or None) and ``no_download`` (bool).

    Returns:
        0, the exit status.

    Raises:
        DataError: If there are no data and none can be fetched, or an image is broken.
        MixError: If ``name`` is unknown, ``root`` is no folder, or ``size`` is given without ``folder:``.
    """
    if args.size is not None and not args.name.startswith("folder:"):
        raise MixError.of("--size", args.size, "nothing unless NAME is folder:PATH")
    if args.name == "cifar10":
        _cifar10(args)
    else:
        _other(args)
    return 0


def _other(args: argparse.Namespace) -> None:
    from batchmix.data import load_images
    from batchmix.data.report import plain_console

    data = load_images(args.name, size=args.size, root=args.root, download=not args.no_download)
    side = data.train_x.shape[1]
    line = (
        f"{data.name}: {len(data.train_y):,} images to train on, {len(data.test_y):,} to test with, "
        f"{side} x {side} pixels, {len(data.classes)} classes"
    )
    plain_console().print(line, soft_wrap=True)


def _cifar10(args: argparse.Namespace) -> None:
    from batchmix.data.cache import data_folder
    from batchmix.data.cifar10 import CIFAR10
    from batchmix.data.obtain import obtain
    from batchmix.data.report import Report
    from batchmix.data.search import search

    report = Report(progress=True)
    folder = data_folder(args.root)
    found = [replace(finding, batches=None) for finding in search(folder, CIFAR10, report)]
    if not any(finding.problem is None for finding in found):
        if found:
            _show(folder, found)
        obtain(CIFAR10, args.root, download=not args.no_download, report=report)
        found = list(search(folder, CIFAR10, report))
    _show(folder, found)


def _show(folder: Path, found: Sequence[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from batchmix.data.report import plain_console

    table = Table(box=None, pad_edge=False)
    for heading in ("Form", "File", "Size", "Checksums"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "Size" else "left")
    for finding in found:
        name = finding.path.relative_to(folder)
        state = Text("verified", "green") if finding.problem is None else Text(finding.problem, "red")
        table.add_row(finding.title, Text(str(name)), f"{finding.size / 1e6:.1f} MB", state)
    console = plain_console()
    console.print(f"CIFAR-10 in {folder}", soft_wrap=True)
    console.print(table)
