"""Where Lightning's callback finds samples and targets in a batch, and several callbacks with a part each."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from lightning_loop import LIGHTNINGS_OWN_WARNINGS, loader, make_trainer
from lightning_watcher import Anything, assert_mixed, expected, fit, mixer
from messages import one_line
from plain_loop import make_samples, train_batches
from torch import Tensor
from torch.utils.data import DataLoader

import batchmix as bm
from batchmix.adapters.lightning import MixUpCallback

pytestmark = [pytest.mark.filterwarnings(f"ignore:{message}") for message in LIGHTNINGS_OWN_WARNINGS]


# Forms of a batch


Sample = namedtuple("Sample", "index image label")


@pytest.mark.parametrize(
    ("form", "keys", "image", "label"),
    [
        (lambda x, y: {"image": x, "label": y, "id": ["a"]}, {"x": "image", "y": "label"}, "image", "label"),
        (lambda x, y: [torch.arange(len(x)), y, x], {"x": 2, "y": 1}, 2, 1),
        (lambda x, y: (y, "name", x), {"x": -1, "y": 0}, -1, 0),
        (lambda x, y: Sample(torch.arange(len(x)), x, y), {"x": 1, "y": 2}, 1, 2),
    ],
    ids=["dict", "list", "tuple", "namedtuple"],
)
def test_samples_and_targets_are_found_where_x_and_y_say(
    form: Any, keys: Any, image: Any, label: Any
) -> None:
    batches = [form(x, y) for x, y in train_batches()]
    module = Anything()
    fit(module, batches, MixUpCallback(mixer(), **keys))
    seen = module.seen["train"]
    assert_mixed([(batch[image], batch[label]) for batch in seen], expected(train_batches()))
    assert type(seen[0]) is type(batches[0])
    assert all(isinstance(batch[label], Tensor) for batch in batches)


def test_several_inputs_and_targets_have_one_draw() -> None:
    x, y = make_samples(8, seed=3)
    batch = {"left": x, "right": x.flip(-1), "digit": y, "mask": torch.ones(8, 8, 8, dtype=torch.int64)}
    keys = {"x": ("left", "right"), "y": ["digit", "mask"], "kinds": {"y.mask": "segmentation"}}
    module = Anything()
    fit(module, [batch], MixUpCallback(bm.CutMix(1.0, seed=5), **keys))
    seen = module.seen["train"][0]
    plan = bm.CutMix(1.0, seed=5).plan(x, y)
    assert torch.equal(seen["left"], bm.blend(x, plan))
    assert torch.equal(seen["right"], bm.blend(x.flip(-1), plan))
    assert torch.equal(seen["digit"].lam, plan.lam)
    assert torch.equal(seen["mask"], batch["mask"])


def test_nested_inputs_are_mixed_without_being_told() -> None:
    x, y = make_samples(8, seed=3)
    module = Anything()
    fit(module, [({"image": x, "age": torch.rand(8, 1)}, y)], MixUpCallback(mixer()))
    assert torch.equal(module.seen["train"][0][0]["image"], bm.blend(x, mixer().plan(x)))


def test_one_of_several_dataloaders_is_mixed_by_name() -> None:
    module = Anything()
    loaders = {"labelled": loader(train_batches()), "rest": loader(train_batches())}
    fit(module, loaders, MixUpCallback(mixer(), x="labelled.0", y="labelled.1"))
    seen = module.seen["train"]
    assert_mixed([batch["labelled"] for batch in seen], expected(train_batches()))
    assert all(isinstance(batch["rest"][1], Tensor) for batch in seen)


X, Y = make_samples(8, seed=3)


@dataclasses.dataclass
class Pair:
    """A batch of a type that has neither keys nor positions."""

    x: Tensor
    y: Tensor


@pytest.mark.parametrize(
    ("batch", "keys", "wanted"),
    [
        (
            {"image": X, "label": Y},
            {},
            "x and y take the keys of samples and targets in a batch that is not a pair of them, as in "
            "MixUpCallback(x='image', y='label'), got a dict of 'image', 'label'",
        ),
        (
            (X, Y, "name"),
            {},
            "x and y take the keys of samples and targets in a batch that is not a pair of them, as in "
            "MixUpCallback(x=0, y=1), got a tuple of float32 tensor (8, 3, 8, 8), int64 tensor (8,), str",
        ),
        (
            X,
            {},
            "x and y take the keys of samples and targets in a batch that is not a pair of them, as in "
            "MixUpCallback(x='image', y='label'), got float32 tensor (8, 3, 8, 8)",
        ),
        (
            {"image": X, "label": Y},
            {"x": "img", "y": "label"},
            "x takes keys of the batch, a dict of 'image', 'label', got 'img'",
        ),
        (
            (X, Y),
            {"x": 0, "y": 2},
            "y takes keys of the batch, a tuple of float32 tensor (8, 3, 8, 8), int64 tensor (8,), got 2",
        ),
        (
            (X, Y),
            {"x": "image", "y": "label"},
            "x takes keys of the batch, a tuple of float32 tensor (8, 3, 8, 8), int64 tensor (8,), "
            "got 'image'",
        ),
        (
            Pair(X, Y),
            {"x": "x", "y": "y"},
            "x takes keys of the batch, a Pair, which is no dict, tuple or list, got 'x'",
        ),
        (
            Pair(X, Y),
            {},
            "x and y take the keys of samples and targets in a batch that is not a pair of them, as in "
            "MixUpCallback(x='image', y='label'), got a Pair, which is no dict, tuple or list",
        ),
        (X, {"x": 0, "y": 1}, "x takes keys of the batch, float32 tensor (8, 3, 8, 8), got 0"),
        (
            ((X * 255).to(torch.uint8), Y),
            {},
            "x takes floating point samples, such as x.float() / 255, got uint8 tensor (8, 3, 8, 8)",
        ),
    ],
)
def test_a_batch_that_cannot_be_mixed_is_named_on_one_line(batch: Any, keys: Any, wanted: str) -> None:
    made = MixUpCallback(mixer(), **keys)
    with pytest.raises(bm.MixError) as raised:
        fit(Anything(), [batch], made)
    assert one_line(raised) == wanted
    assert made.mixer.step == 0


@pytest.mark.parametrize("form", [dict, list])
def test_several_dataloaders_are_not_taken_for_a_pair(form: type) -> None:
    loaders: Any = {"a": loader(train_batches()), "b": loader(train_batches())}
    example = "x='a.0', y='a.1'"
    if form is list:
        loaders, example = CombinedLoader(list(loaders.values())), "x='0.0', y='0.1'"
    with pytest.raises(bm.MixError) as raised:
        fit(Anything(), loaders, MixUpCallback(mixer()))
    assert f"MixUpCallback({example}), got a {form.__name__} of" in one_line(raised)


@pytest.mark.parametrize("form", [dict, list])
def test_a_loader_that_has_ended_before_the_others_leaves_nothing_to_mix(form: type) -> None:
    """Half a batch of labels and a whole one without: semi-supervised training."""
    short, long = train_batches()[:1], train_batches()
    loaders = {"labelled": loader(short), "other": loader(long)}
    places = {"x": "labelled.0", "y": "labelled.1"} if form is dict else {"x": "0.0", "y": "0.1"}
    made = loaders if form is dict else list(loaders.values())
    module, callback = Anything(), MixUpCallback(mixer(), **places)
    fit(module, CombinedLoader(made, "max_size"), callback)
    batches = [list(batch.values()) if form is dict else batch for batch in module.seen["train"]]
    labelled, others = zip(*batches, strict=True)
    assert_mixed(list(labelled[:1]), expected(short))
    assert labelled[1:] == (None,) * (len(long) - 1)
    assert [type(y) for _, y in others] == [Tensor] * len(long)
    assert callback.mixer.step == 1


# Several callbacks


FACES, SCENES = {"x": "faces.0", "y": "faces.1"}, {"x": "scenes.0", "y": "scenes.1"}


def both_loaders() -> dict[str, DataLoader]:
    return {"faces": loader(train_batches()), "scenes": loader(train_batches())}


class AnotherCallback(MixUpCallback):
    """One that Lightning takes for another callback."""


def test_each_loader_can_have_a_callback_of_its_own(tmp_path: Path) -> None:
    scenes = bm.CutMix(1.0, seed=6)
    module, made = Anything(), [MixUpCallback(mixer(), **FACES), MixUpCallback(scenes, **SCENES)]
    trainer = make_trainer("lightning", *made, max_epochs=1)
    trainer.fit(module, both_loaders())
    again = bm.CutMix(1.0, seed=6)
    assert_mixed([batch["faces"] for batch in module.seen["train"]], expected(train_batches()))
    assert_mixed(
        [batch["scenes"] for batch in module.seen["train"]], [again(x, y) for x, y in train_batches()]
    )
    assert "batch_to_device" not in vars(trainer.strategy)

    trainer.save_checkpoint(tmp_path / "two.ckpt")
    kept = torch.load(tmp_path / "two.ckpt", weights_only=False)["callbacks"]
    assert kept["MixUpCallback(x='faces.0', y='faces.1')"] == {"seed": 5, "step": 3}
    assert kept["MixUpCallback(x='scenes.0', y='scenes.1')"] == {"seed": 6, "step": 3}

    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, both_loaders())
    assert len(module.seen["train"]) == 6
    assert_mixed([batch["faces"] for batch in module.seen["train"][3:]], expected(train_batches(), start=3))
    assert "batch_to_device" not in vars(trainer.strategy)


@pytest.mark.parametrize("order", [1, -1], ids=["first in, first out", "last in, first out"])
def test_hooks_are_released_in_any_order(order: int) -> None:
    trainer = make_trainer("lightning")
    made = [MixUpCallback(mixer(), **FACES), MixUpCallback(mixer(), **SCENES)]
    theirs = trainer.strategy.batch_to_device = lambda batch: batch
    for one in made:
        one._intercept(trainer)
    for one in made[::order]:
        assert trainer.strategy.batch_to_device is not theirs
        one._release()
    assert trainer.strategy.batch_to_device is theirs


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        (FACES, {}),
        (FACES, FACES),
        (FACES, {"x": "scenes.0", "y": "faces.1"}),
        ({"x": ("faces", "more"), "y": "y"}, {"x": "faces.0", "y": "z"}),
    ],
)
def test_two_callbacks_for_one_part_of_a_batch_are_refused(first: Any, second: Any) -> None:
    made = [MixUpCallback(mixer(), **first), AnotherCallback(mixer(), **second)]
    trainer = make_trainer("lightning", *made, max_epochs=1)
    with pytest.raises(bm.MixError) as raised:
        trainer.fit(Anything(), both_loaders())
    assert one_line(raised).startswith(
        "callbacks takes one MixUpCallback for a part of the batch, of several methods as bm.Choice({"
    )
    assert "batch_to_device" not in vars(trainer.strategy)
