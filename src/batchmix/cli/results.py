"""The command ``batchmix results``: the table of results from the records of runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to a parser."""
    parser = subparsers.add_parser(
        "results",
        help="make the table of results from records",
        description="Make a Markdown table from records that `batchmix train --record` wrote of trainings on "
        "CIFAR-10: a row for runs that differ in their seed alone, with mean and 95% interval.",
    )
    parser.add_argument("records", nargs="+", type=Path, metavar="FILE", help="files of records (.jsonl)")
    parser.add_argument(
        "--presets-only",
        action="store_true",
        help="leave out runs of other settings than a preset has today",
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="DOC",
        help="put the table into this document, between its lines results:begin and results:end",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the table, or write it into a document."""
    from batchmix.errors import DataError
    from batchmix.files import write_whole
    from batchmix.recipe.results import insert_table, read_records, table

    made = table(read_records(args.records), presets_only=args.presets_only)
    if args.write is None:
        sys.stdout.write(made + "\n")
        return 0
    try:
        text = args.write.read_bytes().decode()  # line ends stay as they are
    except OSError as error:
        raise DataError(f"cannot read {args.write}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise DataError(f"cannot read {args.write}: it is not UTF-8") from None
    try:
        text = insert_table(text, made)
    except DataError as error:
        raise DataError(f"cannot write into {args.write}: {error}") from None
    write_whole(args.write, [text.encode()])
    return 0
