"""The command line: ``batchmix train``, ``compare``, ``bench``, ``show``, ``data``, ``results``.

Each command is a module with ``add_parser(subparsers)`` and ``run(args)``; what is heavy to import is
imported inside ``run``.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from batchmix._version import __version__
from batchmix.cli.output import OutputError, checked_output
from batchmix.errors import DataError, MixError
from batchmix.files import expanded


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, and which takes flags by their full names alone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # Else a mistyped --no is read as --no-fold, and trains for minutes.
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is, and leave with status 2."""
        self.exit(2, f"error: {message} ({self.prog} --help lists what there is)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    from batchmix.cli import bench, compare, data, results, show, train

    parser = OneLineParser(prog="batchmix", description="mixup for PyTorch: train, look, measure.")
    parser.add_argument("--version", action="version", version=f"batchmix {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (train, compare, bench, show, data, results):
        command.add_parser(subparsers)
    for own in subparsers.choices.values():
        own.set_defaults(parser=own)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 is success, 2 a call that can't be carried out, 130 a Ctrl-C, 1 what else failed."""
    args, unknown = build_parser().parse_known_args(argv)
    if unknown:  # which the whole parser would refuse with its own help
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    # Of large pictures, without a name: they are the user's own, and much larger ones are refused.
    warnings.filterwarnings("ignore", "Image size .* could be decompression bomb", RuntimeWarning)
    try:
        with checked_output():
            status: int = args.func(args)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("batchmix"):
            raise
        told = "pip install" in str(error)  # as errors.needs tells it
        return _fail(str(error) if told else f"this command needs {error.name}: pip install 'batchmix[cli]'")
    except (MixError, DataError) as error:
        return _fail(str(error))
    except OutputError as error:
        return _fail(str(error), 1) if str(error) else 1
    except KeyboardInterrupt:
        return 130
    return status


def existing_folder(text: str) -> Path:
    """The type of a flag that takes a folder as it is: a mistyped one is not made, nothing fetched into it.

    Raises:
        argparse.ArgumentTypeError: If there is no such folder.
    """
    if not expanded(text).is_dir():
        raise argparse.ArgumentTypeError(
            f"takes a folder that is there ('batchmix data --root' makes one), got {text!r}"
        )
    return Path(text)


def flag_name(name: str) -> str:
    """The flag of an argument."""
    return "--" + name.replace("_", "-")


def _fail(message: str, status: int = 2) -> int:
    sys.stderr.write(f"error: {message}\n")
    return status
