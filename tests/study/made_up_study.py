"""Studies that nobody ran: records from a seeded generator, with an effect that is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from batchmix.study.records import Study

MACHINE = {
    "device": "cpu", "cpu": "A CPU of 2 GHz", "cores": 2, "threads": 1, "isa": "AVX512",
    "system": "Linux", "python": "3.11.7", "torch": "2.9.0",
}  # fmt: skip
COMMAND = "batchmix compare none mixup --seeds 5 --epochs 40"
BINS = 15


def make_study(
    arms=("none", "mixup", "cutmix"),
    seeds=range(5),
    epochs=(40,),
    images=5000,
    effect=None,
    failed=(),
    seed=0,
):
    """A study whose arms differ from the first by ``effect[arm]`` in accuracy, on average.

    ``failed`` holds (arm, seed) whose runs failed at every budget.
    """
    generator = np.random.default_rng(seed)
    effect = effect or {}
    asked = {
        "arms": list(arms), "seeds": list(seeds), "epochs": list(epochs), "images": images,
        "data": "cifar10", "task": "recipe", "command": COMMAND,
        "config": {"batch_size": 250, "widths": [32, 64, 128], "label_smoothing": 0.2, "sizes": [32]},
    }  # fmt: skip
    records = []
    for number in seeds:
        common = generator.normal(0, 0.006)  # what a seed brings to all its arms
        for length in epochs:
            for arm in arms:
                shift = common + effect.get(arm, 0.0) + generator.normal(0, 0.002)
                made = make_record(arm, number, length, images, shift, generator)
                records.append(fail(made) if (arm, number) in failed else made)
    return Study(asked, records)


def make_record(arm, seed, epochs, images, shift, generator):
    accuracy = round(0.9 - 0.3 / np.sqrt(epochs) + shift, 4)
    confidence = accuracy + (-0.05 if arm != "none" else 0.04) + generator.normal(0, 0.004)
    loss = 3 * (1 - accuracy) + (0.1 if arm != "none" else 0.0)
    return {
        "status": "done", "error": None, "arm": arm, "seed": seed, "task": "recipe", "data": "cifar10",
        "images": images, "epochs": epochs, "accuracy": accuracy, "loss": loss, "confidence": confidence,
        "ece": abs(confidence - accuracy), "brier": 1.5 * (1 - accuracy),
        "temperature": 1.1 + generator.normal(0, 0.01),
        "ece_scaled": 0.01 + generator.uniform(0, 0.004), "loss_scaled": 0.95 * loss,
        "reliability": _reliability(accuracy, confidence, generator),
        "curve": _curve(epochs, accuracy, loss, generator),
        "train_seconds": 1.7 * epochs + generator.uniform(0, 2), "images_per_second": 2900.0 + 10 * seed,
        "peak_memory_mb": 900, "config": {}, "machine": MACHINE, "batchmix": "0.1.0", "command": COMMAND,
        "date": "2026-11-24T10:00:00",
    }  # fmt: skip


def fail(record, error="RuntimeError: out of memory"):
    keys = ("arm", "seed", "task", "data", "images", "epochs", "machine", "command", "date")
    return {"status": "failed", "error": error, **{key: record[key] for key in keys}}


def write_study(study, folder: Path):
    """The study as files, as the engine leaves them."""
    (folder / "runs").mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps(study.asked))
    for i, record in enumerate(study.records):
        (folder / "runs" / f"{i}.json").write_text(json.dumps(record))


def _reliability(accuracy, confidence, generator):
    """Bins whose gap is that of the whole, empty below 0.2."""
    centres = (np.arange(BINS) + 0.5) / BINS
    count = np.where(centres < 0.2, 0, (10_000 * centres**3 / 4).astype(int))
    right = np.clip(centres + accuracy - confidence + generator.normal(0, 0.01, BINS), 0, 1)
    filled = [None if not n else i for i, n in enumerate(count)]
    return {
        "count": count.tolist(),
        "confidence": [None if i is None else float(centres[i]) for i in filled],
        "accuracy": [None if i is None else float(right[i]) for i in filled],
    }


def _curve(epochs, accuracy, loss, generator):
    points = []
    for share in np.linspace(0.1, 1, 10):
        last = share == 1
        noise = 0 if last else generator.normal(0, 0.01)
        points.append({
            "epoch": float(epochs * share), "train_loss": loss + 1 - share,
            "accuracy": accuracy * (1 - 0.5 * np.exp(-4 * share) * (not last)) + noise,
            "loss": loss * (1 + 1.5 * np.exp(-4 * share) * (not last)) + noise,
        })  # fmt: skip
    return points
