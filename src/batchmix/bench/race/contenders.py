"""Who takes part: our presets, airbench's package, scripts of a checkout of airbench; and the frontier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchmix.errors import MixError
from batchmix.recipe.config import TrainConfig, preset

OURS: dict[str, TrainConfig] = {
    "gpu94": preset("gpu94"),
    "gpu94-mixup": replace(
        preset("gpu94"),
        mix="mixup",
        alpha=0.2,
        per="batch",
        mix_until=0.5,
        label_smoothing=0.1,  # mixing does the rest of its work
        epochs=9.2,
    ),
    "gpu94-sgd": replace(preset("airbench94"), compile="auto"),
    "gpu95": preset("gpu95"),
    "gpu96": preset("gpu96"),
    "gpu96-plain": replace(preset("gpu96"), mix="none", label_smoothing=0.2),
    "fastai2018": preset("fastai2018"),
    "fastai2018-plain": replace(preset("fastai2018"), mix="none", epochs=30, weight_decay=0.4),
}
PACKAGE = {"airbench94": "train94", "airbench96": "train96"}  # functions of the package on PyPI
SCRIPTS = ("airbench94_muon", "airbench96_faster")  # files of a checkout
PUBLISHED_FLOP = {  # by airbench's author, who counts a run with its test
    "airbench94": 0.36e15,
    "airbench94_muon": 0.29e15,
    "airbench96_faster": 3.1e15,
}
NAMES = (*OURS, *PACKAGE, *SCRIPTS)
SMALL: dict[str, Any] = {"images": 1000, "batch_size": 100, "widths": (8, 16, 16)}

# From 93% to 97%, by guess until a GPU has said better: net, widths, epochs.
RUNGS: tuple[tuple[Any, tuple[int, ...], float], ...] = (
    ("airbench", (64, 256, 256), 5),
    ("airbench", (64, 256, 256), 8),
    ("airbench", (64, 256, 256), 16),
    ("airbench", (128, 384, 384), 14),
    ("residual", (128, 384, 512), 20),
    ("residual", (128, 384, 512), 42),
    ("residual", (128, 384, 512), 100),
    ("residual", (256, 512, 512), 150),
)
ARMS: dict[str, dict[str, Any]] = {
    "none": {"mix": "none", "label_smoothing": 0.2},
    "mixup": {"mix": "mixup", "alpha": 0.2, "mix_until": 0.75, "label_smoothing": 0.0},
    "cutmix": {"mix": "cutmix", "square": 14, "p_sample": 0.5, "mix_until": 0.85, "label_smoothing": 0.1},
}


@dataclass(frozen=True)
class Contender:
    """Something that trains against the clock.

    Attributes:
        name: What the table calls it.
        config: How ours trains; None for airbench.
        function: Of airbench's package.
        script: Of a checkout of airbench.
        flop: Of a run where its author has published it; ours is counted.
    """

    name: str
    config: TrainConfig | None = None
    function: str | None = None
    script: Path | None = None
    flop: float | None = None

    @property
    def is_given(self) -> bool:
        """Whether there is something to run: a script of airbench takes a checkout."""
        return (self.config, self.function, self.script) != (None, None, None)

    def orders(self) -> dict[str, Any]:
        """What its process is told, as JSON takes it."""
        config = None if self.config is None else self.config.as_dict()
        script = None if self.script is None else str(self.script.resolve())
        return {"config": config, "function": self.function, "script": script}


def contender(name: str, checkout: Path | None = None, *, small: bool = False) -> Contender:
    """A contender by its name.

    Raises:
        MixError: If there is none of that name.
    """
    if name in OURS:
        return Contender(name, config=shrunk(OURS[name]) if small else OURS[name])
    if name in PACKAGE:
        return Contender(name, function=PACKAGE[name], flop=PUBLISHED_FLOP.get(name))
    if name in SCRIPTS:
        script = None if checkout is None else checkout / f"{name}.py"
        return Contender(name, script=script, flop=PUBLISHED_FLOP[name])
    raise MixError.of("contenders", name, f"names from {', '.join(NAMES)}")


def frontier(*, small: bool = False) -> list[list[Contender]]:
    """Rungs of time against accuracy; those of a rung differ in the mixing, and race one another."""
    rungs: Sequence[Any] = RUNGS[:1] if small else RUNGS
    return [[_on_rung(rung, arm, small) for arm in ARMS] for rung in rungs]


def shrunk(config: TrainConfig) -> TrainConfig:
    """The same at a size that a CPU core trains in a second or two."""
    return replace(config, epochs=min(config.epochs, 1), **SMALL)


def _on_rung(rung: tuple[Any, tuple[int, ...], float], arm: str, small: bool) -> Contender:
    net, widths, epochs = rung
    deep = net == "residual"
    base = preset("gpu96" if deep else "gpu95")
    config = replace(base, net=net, widths=widths, epochs=epochs, **ARMS[arm])
    name = f"{net} {','.join(map(str, widths))}, {epochs:g} epochs, {arm}"
    return Contender(name, config=shrunk(config) if small else config)
