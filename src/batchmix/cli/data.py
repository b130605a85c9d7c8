"""The command ``batchmix data``: what is there of CIFAR-10, and fetching what is missing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchmix.data.search import Finding


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to a parser.

    Args:
        subparsers: What ``ArgumentParser.add_subparsers`` gave.
    """
    parser = subparsers.add_parser(
        "data",
        help="fetch CIFAR-10 and check it",
        description="Show what is there of CIFAR-10, check every byte of it against the official checksums, "
        "and fetch it (about 170 MB; 184 MB on disk) where it is missing.",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        help="a folder that holds CIFAR-10 in any of its published forms, or a new or empty folder to keep "
        "it in (default: $BATCHMIX_DATA, else $XDG_CACHE_HOME/batchmix, else ~/.cache/batchmix)",
    )
    parser.add_argument(
        "--no-download", action="store_true", help="only look; fail where the data are not there"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Show what is there, and fetch what is missing.

    Args:
        args: ``root`` (Path or None) and ``no_download`` (bool).

    Returns:
        0, the exit status.

    Raises:
        DataError: If there are no data and none can be fetched.
        MixError: If ``root`` is no folder.
    """
    from batchmix.data.cifar10 import CIFAR10
    from batchmix.data.obtain import data_folder, obtain
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
    return 0


def _show(folder: Path, found: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("Form", "File", "Size", "Checksums"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "Size" else "left")
    for finding in found:
        name = finding.path.relative_to(folder)
        state = Text("verified", "green") if finding.problem is None else Text(finding.problem, "red")
        table.add_row(finding.title, Text(str(name)), f"{finding.size / 1e6:.1f} MB", state)
    console = Console()
    console.print(f"CIFAR-10 in {folder}", markup=False, highlight=False, soft_wrap=True)
    console.print(table)
