"""The command ``batchmix bench``: mixing measured beside the other libraries, on this machine."""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from batchmix.errors import MixError

if TYPE_CHECKING:
    from batchmix.bench.cases import BenchOptions, Case

REPEATS = {"quick": 5, "all": 7}
UNLIMITED = 10_000  # columns of a file
PICTURES = "pictures"  # the folder beside a page
OF_A_MEASUREMENT = ("only", "shapes", "repeats", "threads", "device", "record")


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to a parser.

    Args:
        subparsers: What ``ArgumentParser.add_subparsers`` gave.
    """
    parser = subparsers.add_parser(
        "bench",
        help="measure mixing beside the other libraries",
        description="Measure, on this machine and in one process, mixing a batch (blend), from uint8 images "
        "to the net (images), the loss, drawing (sampling), and a whole training step (price), beside every "
        "other library that is installed. 'all' shapes take about ten minutes on two cores, 'quick' two.",
    )
    add = parser.add_argument
    add("--only", metavar="PART,...", help="blend, images, loss, sampling, price, or some (default: all)")
    add("--shapes", metavar="quick|all", help="how many shapes (default: quick)")
    add("--repeats", type=int, metavar="N", help="rounds; quick calls get more (default: quick 5, all 7)")
    add("--threads", metavar="N,...", help="of torch, each measured (default: 1 and as many as there are)")
    add("--device", help="auto, cpu, cuda or cuda:N (default: auto)")
    add(
        "--from",
        dest="records",
        nargs="+",
        type=Path,
        metavar="RECORD",
        help="measure nothing: show these records, or write their --page",
    )
    add("--record", type=Path, metavar="FILE", help="write what was measured to this file (JSON)")
    add(
        "--page",
        type=Path,
        metavar="FILE",
        help="write a Markdown page, its pictures in 'pictures' beside it",
    )
    add("--json", action="store_true", help="print the record as JSON, and nothing else")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Measure or read records, then show them, write them, or both.

    Returns:
        0, the exit status.

    Raises:
        MixError: If a flag is out of its range, or there is no such device.
        DataError: If a record cannot be read, or a file cannot be written.
    """
    from batchmix.bench.records import read_record, write_record

    _check_targets(args)
    records = [_measure(args)] if args.records is None else [read_record(path) for path in args.records]
    if args.record is not None:
        write_record(args.record, records[0])
        _note(f"record: {args.record}")
    if args.page is not None:
        for path in _write_page(args.page, records, _picture_names(args)):
            _note(f"page: {path}")
    if args.json:
        sys.stdout.write(json.dumps(records[0] if len(records) == 1 else records) + "\n")
    elif args.page is None:
        _show(records)
    return 0


def _check_targets(args: argparse.Namespace) -> None:
    """What can be said before minutes are spent."""
    from batchmix.bench.targets import check_target
    from batchmix.pictures.canvas import new_figure

    if args.records is not None:
        for name in OF_A_MEASUREMENT:
            got = getattr(args, name)
            if got is not None:
                shown = str(got) if isinstance(got, Path) else got
                raise MixError.of(f"--{name}", shown, "what is measured now, and nothing with --from")
    if args.record is not None:
        check_target("--record", args.record)
    if args.page is not None:
        check_target("--page", args.page)
        folder = args.page.parent / PICTURES
        if folder.is_dir():
            for name in _picture_names(args):
                check_target("--page", folder / name)
        elif folder.exists():
            raise MixError.of("--page", str(args.page), f"a file beside which {PICTURES!r} is a folder")
        new_figure(1, 1)  # refuses where there is no matplotlib


def _picture_names(args: argparse.Namespace) -> list[str]:
    """The picture of each record, by the name of its file; those after the first of a name get a number."""
    names: list[str] = []
    for path in args.records or [args.record or args.page]:
        numbered = (f"bench-{path.stem}-{number}.png" for number in itertools.count(2))
        candidates = itertools.chain([f"bench-{path.stem}.png"], numbered)
        names.append(next(name for name in candidates if name not in names))
    return names


def _options(args: argparse.Namespace) -> BenchOptions:
    import torch

    from batchmix.bench.cases import PARTS, BenchOptions
    from batchmix.recipe.training import pick_device

    device = pick_device("auto" if args.device is None else args.device)
    threads: tuple[int, ...] = (torch.get_num_threads(),)
    if args.threads is not None:
        threads = _whole_numbers(args.threads)
    elif device.type == "cpu":
        threads = tuple(sorted({1, *threads}))
    only = PARTS if args.only is None else tuple(part.strip() for part in args.only.split(","))
    shapes = "quick" if args.shapes is None else args.shapes
    repeats = REPEATS.get(shapes, 3) if args.repeats is None else args.repeats
    return BenchOptions(only, shapes, repeats, threads, device)


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise MixError.of("--threads", text, "whole numbers with commas, such as 1,2") from None


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, with a word on each case, and on what will make the timings worth little."""
    from batchmix.bench.run import all_cases, measure_all
    from batchmix.recipe.machine import BUSY

    options = _options(args)
    with _progress(len(all_cases(options)), shown=not args.json) as started:
        record = measure_all(options, command="batchmix " + shlex.join(sys.argv[1:]), started=started)
    if record["busy_before"] > BUSY:
        _note(f"{record['busy_before']:.0%} of this machine was busy with something else: timings say little")
    for name, reason in record["missing"].items():
        _note(f"missing: {name} ({reason})")
    return record


@contextmanager
def _progress(total: int, *, shown: bool) -> Iterator[Callable[[Case], None]]:
    """A bar on a terminal, else a line for each case, on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from batchmix.data.report import plain_console

    console = plain_console(stderr=True)
    if not (shown and console.is_terminal):
        yield lambda case: _note(str(case)) if shown else None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    # Drawn between cases alone: a thread that draws would be in the timings.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task, seen = bar.add_task("importing the libraries", total=total), iter(range(total))
        yield lambda case: bar.update(task, completed=next(seen), description=str(case), refresh=True)


def _write_page(page_path: Path, records: list[dict[str, Any]], names: list[str]) -> Iterator[Path]:
    """The page and the picture of each record; everything is made before the first file is written."""
    from batchmix.bench.page import page
    from batchmix.bench.picture import draw_record
    from batchmix.files import make_folder, write_whole
    from batchmix.pictures.canvas import write_figure

    folder = page_path.parent / PICTURES
    figures = [draw_record(record) for record in records]
    links = [
        f"{PICTURES}/{quote(name)}" if figure else None for name, figure in zip(names, figures, strict=True)
    ]
    text = page(records, links)
    make_folder(folder)
    for name, figure in zip(names, figures, strict=True):
        if figure is not None:
            write_figure(folder / name, figure)
            yield folder / name
    write_whole(page_path, [text.encode()])
    yield page_path


def _show(records: list[dict[str, Any]]) -> None:
    """The tables of each record on standard output."""
    from rich.table import Table as Shown
    from rich.text import Text

    from batchmix.bench.page import machine_lines
    from batchmix.bench.table import goal_table, parts_of, tables_of
    from batchmix.bench.words import TITLES
    from batchmix.data.report import plain_console

    console = plain_console()
    if not console.is_terminal:
        console.width = UNLIMITED
    for record in records:
        console.print("\n".join(machine_lines(record)), soft_wrap=True)
        found = [(TITLES[part], table) for part in parts_of(record) for table in tables_of(record, part)]
        for title, table in [*found, ("Goals", goal_table(record))]:
            shown = Shown(box=None, pad_edge=False, title_justify="left")
            shown.title = Text(f"\n{title}: {table.title}" if table.title else f"\n{title}", "bold")
            for index, heading in enumerate(table.headings):
                shown.add_column(heading, justify="left" if index < table.words else "right", overflow="fold")
            for index, row in enumerate(table.rows):
                shown.add_row(*map(Text, row), style="bold" if index in table.ours else None)
            if table.rows:
                console.print(shown)
            for note in table.notes:
                console.print(note, soft_wrap=True)


def _note(line: str) -> None:
    sys.stderr.write(f"{line}\n")
