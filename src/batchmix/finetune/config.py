"""Every choice of a training on a folder; flags of ``batchmix train --data folder:PATH`` are made from it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import batchmix as bm
from batchmix.core.sampling import check_alpha
from batchmix.errors import MixError
from batchmix.recipe.config import LARGEST_RATE, MOST_EPOCHS, option

MIXES = ("none", "mixup", "cutmix", "both")


@dataclass(frozen=True)
class FolderConfig:
    """How a model is trained on a folder of images.

    Args:
        see the help text of each field.

    Raises:
        MixError: If a value is out of range; the message names the field.
    """

    model: str = option("resnet18", "name of a timm model")
    pretrained: bool = option(False, "start from timm's weights, which are downloaded")
    size: int = option(224, "side of the images in pixels")
    mix: Literal["none", "mixup", "cutmix", "both"] = option(
        "both", "what is mixed; both is one or the other for each batch", choices=MIXES
    )
    alpha: float = option(0.4, "shape of mixup's Beta density, >= 0")
    cutmix_alpha: float = option(1.0, "shape of CutMix's Beta density, >= 0")
    epochs: float = option(10.0, "passes over the training images")
    batch_size: int = option(128, "images per step, of all processes together")
    lr: float = option(1e-3, "peak learning rate (AdamW)")
    warmup: float = option(0.05, "share of the training in which the rate rises, 0 to 1; then a cosine to 0")
    weight_decay: float = option(0.05, "weight decay of matrices and filters")
    label_smoothing: float = option(0.0, "label smoothing, 0 to 1; mixing does the same work")
    ema: float = option(0.999, "decay per step of the averaged weights, 0 to 1")
    crop: float = option(0.35, "smallest share of an image that a training crop shows, 0 to 1")
    flip: bool = option(True, "mirror half of the training images")
    amp: bool = option(True, "bfloat16 where the device multiplies it faster")
    seed: int = option(0, "of the initial weights, the order of the images and all other draws")

    def __post_init__(self) -> None:
        for name, takes, holds in (
            ("mix", f"one of {', '.join(MIXES)}", self.mix in MIXES),
            ("size", "a number of pixels in [16, 2048]", 16 <= self.size <= 2048),
            ("epochs", f"a number in (0, {MOST_EPOCHS}]", 0 < self.epochs <= MOST_EPOCHS),
            ("batch_size", "a whole number >= 2", self.batch_size >= 2),
            ("lr", f"a number in (0, {LARGEST_RATE:g}]", 0 < self.lr <= LARGEST_RATE),
            ("warmup", "a share in [0, 1]", 0 <= self.warmup <= 1),
            ("weight_decay", "a number >= 0", 0 <= self.weight_decay < math.inf),
            ("label_smoothing", "a number in [0, 1)", 0 <= self.label_smoothing < 1),
            ("ema", "a number in [0, 1)", 0 <= self.ema < 1),
            ("crop", "a share in (0, 1]", 0 < self.crop <= 1),
            ("seed", "a whole number below 2**32", 0 <= self.seed < 2**32),
        ):
            if not holds:
                raise MixError.of(name, getattr(self, name), takes)
        for name in ("alpha", "cutmix_alpha"):
            check_alpha(getattr(self, name), name)

    def mixer(self, normalize: bm.Normalize | None) -> bm.Mixer:
        """What mixes; ``normalize`` is applied on the way."""
        if self.mix == "none":
            return bm.Mixup(0.0, seed=self.seed, normalize=normalize)
        methods: dict[str, bm.Mixer] = {"mixup": bm.Mixup(self.alpha), "cutmix": bm.CutMix(self.cutmix_alpha)}
        chosen = [methods[name] for name in methods if self.mix in (name, "both")]
        return bm.Choice({method: 1 / len(chosen) for method in chosen}, seed=self.seed, normalize=normalize)

    def as_dict(self) -> dict[str, Any]:
        """All fields, as JSON takes them."""
        return dataclasses.asdict(self)
