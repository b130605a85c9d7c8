"""A loader of images that are their own numbers, and what a collate function makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy.random  # noqa: F401 (else forked workers import it, and what a collection prints there breaks in)
import pytest
import torch
import torch.multiprocessing
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from batchmix import MixedTarget, Mixup
from batchmix.collate import MixCollate

needs_fork = pytest.mark.skipif(
    "fork" not in torch.multiprocessing.get_all_start_methods(), reason="starts its workers by fork"
)


class Numbers(Dataset[tuple[Tensor, int]]):
    """Sample i is the image full of i, of class i."""

    def __init__(self, count: int = 19) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((1, 2, 2), float(index)), index


def loader_of(
    collate: MixCollate, *, workers: int = 0, persistent: bool = False, **options: Any
) -> DataLoader:
    """Five batches: four of 4 samples and one of 3."""
    return DataLoader(
        Numbers(),
        options.pop("batch_size", 4),
        num_workers=workers,
        persistent_workers=persistent,
        collate_fn=collate,
        **options,
    )


def mixup(**options: Any) -> Mixup:
    return Mixup(1.0, partner="derangement", fold=False, seed=0, **options)


def seen(batch: tuple[Tensor, MixedTarget]) -> tuple[list, ...]:
    x, (a, b, lam) = batch
    torch.testing.assert_close(x[:, 0, 0, 0], lam * a + (1 - lam) * b)
    return x[:, 0, 0, 0].tolist(), a.tolist(), b.tolist(), lam.tolist()


def epochs(collate: MixCollate, count: int = 2, **options: Any) -> list[tuple[list, ...]]:
    loader = loader_of(collate, **options)
    return [seen(batch) for _ in range(count) for batch in collate.epoch(loader)]


def lams(rows: list[tuple[list, ...]]) -> list[list[float]]:
    return [row[3] for row in rows]


def mixes(row: tuple[list, ...]) -> bool:
    return row[3] != [1.0] * len(row[3])


class Holder:
    """What stands between a loop and a loader: a bar, a prefetcher."""

    def __init__(self, inner: Any, read: Callable[[Iterable[Any]], Iterator[Any]] = iter) -> None:
        self.inner, self.read = inner, read

    def __iter__(self) -> Iterator[Any]:
        return self.read(self.inner)
