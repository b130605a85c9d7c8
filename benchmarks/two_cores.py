"""How long the recipe takes on a CPU beside airbench94's schedule in the same loop, and where a step goes.

airbench94 is here the preset of that name: its net, batch size, epochs, optimizer and rates in our loop,
without its Lookahead. Its author reports a mean of 94.01% with n = 1,000 (Jordan 2024, arXiv:2404.00498).

    python benchmarks/two_cores.py --record benchmarks/records/two-cores.json --page docs/two-cores.md
    python benchmarks/two_cores.py --from benchmarks/records/two-cores.json --page docs/two-cores.md

Steps of all contenders take turns in one process. The page is made from the record and from the records of
whole runs in results/, and from nothing else.
"""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import batchmix as bm
from batchmix.data import load_cifar10
from batchmix.files import write_whole
from batchmix.recipe.config import preset, preset_of
from batchmix.recipe.flop import matmul_rate
from batchmix.recipe.machine import busy_share, describe_machine, keep_freed_memory
from batchmix.recipe.onednn import DIRECTIONS, convolutions, reorder_seconds, verbose_lines
from batchmix.recipe.results import interval, read_records
from batchmix.recipe.training import Training, bias_steps

AT_A_TIME = 3  # steps of one contender before the next has its turn
WARM_UP = 2
MATRIX = 4096
SEEDS = 5
GOALS = (
    ("cpu-bf16", 0.94, 0.6),
    ("fast-bf16", 0.94, 0.6),
    ("quick-bf16", 0.9, 0.25),
)  # preset, accuracy, share
IN_DETAIL = ("airbench94, torch's operations", "cpu-bf16")  # what the table of convolutions shows
ORDER = ("convolution", "its gradients", "pooling", "norm", "activation", "optimizer", "all else")
# What the profiler calls them; the fill is that of torch's pooling, which zeroes the gradient first.
GROUPS = {
    "convolution": ("aten::mkldnn_convolution",),
    "its gradients": ("aten::convolution_backward",),
    "pooling": ("aten::max_pool2d", "_MaxPool", "aten::fill_"),
    "norm": ("aten::native_batch_norm",),
    "activation": ("aten::gelu", "aten::silu", "aten::clamp_min", "aten::threshold_backward"),
    "optimizer": ("aten::mm", "Optimizer.step"),
}


@dataclass
class Contender:
    """A preset, trained with a kernel."""

    name: str
    preset: str
    kernel: Any = "auto"

    def stages(self) -> dict[int, range]:
        """The steps on images of each size, in the order in which the sizes come."""
        config = preset(self.preset)
        sizes = [config.size_at(step) for step in range(config.steps)]
        return {size: range(sizes.index(size), sizes.index(size) + sizes.count(size)) for size in sizes}

    def steps(self, size: int, images: Any, labels: Any) -> Iterator[Training]:
        """The training itself, one step further each time, from where ``size`` begins.

        Steps in which the whitening bias learns take longer: they are passed over where others follow.
        """
        with bm.kernel(self.kernel):
            training = Training(preset(self.preset), images, labels, torch.device("cpu"))
        stage, settled = self.stages()[size], bias_steps(training.config)
        training.step = settled if settled in stage else stage.start
        reports = training.run()
        while True:
            yield training
            with bm.kernel(self.kernel):
                next(reports)


CONTENDERS = (
    Contender("airbench94, torch's operations", "airbench94", "torch"),
    Contender("airbench94, our operations", "airbench94"),
    Contender("cpu-bf16", "cpu-bf16"),
    Contender("fast-bf16", "fast-bf16"),
    Contender("quick-bf16", "quick-bf16"),
)


def measure(rounds: int) -> dict[str, Any]:
    """Step times in turn, FLOP of a step, the parts of a step, and the rate of a plain matrix product."""
    keep_freed_memory()
    busy = busy_share()
    data = load_cifar10()
    images, labels = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    stages = [(contender, size) for contender in CONTENDERS for size in contender.stages()]
    running = [contender.steps(size, images, labels) for contender, size in stages]
    for steps in running:
        advance(steps, 1 + WARM_UP)  # the first makes the training
    seconds: list[list[float]] = [[] for _ in running]
    for _ in range(rounds):
        for taken, steps in zip(seconds, running, strict=True):
            for _ in range(AT_A_TIME):
                begin = time.perf_counter()
                next(steps)
                taken.append(round(time.perf_counter() - begin, 4))
    rows = [
        {
            "name": contender.name,
            "kernel": contender.kernel,
            "batch_size": preset(contender.preset).batch_size,
            "size": size,
            "steps": len(contender.stages()[size]),
            "seconds": taken,
            "flop": flop_of(steps),
            "parts": parts_of(steps),
            "convolutions": [found.as_dict() for found in convolutions(lines)],
            "reorders": round(reorder_seconds(lines), 6),
        }
        for (contender, size), steps, taken in zip(stages, running, seconds, strict=True)
        for lines in [verbose_lines(functools.partial(next, steps))]
    ]
    return {
        "machine": describe_machine(torch.device("cpu")),
        "busy_before": round(busy, 2),
        "matrix_rate": matmul_rate(torch.device("cpu"), MATRIX),
        "rows": rows,
        "command": "python benchmarks/two_cores.py " + shlex.join(sys.argv[1:]),
        "date": time.strftime("%Y-%m-%d"),
    }


def advance(steps: Iterator[Training], count: int) -> None:
    """Do some steps."""
    for _ in range(count):
        next(steps)


def flop_of(steps: Iterator[Training]) -> int:
    """Floating point operations of a step, as torch counts them: convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        next(steps)
    return int(counter.get_total_flops())


def parts_of(steps: Iterator[Training]) -> dict[str, float]:
    """Share of each group of operations in the time of a few steps."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        advance(steps, AT_A_TIME)
    spent = dict.fromkeys(ORDER, 0.0)
    for event in seen.key_averages():
        spent[group_of(event.key)] += event.self_cpu_time_total
    whole = sum(spent.values())
    return {name: round(time / whole, 4) for name, time in spent.items()}


def group_of(operation: str) -> str:
    """The group that an operation of the profiler belongs to."""
    return next((name for name, starts in GROUPS.items() if operation.startswith(starts)), ORDER[-1])


# The page


def page(record: dict[str, Any], results: list[dict[str, Any]]) -> str:
    """The page in Markdown."""
    machine = record["machine"]
    name = f"{machine['cores']} cores of {machine['cpu']} ({machine['isa']})"
    return "\n".join(
        [
            "# Two cores",
            "",
            f"Made by `{record['command']}` on {name}, torch {machine['torch']}, {record['date']}; other "
            f"work took {record['busy_before']:.0%} of the cores before it began. Steps of all contenders "
            "took turns in one process: medians, quartiles in brackets. No number here was typed.",
            "",
            "airbench94 is here the preset of that name: its net, batch size, epochs, optimizer and rates in "
            "the recipe's own loop, without its Lookahead. Its author reports a mean of 94.01% with "
            "n = 1,000 (Jordan 2024, arXiv:2404.00498); what it reaches here is among the whole runs.",
            "",
            *schedule_table(record),
            "",
            "## A step",
            "",
            *step_table(record),
            "",
            f"FLOP are those of convolutions and matrix products. A plain product of {MATRIX:,} x {MATRIX:,} "
            f"matrices of bfloat16 does {record['matrix_rate'] / 1e12:.2f} TFLOP/s here, and the last column "
            "is the share of that.",
            "",
            "## Whole runs",
            "",
            *run_table(record, results),
            "",
            "Settings were chosen by the accuracy on the test images, as those of the records were.",
            "",
            *goal_lines(record, results),
            "## Where a step goes",
            "",
            *part_table(record),
            "",
            "## Convolution by convolution",
            "",
            *convolution_table(record),
            "",
        ]
    )


def schedule_table(record: dict[str, Any]) -> list[str]:
    """How long each schedule takes at the pace of its steps, and what it computes."""
    lines = ["| | steps | the whole schedule | of the first | PFLOP |", "|---|---|---|---|---|"]
    totals = {name: total_of(record, name) for name in dict.fromkeys(row["name"] for row in record["rows"])}
    first = next(iter(totals.values()))[1]
    for name, (steps, seconds, flop) in totals.items():
        lines.append(f"| {name} | {steps} | {seconds:.0f} s | {seconds / first:.2f} | {flop / 1e15:.2f} |")
    return lines


def total_of(record: dict[str, Any], name: str) -> tuple[int, float, float]:
    """Steps, seconds and FLOP of a contender's schedule."""
    rows = [row for row in record["rows"] if row["name"] == name]
    return (
        sum(row["steps"] for row in rows),
        sum(row["steps"] * median(row["seconds"]) for row in rows),
        sum(row["steps"] * row["flop"] for row in rows),
    )


def step_table(record: dict[str, Any]) -> list[str]:
    """Times of steps, for each size of the images."""
    lines = [
        "| | images | steps | a step | TFLOP a step | TFLOP/s | share |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        step, flop = median(row["seconds"]), row["flop"]
        low, _, high = quantiles(row["seconds"], n=4)
        lines.append(
            f"| {row['name']} | {row['batch_size']:,} of {row['size']} px | {row['steps']} "
            f"| {1e3 * step:.0f} ms ({1e3 * low:.0f} to {1e3 * high:.0f}) "
            f"| {flop / 1e12:.2f} | {flop / step / 1e12:.2f} | {flop / step / record['matrix_rate']:.0%} |"
        )
    return lines


def run_table(record: dict[str, Any], results: list[dict[str, Any]]) -> list[str]:
    """Accuracy and time of the whole runs of presets as they are now, on such a machine."""
    head = "| preset | mixing | kernel | seeds | accuracy | with TTA | training |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for (name, mix, kernel), runs in sorted(whole_runs(record, results).items()):
        cells = [
            f"{mean(values):.{digits}f}" + (f" ± {interval(values):.{digits}f}" if len(values) > 1 else "")
            for key, scale, digits in (
                ("accuracy", 100, 2),
                ("accuracy_tta", 100, 2),
                ("train_seconds", 1, 0),
            )
            for values in [[scale * run[key] for run in runs]]
        ]
        lines.append(
            f"| {name} | {mix} | {kernel} | {len(runs)} | {cells[0]} % | {cells[1]} % | {cells[2]} s |"
        )
    return lines if len(lines) > 2 else ["No whole run on such a machine is on record."]


def whole_runs(
    record: dict[str, Any], results: list[dict[str, Any]]
) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Whole runs on such a machine, by the preset that has their settings, their mixing and their kernel."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in results:
        name = preset_of(run)
        if name is not None and all(run[what] == record["machine"][what] for what in ("cpu", "cores")):
            groups.setdefault((name, run["mix"], run.get("kernel", "auto")), []).append(run)
    return groups


def goal_lines(record: dict[str, Any], results: list[dict[str, Any]]) -> list[str]:
    """Whether presets reach their goals: an accuracy, in a share of the time of the first contender."""
    rows, runs = record["rows"], whole_runs(record, results)
    first, lines = rows[0]["name"], []
    for name, accuracy, share in GOALS:
        found = runs.get((name, preset(name).mix, "auto"), [])
        if not found or name not in {row["name"] for row in rows}:
            continue
        came = mean(run["accuracy_tta"] for run in found)
        took = total_of(record, name)[1] / total_of(record, first)[1]
        reached = came >= accuracy and took <= share and len(found) >= SEEDS
        lines += [
            f"The goal, {accuracy:.0%} in at most {share:g} of the time of {first} (mean of {SEEDS} seeds, "
            f"with TTA), {'is' if reached else 'is not'} reached by {name}: {came:.2%} in {took:.2f} of it, "
            f"{len(found)} seeds.",
            "",
        ]
    return lines


def part_table(record: dict[str, Any]) -> list[str]:
    """Milliseconds of each group of operations in a step, as the profiler shares it out."""
    rows = record["rows"]
    heads = [f"{row['name']}, {row['size']} px" for row in rows]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(rows)]
    for name in ORDER:
        cells = (f"{1e3 * median(row['seconds']) * row['parts'][name]:.0f} ms" for row in rows)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def convolution_table(record: dict[str, Any]) -> list[str]:
    """What oneDNN's verbose mode says of each kind of convolution, in one step on images of full size."""
    rows = [row for row in record["rows"] if row["name"] in IN_DETAIL and row["size"] == 32]
    if not rows:
        return ["No such step is on record."]
    heads = " | ".join(row["name"] for row in rows)
    lines = [f"| | calls | {heads} | computed by |", "|---|---|" + "---|" * (len(rows) + 1)]
    calls = [{shape_of(found): found for found in row["convolutions"]} for row in rows]
    for shape in sorted({shape for of_row in calls for shape in of_row}, key=in_order):
        founds = [of_row[shape] for of_row in calls if shape in of_row]
        cells = [rate_of(of_row.get(shape), row) for of_row, row in zip(calls, rows, strict=True)]
        codes = " or ".join(dict.fromkeys(found["implementation"] for found in founds))
        size, inputs, outputs, kernel, direction = shape
        name = f"{size} px, {inputs} to {outputs} channels, {kernel}x{kernel}: {direction}"
        lines.append(f"| {name} | {founds[0]['calls']} | {' | '.join(cells)} | {codes} |")
    copies = " | ".join(f"{1e3 * row['reorders']:.1f} ms" for row in rows)
    lines += [f"| copies between layouts and types | | {copies} | |", ""]
    return [
        *lines,
        "One step in oneDNN's verbose mode. FLOP are those of the layer: a gradient of filters on images "
        "side by side multiplies some zeros more.",
    ]


def shape_of(found: dict[str, Any]) -> tuple[Any, ...]:
    """What names a kind of convolution."""
    return tuple(found[name] for name in ("size", "inputs", "outputs", "kernel", "direction"))


def in_order(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """From the first layer to the last, and forward before backward."""
    size, inputs, outputs, _, direction = shape
    return -size, inputs, outputs, list(DIRECTIONS.values()).index(direction)


def rate_of(found: dict[str, Any] | None, row: dict[str, Any]) -> str:
    """Time and rate of a kind of convolution."""
    if found is None:
        return ""
    each = 2 * found["inputs"] * found["outputs"] * (found["kernel"] * found["result"]) ** 2
    rate = found["calls"] * row["batch_size"] * each / found["seconds"]
    return f"{1e3 * found['seconds']:.1f} ms, {rate / 1e12:.2f} TFLOP/s"


def main() -> None:
    """Measure, or read a record, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=8, help=f"turns of {AT_A_TIME} steps of each (default: 8)")
    add("--record", type=Path, metavar="FILE", help="where the record goes")
    add("--from", type=Path, metavar="FILE", dest="source", help="measure nothing, read this record")
    add("--results", type=Path, default=Path("results/cifar10.jsonl"), help="records of whole runs")
    add("--page", type=Path, metavar="FILE", help="where the page goes; the terminal if left out")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds takes a whole number >= 1, got {args.rounds}")
    if (args.source is None) == (args.record is None):
        parser.error("takes either --record FILE or --from FILE")
    record = json.loads(args.source.read_text()) if args.source else measure(args.rounds)
    if args.record:
        write_whole(args.record, [(json.dumps(record, indent=1) + "\n").encode()])
    text = page(record, read_records([args.results]))
    if args.page:
        write_whole(args.page, [text.encode()])
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
