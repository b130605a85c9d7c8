"""How long the recipe takes on a CPU beside airbench94's schedule in the same loop, and where a step goes.

    python benchmarks/two_cores.py --record benchmarks/records/two-cores.json --page docs/two-cores.md
    python benchmarks/two_cores.py --from benchmarks/records/two-cores.json --page docs/two-cores.md

Steps of all contenders take turns in one process. The page is made from the record and from the records of
whole runs in results/, and from nothing else.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from batchmix.bench.cores.page import page, read_record
from batchmix.bench.cores.steps import AT_A_TIME, measure, most_rounds
from batchmix.bench.targets import check_target
from batchmix.errors import DataError, MixError
from batchmix.files import write_whole
from batchmix.recipe.results import read_records


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--rounds", type=int, default=8, help=f"turns of {AT_A_TIME} steps of each (default: 8)")
    add("--record", type=Path, metavar="FILE", help="where the record goes")
    add("--from", type=Path, metavar="FILE", dest="source", help="measure nothing, read this record")
    add("--results", type=Path, default=Path("results/cifar10.jsonl"), help="records of whole runs")
    add("--page", type=Path, metavar="FILE", help="where the page goes; the terminal if left out")
    return made


def main() -> int:
    """Measure, or read a record, and write the page; the exit status."""
    options = parser()
    args = options.parse_args()
    if not 1 <= args.rounds <= most_rounds():
        options.error(f"--rounds takes a whole number from 1 to {most_rounds()}, got {args.rounds}")
    if (args.source is None) == (args.record is None):
        options.error("takes either --record FILE or --from FILE")
    try:
        for flag, path in (("--record", args.record), ("--page", args.page)):
            if path is not None:
                check_target(flag, path)
        results = read_records([args.results])
        if args.source is None:
            record = measure(args.rounds, "python benchmarks/two_cores.py " + shlex.join(sys.argv[1:]))
            write_whole(args.record, [(json.dumps(record, indent=1) + "\n").encode()])
        else:
            record = read_record(args.source)
        text = page(record, results)
        if args.page is None:
            sys.stdout.write(text)
        else:
            write_whole(args.page, [text.encode()])
    except (DataError, MixError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
