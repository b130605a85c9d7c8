"""Records with numbers made up, for what reads records."""

from __future__ import annotations

from typing import Any

from batchmix.bench.records import FORMAT

ROUNDS = 5
MACHINE = {"device": "cpu", "cpu": "Test 9000", "cores": 2, "threads": 2, "isa": "AVX2"}
MACHINE |= {"system": "Linux", "python": "3.11.0", "torch": "2.13.0"}


def row(part: str, who: str, form: str, milliseconds: float | None, **more: Any) -> dict[str, Any]:
    """A row whose rounds all took the same, or that failed."""
    values = {"part": part, "what": "mixup", "shape": [128, 3, 224, 224], "dtype": "float32", "threads": 2}
    values |= {"who": who, "form": form, "fresh": form in ("fresh", "clone"), "kernel": None}
    if milliseconds is None:
        return values | {"failed": "ValueError: no"} | more
    return values | {"seconds": [milliseconds / 1e3] * ROUNDS} | more


def blend_rows(
    into: float = 11.0, place: float = 10.0, fresh: float = 30.0, **more: Any
) -> list[dict[str, Any]]:
    """A copy of 10 ms and a clone of 30 ms, ours, and two peers of which one fails."""
    return [
        row("blend", "torch", "copy", 10, **more),
        row("blend", "torch", "clone", 30, **more),
        row("blend", "batchmix", "draw alone", 1, **more),
        row("blend", "batchmix", "fresh", fresh, **more),
        row("blend", "batchmix", "into a buffer", into, **more),
        row("blend", "batchmix", "in place", place, **more),
        row("blend", "batchmix", "in place", 20, **({"kernel": "torch"} | more)),
        row("blend", "timm", "batch", 60, **more),
        row("blend", "kornia", "V2", None, **more),
    ]


def other_rows() -> list[dict[str, Any]]:
    """One case of each of the other parts."""
    images = {"dtype": "bfloat16"}
    loss = {"what": "cross entropy", "shape": [128, 1000]}
    draw = {"what": "draw", "shape": [128, 3, 32, 32]}
    price = {"what": "plain loop", "shape": [128, 3, 32, 32]}
    return [
        row("images", "torch", "copy", 5, **images),
        row("images", "batchmix", "fresh", 10, **images),
        row("images", "timm", "batch", 60, fresh=True, **images),
        row("images", "torchvision", "v2", 100, fresh=True, **images),
        row("loss", "torch", "plain", 1, **loss),
        row("loss", "batchmix", "mixed target", 1.1, **loss),
        row("loss", "dense", "as timm", 3, **loss),
        row("sampling", "torch", "training step", 100, **draw),
        row("sampling", "batchmix", "mixup, per sample", 0.5, **draw),
        row("price", "none", "plain loop", 100, **price),
        row("price", "mixup", "plain loop", 100.5, **price),
    ]


def record(rows: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """A whole record."""
    values: dict[str, Any] = {
        "format": FORMAT,
        "batchmix": "0.1.0",
        "command": "batchmix bench",
        "date": "2026-01-02T03:04:05+00:00",
        "seconds": 1.0,
        "machine": MACHINE,
        "busy_before": 0.01,
        "load_before": 0.1,
        "options": {"only": ["blend"], "shapes": "quick", "repeats": 5, "threads": [2], "device": "cpu"},
        "peers": {"timm": "1.0.0", "Composer": "its published formula"},
        "missing": {"kornia": "ModuleNotFoundError: No module named 'kornia'"},
        "failed": [],
        "rows": [*blend_rows(), *other_rows()] if rows is None else rows,
    }
    return values | more
