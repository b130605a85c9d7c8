"""Our presets for one GPU and airbench in turn, on the same device: time, accuracy, share of the peak.

    python benchmarks/records.py --runs 50 --airbench-checkout ../airbench --record --page
    python benchmarks/records.py --frontier --runs 10 --record --page
    python benchmarks/records.py --device cpu --small --runs 2  # in a minute: shows that everything works

airbench is not part of this project: its package is used where it is installed (``pip install
airbench==0.1.8``, with torchvision), its scripts where a checkout is given. Who cannot run is reported, with
the reason.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from batchmix.bench.race.contenders import NAMES, Contender, contender, frontier
from batchmix.bench.race.page import insert, page, section
from batchmix.bench.race.records import append_records, read_records, records_of
from batchmix.bench.race.turns import race
from batchmix.bench.targets import check_target, text_of
from batchmix.errors import DataError, MixError
from batchmix.files import make_folder, write_whole
from batchmix.recipe.flop import matmul_rate
from batchmix.recipe.machine import describe_machine
from batchmix.recipe.training import pick_device

FOLDER = Path(__file__).resolve().parent
RECORDS = FOLDER / "records" / "race.jsonl"
PAGE = FOLDER.parent / "docs" / "records.md"
USUAL = ("gpu94", "airbench94_muon", "airbench94", "gpu96", "airbench96_faster")
SMALL_MATRIX = 512


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--contenders", default=",".join(USUAL), help=f"some of {', '.join(NAMES)}")
    made.add_argument(
        "--frontier", action="store_true", help="time against accuracy, with and without mixing"
    )
    made.add_argument("--runs", type=int, default=50, help="of each contender")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    made.add_argument("--small", action="store_true", help="nets and images for seconds on a CPU")
    made.add_argument("--held-out", action="store_true", help="test on 5,000 training images set apart")
    made.add_argument(
        "--root", type=Path, metavar="DIR", help="a folder with CIFAR-10, in any published form"
    )
    made.add_argument("--airbench-checkout", type=Path, metavar="DIR", help="a checkout of airbench")
    made.add_argument(
        "--record", nargs="?", type=Path, const=RECORDS, metavar="FILE", help="keep the records"
    )
    made.add_argument(
        "--report", action="store_true", help="race nobody: show, and write, what the records say"
    )
    made.add_argument(
        "--page", nargs="?", type=Path, const=PAGE, metavar="FILE", help="write the tables into it"
    )
    return made


def main(words: list[str] | None = None) -> int:
    """Race, show, and keep what was asked for; the exit status, 130 where it was stopped."""
    args = parser().parse_args(words)
    stopped = False
    try:
        if args.runs < 1:
            raise MixError.of("--runs", args.runs, "a whole number >= 1")
        if args.page is not None and args.record is None and not args.report:
            raise MixError(
                "--page takes --record beside it, or --report: the page is made from all that was kept"
            )
        check_targets(args)
        typed = shlex.join(sys.argv[1:] if words is None else words)
        if args.report:
            records = kept_in(args.record or RECORDS)
        else:
            records, stopped = run(args, f"python benchmarks/records.py {typed}")
        for name in dict.fromkeys(record["race"] for record in records):
            sys.stdout.write(section([record for record in records if record["race"] == name]) + "\n\n")
        if args.page is not None:
            kept = read_records(args.record or RECORDS)
            write_whole(args.page, [insert(text_of(args.page), page(kept)).encode()])
    except (DataError, MixError) as error:
        say(f"error: {error}")
        return 2
    return 130 if stopped else 0


def check_targets(args: argparse.Namespace) -> None:
    """What can be said of the files before hours are spent."""
    if args.record is not None and not args.report:
        make_folder(args.record.absolute().parent)
        check_target("--record", args.record)
        read_records(args.record)
    if args.page is not None:
        check_target("--page", args.page)
        insert(text_of(args.page), "")


def kept_in(path: Path) -> list[dict[str, object]]:
    """The records of a file that is there: a report of nothing would empty the page.

    Raises:
        DataError: If it is not there.
    """
    if not path.exists():
        raise DataError(f"--report takes a file of records, found no {path}")
    return read_records(path)


def run(args: argparse.Namespace, command: str) -> tuple[list[dict[str, object]], bool]:
    """Race every group for itself; its records are kept as soon as it is done.

    Returns:
        The records, and whether it was interrupted: no group races after that.
    """
    device = pick_device(args.device)
    options = {"device": str(device), "small": args.small, "held_out": args.held_out}
    options["root"] = None if args.root is None else str(args.root)
    rate = matmul_rate(device, SMALL_MATRIX) if device.type == "cpu" else matmul_rate(device)
    name = time.strftime("%Y%m%d-%H%M%S")
    kept: list[dict[str, object]] = []
    for group in groups(args):
        entries, stopped = race(group, runs=args.runs, options=options, tell=say)
        if stopped and not any(entry.runs for entry in entries):  # before the first round was whole
            return kept, True
        records = records_of(
            entries,
            kind="frontier" if args.frontier else "race",
            race=name,
            machine=describe_machine(device),
            rate=rate,
            options=options,
            command=command,
        )
        if args.record is not None:
            append_records(args.record, records)
        kept += records
        if stopped:
            return kept, True
    return kept, False


def say(line: str) -> None:
    """A line for whoever waits; results alone go to standard output."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def groups(args: argparse.Namespace) -> list[list[Contender]]:
    """Who races whom."""
    if args.frontier:
        return frontier(small=args.small)
    names = args.contenders.split(",")
    return [[contender(name, args.airbench_checkout, small=args.small) for name in names]]


if __name__ == "__main__":
    sys.exit(main())
