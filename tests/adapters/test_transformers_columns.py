"""What a batch has beside its input and its labels: mixed, handed on, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from messages import one_line
from plain_loop import make_samples
from run_with_transformers import ModelWithLoss
from torch import Tensor, nn
from torch.nn import functional as F
from transformers_trainers import (
    RESNET,
    Samples,
    build,
    make_trainer,
    samples,
)

import batchmix as bm
from batchmix.adapters.transformers import mixup


def test_other_keys_can_be_named(tmp_path: Path) -> None:
    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = ModelWithLoss().net
            self.seen: list[Any] = []

        def forward(self, left: Tensor, right: Tensor, name: Tensor, digit: Any) -> dict[str, Tensor]:
            self.seen.append((left, right, name, digit))
            logits = self.net(left) + self.net(right)
            return {"loss": F.cross_entropy(logits, digit), "logits": logits}

    x, y = make_samples(8, 1)
    data = Samples(left=x, right=x.flip(-1), name=torch.arange(8), digit=y)
    model = TwoInputs()
    options = {"eval_strategy": "no", "num_train_epochs": 1, "label_names": ["digit"]}
    trainer = make_trainer(model, tmp_path, data=data, arguments=options)
    mixup(trainer, bm.Mixup(0.4, seed=5), inputs=["left", "right"], labels="digit").train()
    left, right, name, digit = model.seen[0]
    plan = bm.Mixup(0.4, seed=5).plan(x)
    assert torch.equal(left, bm.blend(x, plan))
    assert torch.equal(right, bm.blend(x.flip(-1), plan))
    assert torch.equal(name, torch.arange(8))
    assert torch.equal(digit.b, y[plan.partner])


AGE, SEEN = torch.rand(8), torch.ones(8, 5)


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        (
            {"age": AGE},
            "inputs takes every tensor of samples, got 'age' beside them: "
            "inputs=['pixel_values', 'age'], or kinds={'x.age': 'pass'}",
        ),
        (
            {"input_ids": SEEN.long()},
            "inputs takes every tensor of samples, got 'input_ids' beside them: "
            "kinds={'x.input_ids': 'pass'} leaves it the sample's own, since ids are not blended",
        ),
        (
            {"observed_mask": SEEN},
            "inputs takes every tensor of samples, got 'observed_mask' beside them: "
            "kinds={'x.observed_mask': 'attention_mask'} where it says what is in use, or 'pass'",
        ),
        (
            {"soft_labels": AGE},
            "labels takes every target of samples, got 'soft_labels' beside them: "
            "labels=['labels', 'soft_labels'], or kinds={'x.soft_labels': 'pass'}",
        ),
        ({"pixel_mask": torch.ones(8, 8, 8)}, "x.pixel_mask takes booleans or whole numbers, such as"),
        ({"attention_mask": torch.ones(8, 5)}, "x.attention_mask takes booleans or whole numbers, such as"),
    ],
)
def test_a_tensor_that_would_stay_unmixed_in_silence_is_named(
    column: dict[str, Tensor], wanted: str, tmp_path: Path
) -> None:
    """The labels would be those of two samples, and the column that of one."""
    batch = {**samples().batches()[0], **column}
    [name] = column
    mixer = bm.Mixup(0.4, seed=1)
    trainer = make_trainer(build(RESNET), tmp_path)
    with pytest.raises(bm.MixError) as raised:
        mixup(trainer, mixer).training_step.mix(batch)
    assert one_line(raised).startswith(wanted)
    assert mixer.step == 0
    step = mixup(trainer, mixer, kinds={f"x.{name}": "pass"}).training_step
    mixed = step.mix(batch)
    assert mixed[name] is column[name]
    assert not torch.equal(mixed["pixel_values"], batch["pixel_values"])


def test_a_column_is_mixed_where_kinds_or_inputs_name_it(tmp_path: Path) -> None:
    observed = torch.tensor([[1, i % 2, 0] for i in range(8)])
    batch = {**samples().batches()[0], "age": AGE, "observed": observed, "soft": AGE}
    kinds = {"x.age": "input", "x.observed": "attention_mask", "y.soft": "regression"}
    trainer = make_trainer(build(RESNET), tmp_path)
    mixed = mixup(trainer, bm.Mixup(0.4, seed=1), kinds=kinds).training_step.mix(batch)
    plan = bm.Mixup(0.4, seed=1).plan(batch["pixel_values"])
    assert torch.equal(mixed["age"], bm.blend(AGE, plan))
    assert torch.equal(mixed["observed"], observed | observed[plan.partner] * (plan.lam < 1).view(-1, 1))
    assert not torch.equal(mixed["observed"], observed)
    assert torch.equal(mixed["soft"].b, AGE[plan.partner])
    del batch["observed"], batch["soft"]
    named = mixup(trainer, bm.Mixup(0.4, seed=1), inputs=["pixel_values", "age"]).training_step.mix(batch)
    assert torch.equal(named["age"], mixed["age"])


def test_what_says_nothing_of_the_sample_is_handed_on(tmp_path: Path) -> None:
    beside = {
        "index": torch.arange(8),
        "bool_masked_pos": torch.ones(8, 4, dtype=torch.bool),
        "decoder_input_ids": torch.arange(40).view(8, 5),
        "bbox": torch.ones(8, 5, 4, dtype=torch.long),
        "position_ids": torch.arange(5).expand(8, 5),
        "head_mask": torch.ones(8, 2),  # of as many layers as there are samples
        "scale": torch.tensor(2.0),
        "of_the_batch": torch.rand(3, 2),
        "name": list("abcdefgh"),
    }
    batch = {**samples().batches()[0], **beside}
    mixed = mixup(make_trainer(build(RESNET), tmp_path), bm.Mixup(0.4, seed=1)).training_step.mix(batch)
    assert all(mixed[name] is value for name, value in beside.items())


def test_a_lone_sample_has_nothing_beside_it_to_be_mixed_with(tmp_path: Path) -> None:
    """As the last batch of an epoch can be, where whatever is one for all has the rows of a batch."""
    x, y = make_samples(1, 1)
    step = mixup(make_trainer(build(RESNET), tmp_path), bm.Mixup(0.4, seed=1)).training_step
    assert step.mix({"pixel_values": x, "labels": y, "table": torch.rand(1, 3)})["table"].shape == (1, 3)


def test_the_attention_mask_of_ids_beside_images_stays_theirs(tmp_path: Path) -> None:
    ids, used = torch.ones(8, 5, dtype=torch.long), torch.tensor([[1, 1, 1, i % 2, 0] for i in range(8)])
    batch = {**samples().batches()[0], "input_ids": ids, "attention_mask": used}
    trainer = make_trainer(build(RESNET), tmp_path)
    with pytest.raises(bm.MixError, match=r"got 'input_ids' beside them: kinds={'x\.input_ids': 'pass'}"):
        mixup(trainer, bm.Mixup(0.4, seed=1)).training_step.mix(batch)
    step = mixup(trainer, bm.Mixup(0.4, seed=1), kinds={"x.input_ids": "pass"}).training_step
    assert step.mix(batch)["attention_mask"] is used
