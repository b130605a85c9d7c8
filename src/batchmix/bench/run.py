"""The benchmark as a whole: every part asked for, one case after the other, in one process."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import torch

import batchmix as bm
from batchmix.bench import losses, mixing, price, sampling
from batchmix.bench.cases import SHAPES, BenchOptions, Case, classes_beside
from batchmix.bench.peers import Peer, load_peers
from batchmix.bench.records import FORMAT
from batchmix.bench.timing import reason
from batchmix.recipe.machine import busy_share, describe_machine

Measure = Callable[[Case, BenchOptions, Sequence[Peer]], list[dict[str, Any]]]


@dataclass(frozen=True)
class Part:
    """What is measured, and how."""

    cases: Callable[[BenchOptions], list[Case]]
    measure: Measure


PARTS: dict[str, Part] = {
    "blend": Part(mixing.blend_cases, mixing.measure_blend),
    "images": Part(mixing.image_cases, mixing.measure_images),
    "loss": Part(losses.loss_cases, losses.measure_loss),
    "sampling": Part(sampling.sampling_cases, sampling.measure_sampling),
    "price": Part(price.price_cases, price.measure_price),
}


def all_cases(options: BenchOptions) -> list[Case]:
    """Everything that was asked for, in its order."""
    return [case for part in PARTS if part in options.only for case in PARTS[part].cases(options)]


def measure_all(
    options: BenchOptions, *, command: str, started: Callable[[Case], None] = lambda case: None
) -> dict[str, Any]:
    """Measure, and describe the machine and the peers.

    Args:
        options: What was asked for.
        command: How it was asked for, for the record.
        started: Called before each case.

    Returns:
        A record, as ``records.write_record`` takes it.
    """
    busy, load = busy_share(), os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if options.device.index is not None:  # else it is the current one
        torch.cuda.set_device(options.device)
    peers, missing = load_peers(options.device)
    begin = time.monotonic()
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for case in all_cases(options):
        started(case)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the peers', about themselves
                rows += PARTS[case.part].measure(case, options, peers)
        except Exception as error:  # a framework that is missing, memory that ran out: the rest is measured
            failed.append({"case": str(case), "reason": reason(error)})
    return {
        "format": FORMAT,
        "batchmix": bm.__version__,
        "command": command,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - begin, 1),
        "machine": describe_machine(options.device),
        "busy_before": round(busy, 2),
        "load_before": round(load, 2),
        "options": {
            "only": list(options.only),
            "shapes": options.shapes,
            "repeats": options.repeats,
            "threads": list(options.threads),
            "device": options.device.type,
            "classes": {str(shape[-1]): classes_beside(shape[-1]) for shape in SHAPES[options.shapes]},
        },
        "peers": {peer.name: peer.version for peer in peers},
        "missing": missing,
        "failed": failed,
        "rows": rows,
    }
