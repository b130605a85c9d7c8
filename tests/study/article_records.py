"""The folder of an article's study that nobody ran: records with effects that are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from batchmix.study.article.duplicates import measure_duplicates
from batchmix.study.article.evidence import DUPLICATES, LOADING, ONE_HOT
from batchmix.study.article.presets import (
    ITSELF,
    MIXUP,
    NOT_FOLDED,
    PER_BATCH,
    SMALL,
    TWO_LOADERS,
    Scale,
)

AS_CLAIMED = {MIXUP: 0.03, PER_BATCH: 0.03, ITSELF: 0.02, TWO_LOADERS: 0.02, NOT_FOLDED: 0.01}
"""Effects that the article would have."""

MACHINE = {
    "device": "cpu", "cpu": "A CPU of 2 GHz", "cores": 2, "threads": 1, "isa": "AVX512",
    "system": "Linux", "python": "3.11.7", "torch": "2.9.0",
}  # fmt: skip
MADE = {
    "machine": MACHINE,
    "batchmix": "0.1.0",
    "command": "batchmix compare --preset article",
    "date": "2026-01-31",
}


def write_article(
    folder: Path, effects: dict[str, float], *, seeds: int = 6, scale: Scale = SMALL, sd: float = 0.001
):
    """Write every record; arms differ from none by ``effects`` in accuracy, give or take ``sd``."""
    for name, plan in scale.plans().items():
        generator = np.random.default_rng(len(name))
        write(
            folder / name / "study.json", {**plan.as_dict(), "seeds": list(range(seeds)), "command": "asked"}
        )
        for seed in range(seeds):
            common = generator.normal(0, 0.01)
            for epochs in plan.epochs:
                for arm in plan.arms:
                    accuracy = 0.8 + common + effects.get(arm, 0.0) + generator.normal(0, sd)
                    record = run_record(arm, seed, plan.images, epochs, accuracy)
                    write(folder / name / "runs" / f"{epochs:g}-{arm}-{seed}.json", record)
    write_measurements(folder)


def run_record(arm: str, seed: int, images: int, epochs: float, accuracy: float):
    """A finished run whose curve rises in a straight line, sooner where the accuracy is higher."""
    mixed = arm != "none"
    curve = [
        {"epoch": epochs * k / 10, "train_loss": 2 - k / 10, "accuracy": accuracy * k / 10, "loss": 2.0}
        for k in range(1, 11)
    ]
    wobble = np.random.default_rng([seed, len(arm)]).normal(0, 0.002, 2)
    return {
        "status": "done", "error": None, "arm": arm, "seed": seed, "task": "recipe", "data": "cifar10",
        "images": images, "epochs": epochs, "accuracy": accuracy, "loss": 0.6 + 0.1 * mixed + wobble[0],
        "confidence": 0.85 - 0.05 * mixed + wobble[1], "ece": 0.02, "brier": 0.3, "reliability": {},
        "curve": curve, "train_seconds": 7.0, **MADE,
    }  # fmt: skip


def write_measurements(folder: Path):
    """Two loaders at half the speed, one-hot at twice the time and memory, and real counts of duplicates."""
    steady = np.random.default_rng(0).normal(1, 0.01, (2, 5)).tolist()
    loading = {
        "images": 1000, "size": 224, "quality": 90, "bytes_per_file": 7000, "batch_size": 50, "batches": 20,
        "workers": 0, "seed": 0, "decoder": "Pillow 12.0, libjpeg-turbo 3.1",
        "seconds": {"one_loader": steady[0], "two_loaders": [2 * s for s in steady[1]]},
    }  # fmt: skip
    one_hot = {"batch_size": 8, "repeats": 5, "seed": 0, "rows": [one_hot_row(10), one_hot_row(1000)]}
    found = {LOADING: loading, ONE_HOT: one_hot, DUPLICATES: measure_duplicates(batches=30)}
    for name, result in found.items():
        write(folder / "measured" / f"{name}.json", {"settings": {}, "found": result, **MADE})


def one_hot_row(classes: int):
    noise = np.random.default_rng(classes).normal(1, 0.01, (3, 5))
    share = {"one_hot": 2.0, "two_calls": 1.0, "mixed_target": 1.0}
    forms = {
        name: {
            "loss_difference": 1e-7, "gradient_difference": 2e-7, "bytes": int(share[name] * 32 * classes),
            "seconds": (0.001 * share[name] * own).tolist(),
        }
        for name, own in zip(share, noise, strict=True)
    }  # fmt: skip
    return {"classes": classes, "logit_bytes": 32 * classes, "forms": forms}


def write(path: Path, values: object):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def edit(path: Path, **changes: object):
    """Change some of the keys of a record."""
    write(path, {**json.loads(path.read_text()), **changes})
