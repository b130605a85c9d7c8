"""How fast folders of JPEGs are decoded, against plain Pillow, and one training on 20,000 of them.

    PYTHONPATH=tests/shim python benchmarks/decoding.py benchmarks/records/decoding.json --page docs/scale.md

makes the folders from CIFAR-10 below --folder, measures each case in a process of its own, in turns, and
trains once with ``batchmix train``. The lines of the page from decoding:begin to decoding:end are made from
the record.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from PIL import Image

from batchmix.bench.targets import check_target, text_of
from batchmix.errors import DataError, MixError
from batchmix.files import put_between, write_whole

SIDES = {32: 20_000, 224: 2_000}  # pixels of the JPEGs, and how many are made
CASES = {  # name: side of the JPEGs, side that is asked for, workers; None for plain Pillow
    "Pillow, whole image": (None, 0),
    "ours, training crop": ("crop", 0),
    "ours, training crop, 2 workers": ("crop", 2),
    "ours, middle square": ("square", 0),
}
SIZES = ((32, 32), (224, 224), (224, 112), (224, 56))
EPOCHS = 2
BEGIN, END = "<!-- decoding:begin -->", "<!-- decoding:end -->"


def make_folder(folder: Path, side: int, count: int) -> Path:
    """Write CIFAR-10's first images as ``CLASS/NUMBER.jpg`` of ``side`` pixels, unless they are there."""
    from batchmix.data import CIFAR10_CLASSES, load_cifar10

    place = folder / f"cifar10-{side}"
    done = place / ".done"
    if done.exists():
        return place
    data = load_cifar10()
    for number in range(count):
        path = place / CIFAR10_CLASSES[data.train_y[number]] / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(data.train_x[number])
        image.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
    done.touch()
    return place


def measure(place: Path, kind: str | None, size: int, workers: int, count: int) -> dict[str, float]:
    """Decode ``count`` images once: images a second, and the peak memory of this process and its workers."""
    from batchmix.data.listing import list_images
    from batchmix.finetune.files import ImageFiles
    from batchmix.finetune.views import Views, stream

    listing = list_images(place)
    files = ImageFiles(place, listing.train[:count])
    before = _peak()
    started = time.perf_counter()
    if kind is None:
        for index in range(len(files)):
            with Image.open(files.path(index)) as image:
                image.convert("RGB")
    else:
        views = Views(files, size, crop=0.35 if kind == "crop" else None, flip=kind == "crop")
        batches = [[(i, 0) for i in range(at, min(at + 64, len(files)))] for at in range(0, len(files), 64)]
        for _ in stream(views, batches, workers=workers):
            pass
    seconds = time.perf_counter() - started
    peak = _peak()
    return {
        "images_per_second": len(files) / seconds,
        "peak_mib": peak / 1024,
        "grown_mib": (peak - before) / 1024,
    }


def in_its_own_process(*words: object) -> dict[str, float]:
    """``measure`` in a new interpreter, so that peaks are its own.

    Raises:
        DataError: If it fails; why is on standard error.
    """
    command = [sys.executable, __file__, "--measure", *map(str, words)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode:
        raise DataError(f"a process that measures ended with status {ran.returncode}: {shlex.join(command)}")
    return json.loads(ran.stdout.splitlines()[-1])


def _peak() -> int:
    """Peak memory of this process in KiB; not ``ru_maxrss``, which a process inherits from who started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def train(place: Path, epochs: int) -> dict[str, Any]:
    """Train end to end with the command, and watch the memory of all its processes (its share of pages)."""
    import psutil

    with tempfile.TemporaryDirectory() as out:
        words = ["train", "--data", f"folder:{place}", "--model", "test_resnet", "--size", "32", "--json"]
        words += [
            "--epochs",
            str(epochs),
            "--batch-size",
            "128",
            "--workers",
            "1",
            "--device",
            "cpu",
            "--out",
            out,
        ]
        child = subprocess.Popen(
            [sys.executable, "-m", "batchmix", *words], stdout=subprocess.PIPE, text=True
        )
        peak = 0.0

        def watch() -> None:
            nonlocal peak
            while child.poll() is None:
                try:
                    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
                    peak = max(peak, sum(member.memory_full_info().pss for member in family) / 2**20)
                except psutil.Error:
                    pass
                time.sleep(0.5)

        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.perf_counter()
        printed, _ = child.communicate()
        watcher.join()
    if child.returncode:
        raise DataError(f"the training ended with status {child.returncode}: batchmix {shlex.join(words)}")
    summary = json.loads(printed)
    kept = (
        "accuracy",
        "accuracy_ema",
        "loss",
        "images",
        "epochs",
        "batch_size",
        "model",
        "mix",
        "size",
        "workers",
    )
    kept += ("train_seconds", "images_per_second")
    seconds = round(time.perf_counter() - started, 1)
    return {name: summary[name] for name in kept} | {"seconds": seconds, "peak_pss_mib": round(peak, 1)}


def record(folder: Path, repeats: int, count: int, epochs: int) -> dict[str, Any]:
    """Measure everything; the cases take turns."""
    import torch

    from batchmix.recipe.machine import busy_share, describe_machine

    busy = busy_share()
    places = {side: make_folder(folder, side, number) for side, number in SIDES.items()}
    rows: dict[tuple[int, int, str], list[dict[str, float]]] = {}
    for _ in range(repeats):
        for side, size in SIZES:
            for name, (kind, workers) in CASES.items():
                if kind is None and size != side:
                    continue
                told = in_its_own_process(places[side], kind or "pillow", size, workers, count)
                rows.setdefault((side, size, name), []).append(told)
    made = [
        {"side": side, "size": size, "case": name, "n": repeats}
        | {key: round(statistics.median(row[key] for row in told), 1) for key in told[0]}
        | {"each": [round(row["images_per_second"], 1) for row in told]}
        for (side, size, name), told in rows.items()
    ]
    machine = describe_machine(torch.device("cpu")) | {
        "pillow": Image.__version__,
        "busy_before": round(busy, 2),
    }
    command = "python benchmarks/decoding.py " + shlex.join(sys.argv[1:])
    trained = train(places[32], epochs)
    head = {"date": time.strftime("%Y-%m-%d"), "command": command, "machine": machine}
    return head | {"images_per_case": count, "rows": made, "training": trained}


def table(told: dict[str, Any]) -> str:
    """The page's part, from a record."""
    lines = [
        "From [the record](../benchmarks/records/decoding.json) of `benchmarks/decoding.py`.",
        "",
        "| JPEGs, px | asked for, px | | images/s | peak memory, MiB | of it while decoding |",
        "|---|---|---|---|---|---|",
    ]
    for row in told["rows"]:
        size = "as it is" if row["case"].startswith("Pillow") else row["size"]
        lines.append(
            f"| {row['side']} | {size} | {row['case']} | {row['images_per_second']:,.0f} "
            f"| {row['peak_mib']:,.0f} | {row['grown_mib']:,.0f} |"
        )
    run, machine = told["training"], told["machine"]
    n = told["rows"][0]["n"]
    busy = (
        f" {machine['busy_before']:.0%} of the machine was busy before."
        if machine["busy_before"] > 0.25
        else ""
    )
    lines += [
        "",
        f"Medians of {n} turns over at most {told['images_per_case']:,} images each, every case in a "
        f"process of its own; memory is the main process's. {machine['cores']} cores of {machine['cpu']}, "
        f"Pillow {machine['pillow']}.{busy}",
        "",
        f"End to end: {run['model']} on {run['images']:,} JPEGs of 32 px, {run['epochs']:g} epochs, "
        f"mix {run['mix']}: {run['accuracy']:.1%} of the test images, "
        f"{run['images_per_second']:,.0f} images/s in training, "
        f"{run['peak_pss_mib']:,.0f} MiB at most in all its processes together.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, write the record, and put its table into the page; the exit status."""
    if sys.argv[1:2] == ["--measure"]:
        place, kind, size, workers, count = sys.argv[2:]
        told = measure(Path(place), None if kind == "pillow" else kind, int(size), int(workers), int(count))
        sys.stdout.write(json.dumps(told) + "\n")
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "batchmix-jpegs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--count", type=int, default=1500, help="images a turn")
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    args = parser.parse_args()
    try:
        check(args)
        told = record(args.folder, args.repeats, args.count, args.epochs)
        write_whole(args.record, [(json.dumps(told, indent=1) + "\n").encode()])
        if args.page is not None:
            write_whole(args.page, [put_between(text_of(args.page), BEGIN, END, table(told)).encode()])
    except (DataError, MixError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def check(args: argparse.Namespace) -> None:
    """What can be said before minutes are spent."""
    for name in ("repeats", "count"):
        if getattr(args, name) < 1:
            raise MixError.of(f"--{name}", getattr(args, name), "a whole number >= 1")
    check_target("RECORD", args.record)
    if args.page is not None:
        check_target("--page", args.page)
        put_between(text_of(args.page), BEGIN, END, "")


if __name__ == "__main__":
    sys.exit(main())
