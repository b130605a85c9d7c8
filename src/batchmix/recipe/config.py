"""Every choice of a training run, in one place: the flags of ``batchmix train`` are made from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import batchmix as bm
from batchmix.errors import MixError

MOST_EPOCHS = 1_000_000  # nobody trains as many, and their steps can still be counted
LARGEST_RATE = 1e30  # float32, in which weights are updated, ends at 3e38
WIDEST = 65_536  # channels; what of these there is memory for is seen where the net is made


def option(default: Any, text: str, *, choices: tuple[str, ...] | None = None) -> Any:
    """A field with its default, its help text for the command line, and what it can be."""
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class TrainConfig:
    """How one net is trained.

    Args:
        see the help text of each field; lengths are in epochs, rates per step or, where said, per image.

    Raises:
        MixError: If a value is out of range; the message names the field.
    """

    most_images: ClassVar[int] = 50_000
    largest_size: ClassVar[int] = 32

    mix: Literal["none", "mixup", "cutmix"] = option(
        "mixup", "what mixes, or none for the run it is measured against", choices=("none", "mixup", "cutmix")
    )
    alpha: float = option(0.4, "shape of the Beta density that the mixing weights are drawn from, >= 0")
    per: Literal["sample", "pair", "batch"] = option(
        "sample", "one weight per sample, pair or batch", choices=("sample", "pair", "batch")
    )
    fold: bool = option(True, "give the larger weight to the sample itself")
    mix_until: float = option(0.6, "share of the training after which mixing stops, 0 to 1")
    p_sample: float = option(1.0, "probability that an image of a mixed batch is mixed, 0 to 1")
    square: int = option(
        0, "side of the square that cutmix pastes, in pixels of a 32 pixel image; 0 for boxes by alpha"
    )
    epochs: float = option(6.0, "passes over the training images")
    batch_size: int = option(500, "images per step")
    net: Literal["airbench", "residual", "wide"] = option(
        "airbench",
        "two convolutions a block, three and a shortcut (residual), or the article's WRN-22 (wide)",
        choices=("airbench", "residual", "wide"),
    )
    widths: tuple[int, ...] = option((32, 128, 128), "channels of the three blocks")
    sizes: tuple[int, ...] = option(
        (32,), "image sizes in pixels, each for an equal share of the training, 32 the images as they are"
    )
    crops: tuple[int, ...] = option(
        (0,),
        "sides in pixels of the square cut from each image, each for an equal share of the training, "
        "0 for no cut",
    )
    activation: Literal["gelu", "silu"] = option(
        "gelu", "between the layers; silu is the cheaper one on a CPU", choices=("gelu", "silu")
    )
    label_smoothing: float = option(0.0, "label smoothing, 0 to 1; mixing does the same work")
    optimizer: Literal["muon", "sgd", "adamw"] = option(
        "muon",
        "muon for the filters and SGD for the rest, SGD or AdamW for all",
        choices=("muon", "sgd", "adamw"),
    )
    schedule: Literal["linear", "triangle", "one-cycle"] = option(
        "linear",
        "the learning rate: a fall to 0, a rise before it, or the rise and fall of a cosine",
        choices=("linear", "triangle", "one-cycle"),
    )
    filter_lr: float = option(0.24, "peak learning rate of the convolution filters; of everything with adamw")
    bias_lr: float = option(0.053, "peak learning rate of the biases (SGD), per image")
    head_lr: float = option(0.67, "peak learning rate of the last layer (SGD), per image")
    weight_decay: float = option(
        2e-6, "weight decay of biases and last layer, with sgd of filters too, per image; adamw's own"
    )
    shift: int = option(2, "largest shift of an image in pixels")
    tta: float = option(
        1.0, "share of the test images, those it is least sure of, that the net sees in six views, 0 to 1"
    )
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto",
        "of what the net computes; auto is bfloat16 where the device multiplies it faster",
        choices=("auto", "float32", "bfloat16"),
    )
    compile: Literal["off", "auto", "default", "reduce-overhead", "max-autotune", "graph"] = option(
        "off",
        "torch.compile's mode for the net; graph is a CUDA graph of whole steps, auto that on a GPU (with "
        "adamw, reduce-overhead) and off elsewhere",
        choices=("off", "auto", "default", "reduce-overhead", "max-autotune", "graph"),
    )
    images: int = option(50_000, "how many training images to use, the first ones")
    seed: int = option(0, "of the initial weights, the order of the images and all other draws")

    def __post_init__(self) -> None:
        bm.Mixup(self.alpha, per=self.per, fold=self.fold, seed=self.seed)  # checks its own arguments
        rate = f"a number in [0, {LARGEST_RATE:g}]"
        for name, takes, holds in (
            *((name, one_of(choices), getattr(self, name) in choices) for name, choices in CHOICES.items()),
            ("mix_until", "a share in [0, 1]", 0 <= self.mix_until <= 1),
            ("p_sample", "a probability in [0, 1]", 0 <= self.p_sample <= 1),
            ("square", "a number of pixels in [0, 32]", 0 <= self.square <= 32),
            ("epochs", f"a number in (0, {MOST_EPOCHS}]", 0 < self.epochs <= MOST_EPOCHS),
            ("batch_size", "a whole number >= 2", self.batch_size >= 2),
            (
                "widths",
                f"three numbers in [1, {WIDEST}]",
                len(self.widths) == 3 and all(1 <= width <= WIDEST for width in self.widths),
            ),
            (
                "sizes",
                f"numbers of pixels in [16, {self.largest_size}]",
                bool(self.sizes) and all(16 <= s <= self.largest_size for s in self.sizes),
            ),
            (
                "crops",
                f"numbers of pixels in [16, {self.largest_size}], or 0",
                bool(self.crops) and all(16 <= c <= self.largest_size or c == 0 for c in self.crops),
            ),
            ("label_smoothing", "a number in [0, 1)", 0 <= self.label_smoothing < 1),
            ("tta", "a share in [0, 1]", 0 <= self.tta <= 1),
            ("shift", "a number of pixels in [0, 8]", 0 <= self.shift <= 8),
            (
                "images",
                f"a number of images in [batch_size, {self.most_images}]",
                self.batch_size <= self.images <= self.most_images,
            ),
            ("seed", "a whole number below 2**32", self.seed < 2**32),
            *((name, rate, 0 <= getattr(self, name) <= LARGEST_RATE) for name in RATES),
            # Muon keeps filters at a fixed length, which is free to choose only where a norm follows them.
            ("optimizer", "'sgd' or 'adamw' for a wide net", (self.net, self.optimizer) != ("wide", "muon")),
            # The momentum of AdamW follows the cycle as a number of the host, which a graph does not see.
            ("compile", "another mode with adamw", (self.compile, self.optimizer) != ("graph", "adamw")),
        ):
            if not holds:
                raise MixError.of(name, getattr(self, name), takes)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass; what does not fill a batch waits for another epoch's order."""
        return self.images // self.batch_size

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run, at least 1."""
        return max(1, round(self.epochs * self.steps_per_epoch))

    def size_at(self, step: int) -> int:
        """Side in pixels of what the net sees at ``step``."""
        size = _in_turn(self.sizes, step, self.steps)
        return min(size, self.crop_at(step) or size)

    def crop_at(self, step: int) -> int:
        """Side in pixels of the square cut from each image at ``step``; 0 for no cut."""
        return _in_turn(self.crops, step, self.steps)

    def as_dict(self) -> dict[str, Any]:
        """All fields, as JSON takes them."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """The config that ``as_dict`` wrote; what an older version did not know is at its default."""
        fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**fields)


def _in_turn(values: tuple[int, ...], step: int, steps: int) -> int:
    """That of ``values`` which holds at ``step``, each for an equal share of the steps."""
    return values[min(len(values) - 1, step * len(values) // steps)]


def one_of(choices: tuple[str, ...]) -> str:
    """What takes one of these, in words."""
    return f"one of {', '.join(map(repr, choices))}"


CHOICES: dict[str, tuple[str, ...]] = {
    flag.name: flag.metadata["choices"]
    for flag in dataclasses.fields(TrainConfig)
    if flag.metadata["choices"] and flag.name != "per"  # which the mixing checks
}
RATES = ("filter_lr", "bias_lr", "head_lr", "weight_decay")


@dataclass(frozen=True)
class Preset:
    """A config with a name, and what it is for."""

    config: TrainConfig
    text: str


CPU_BF16 = TrainConfig(epochs=11, batch_size=1000, widths=(64, 256, 256), alpha=0.2, activation="silu")
# 11.5 for 1,024 images at momentum .85, per image and step.
AIRBENCH_LR = 11.5 / (1024 * (1 + 1 / (1 - 0.85)))

PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        TrainConfig(epochs=1, batch_size=100, widths=(8, 16, 16), sizes=(16,), images=2_000),
        "seconds: shows that everything works, learns next to nothing",
    ),
    "quick": Preset(
        TrainConfig(epochs=2, widths=(32, 64, 128)),
        "about two minutes on two CPU cores with AVX2",
    ),
    "quick-bf16": Preset(
        replace(CPU_BF16, epochs=3, crops=(24, 28, 32), per="batch", mix_until=0.5),
        "what quick stands for on two CPU cores with bf16 matrix units (AMX): about a minute",
    ),
    "cpu": Preset(
        TrainConfig(epochs=4, widths=(32, 64, 128)),
        "about five minutes on two CPU cores with AVX2",
    ),
    "cpu-avx512": Preset(
        TrainConfig(epochs=12, widths=(32, 64, 128)),
        "about five minutes on two CPU cores with bf16 in AVX-512, without AMX",
    ),
    "cpu-bf16": Preset(
        CPU_BF16,
        "about five minutes on two CPU cores with bf16 matrix units (AMX)",
    ),
    "fast-bf16": Preset(
        replace(CPU_BF16, epochs=8.7, batch_size=2000),
        "under four minutes on the same, at the price of some accuracy",
    ),
    "airbench94": Preset(
        TrainConfig(
            mix="none",
            epochs=9.9,
            batch_size=1024,
            widths=(64, 256, 256),
            label_smoothing=0.2,
            optimizer="sgd",
            schedule="triangle",
            filter_lr=AIRBENCH_LR,
            bias_lr=64 * AIRBENCH_LR,
            head_lr=AIRBENCH_LR * (256 / 9) ** 2,  # its head divides by 9 what ours divides by 256
        ),
        "net, schedule and rates of airbench94 without its Lookahead: what others are measured against",
    ),
    "gpu": Preset(
        TrainConfig(epochs=16, batch_size=1000, widths=(64, 256, 256), alpha=0.2, mix_until=0.75),
        "for one GPU, where it has not been timed; the README has its accuracy, from a CPU",
    ),
    "gpu94": Preset(
        TrainConfig(
            mix="none",
            epochs=8.8,
            batch_size=2000,
            widths=(64, 256, 256),
            activation="silu",
            label_smoothing=0.2,
            tta=0.25,
            compile="auto",
        ),
        "94% on one GPU as fast as it goes; docs/records.md has its times",
    ),
    "gpu95": Preset(
        TrainConfig(
            mix="none",
            epochs=14,
            batch_size=1000,
            widths=(128, 384, 384),
            label_smoothing=0.2,
            compile="auto",
        ),
        "95% on one GPU, compiled; not measured yet there, the README has its accuracy, from a CPU",
    ),
    "gpu96": Preset(
        TrainConfig(
            mix="cutmix",
            square=14,
            p_sample=0.5,
            mix_until=0.85,
            epochs=42,
            batch_size=1000,
            net="residual",
            widths=(128, 384, 512),
            shift=4,
            label_smoothing=0.1,
            compile="auto",
        ),
        "towards 96% on one GPU with CutMix; not measured yet there, the README has its accuracy, from a CPU",
    ),
    "fastai2018": Preset(
        TrainConfig(
            mix_until=1.0,
            epochs=24,
            batch_size=512,
            net="wide",
            widths=(96, 192, 384),
            optimizer="adamw",
            schedule="one-cycle",
            filter_lr=3e-3,
            weight_decay=0.2,
            shift=4,
            compile="auto",
        ),
        "the article's own recipe for one GPU: WRN-22-6, one cycle of AdamW; docs/records.md has its time",
    ),
}


# What holds where a record does not say: it is older than the field.
USUAL = TrainConfig().as_dict()


def preset_of(values: Mapping[str, Any]) -> str | None:
    """The preset that has these settings, whatever the seed and whether it mixes; None if none has."""
    for name, found in PRESETS.items():
        settings = found.config.as_dict()
        if all({**USUAL, **values}[field] == settings[field] for field in settings.keys() - {"mix", "seed"}):
            return name
    return None


def preset(name: str) -> TrainConfig:
    """The config of a preset.

    Raises:
        MixError: If there is none of that name.
    """
    if name not in PRESETS:
        raise MixError(f"preset takes one of {', '.join(('auto', *PRESETS))}, got {name!r}")
    return PRESETS[name].config
