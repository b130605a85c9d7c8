"""How much of the article's experiments is run: three scales, from seconds to a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchmix.study.plan import StudyPlan

NONE, MIXUP = "none", "mixup"
PER_BATCH = "mixup:per=batch"
ITSELF = "mixup:per=batch,fold=false"  # as published, but for the one loader
TWO_LOADERS = "two-loaders"
NOT_FOLDED = "mixup:fold=false"
ARMS = (NONE, MIXUP, PER_BATCH, ITSELF, TWO_LOADERS, NOT_FOLDED)

# The studies, by the names of their folders.
CLAIMS, LOADERS, MORE = "claims", "loaders", "more-seeds"
FEW, MANY = "few-images", "many-images"


@dataclass(frozen=True)
class Scale:
    """How much is run.

    Attributes:
        text: What it is for.
        seeds: Of the runs of each arm at each budget.
        few: Training images of the low-data studies.
        many: Training images of the other one.
        epochs: Of the runs with all arms, on few images.
        few_epochs: Budgets of mixup against none on few images, beside ``epochs``.
        many_epochs: The same on many images.
        few_config: Settings of the recipe on few images.
        many_config: The same on many images.
        loading: Arguments of ``measure_loading``; ``images`` is how many are written as JPEG files.
        one_hot: Arguments of ``measure_one_hot``.
        duplicates: Arguments of ``measure_duplicates``.
        loader_seeds: Others, for one loader and two alone, where those of all arms were too few to tell.
        more_seeds: The same for none, mixup, and mixup with one weight for the batch.
    """

    text: str
    seeds: Sequence[int]
    few: int
    many: int
    epochs: float
    few_epochs: tuple[float, ...]
    many_epochs: tuple[float, ...]
    few_config: Mapping[str, Any]
    many_config: Mapping[str, Any]
    loading: Mapping[str, Any] = field(default_factory=lambda: {"images": 1024})
    one_hot: Mapping[str, Any] = field(default_factory=dict)
    duplicates: Mapping[str, Any] = field(default_factory=dict)
    loader_seeds: Sequence[int] = ()
    more_seeds: Sequence[int] = ()

    def plans(self, data: str = "cifar10", size: int | None = None) -> dict[str, StudyPlan]:
        """The studies, by the names of their folders."""
        seeds = tuple(self.seeds)
        both = NONE, MIXUP
        few, many = dict(self.few_config), dict(self.many_config)
        plans = {
            CLAIMS: StudyPlan(ARMS, seeds, (self.epochs,), self.few, data, size, config=few),
            FEW: StudyPlan(both, seeds, self.few_epochs, self.few, data, size, config=few),
            MANY: StudyPlan(both, seeds, self.many_epochs, self.many, data, size, config=many),
        }
        more = {
            LOADERS: ((TWO_LOADERS, ITSELF), self.loader_seeds),
            MORE: ((*both, PER_BATCH), self.more_seeds),
        }
        for name, (arms, others) in more.items():
            if others:
                plans[name] = StudyPlan(arms, tuple(others), (self.epochs,), self.few, data, size, config=few)
        return plans


SMALL = Scale(
    "a tiny net for a few minutes: shows that everything works, and decides nothing",
    seeds=range(2),
    few=200,
    many=400,
    epochs=4,
    few_epochs=(2,),
    many_epochs=(1,),
    few_config={"batch_size": 50, "widths": (8, 8, 8), "sizes": (16,)},
    many_config={"batch_size": 50, "widths": (8, 8, 8), "sizes": (16,)},
    loading={"images": 24, "size": 32, "batch_size": 8, "repeats": 3},
    one_hot={"classes": (10, 1000), "batch_size": 16, "repeats": 3},
    duplicates={"batches": 20},
    loader_seeds=range(2, 4),
    more_seeds=range(4, 6),
)
CPU = Scale(
    "a small net on a CPU with units for bfloat16, which sees 75 million images in all",
    seeds=range(5, 15),  # their number follows from a first study, in results/first, of the seeds before them
    loader_seeds=range(15, 40),  # and that of these from the seeds before them
    more_seeds=range(40, 80),  # likewise
    few=5_000,
    many=50_000,
    epochs=40,
    few_epochs=(10, 80),
    many_epochs=(4, 24),  # 24 are those of the article with mixup
    few_config={"batch_size": 250, "widths": (32, 64, 128), "precision": "bfloat16"},
    many_config={"batch_size": 500, "widths": (32, 64, 128), "precision": "bfloat16"},
)
GPU = Scale(
    "the recipe's large net on a GPU, with seeds enough for a quarter of a point",
    seeds=range(50),
    few=5_000,
    many=50_000,
    epochs=80,
    few_epochs=(20, 40, 160),
    many_epochs=(8, 16, 32, 64),
    few_config={"batch_size": 250, "widths": (64, 256, 256)},
    many_config={"batch_size": 1000, "widths": (64, 256, 256)},
    loading={"images": 4096, "workers": 8, "batch_size": 128},
)

PRESETS: dict[str, dict[str, Scale]] = {"article": {"small": SMALL, "cpu": CPU, "gpu": GPU}}
"""What ``batchmix compare --preset`` takes, and its scales."""
