"""TransMix weighs labels after the model, by its plan: whoever hands out no plan refuses it."""

from __future__ import annotations

import importlib
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plain_loop import CLASSES, make_model, make_samples

import batchmix as bm
import batchmix.adapters

X, Y = make_samples(8, seed=3)


def in_a_trainer(adapter: Any, mixer: bm.Mixer) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = importlib.import_module("transformers").TrainingArguments(folder, report_to="none")
        adapter.mixup(adapter.Trainer(make_model(), arguments), mixer)


CALLS: dict[str, Callable[[Any, bm.Mixer], Any]] = {
    "fastai": lambda adapter, mixer: adapter.MixUpCallback(mixer),
    "ignite": lambda adapter, mixer: adapter.mixup_batch(mixer),
    "keras": lambda adapter, mixer: adapter.MixUpDataset(X, Y, mixer=mixer, num_classes=CLASSES),
    "lightning": lambda adapter, mixer: adapter.MixUpCallback(mixer),
    "pytorch_lightning": lambda adapter, mixer: adapter.MixUpCallback(mixer),
    "skorch": lambda adapter, mixer: adapter.MixUpClassifier(make_model(), mixer=mixer).initialize(),
    "timm": lambda adapter, mixer: adapter.Mixup(mixer=mixer),
    "torchvision": lambda adapter, mixer: adapter.MixUp(mixer=mixer),
    "transformers": in_a_trainer,
}
CHOICE = bm.Choice({bm.Mixup(0.4): 0.5, bm.Choice({bm.TransMix(): 1.0}): 0.5})
MESSAGE = r"^mixer takes a method that is done before the model, such as bm.CutMix\(1.0\), got TransMix, .*$"


@pytest.mark.parametrize("name", CALLS)
def test_an_adapter_refuses_it_alone_and_in_a_choice(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some frameworks warn as they are imported
        adapter = importlib.import_module(f"batchmix.adapters.{name}")
        CALLS[name](adapter, bm.Choice({bm.CutMix(1.0): 0.5}))
        for mixer in (bm.TransMix(), CHOICE):
            with pytest.raises(bm.MixError, match=MESSAGE):
                CALLS[name](adapter, mixer)


def test_every_adapter_that_mixes_is_asked() -> None:
    folder = Path(batchmix.adapters.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} == {*CALLS, "__init__", "torchmetrics"}


def test_a_class_of_it_in_a_net_of_skorch_is_refused_too() -> None:
    adapter = importlib.import_module("batchmix.adapters.skorch")
    with pytest.raises(bm.MixError, match=MESSAGE):
        adapter.MixUpClassifier(make_model(), mixer=bm.TransMix, mixer__seed=1).initialize()


@pytest.mark.parametrize("mixer", [bm.TransMix(), CHOICE], ids=["alone", "in a choice"])
def test_a_collate_function_refuses_it(mixer: bm.Mixer) -> None:
    with pytest.raises(bm.MixError, match=MESSAGE):
        bm.MixCollate(mixer)
