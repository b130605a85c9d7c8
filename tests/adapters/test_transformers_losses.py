"""Losses in the real Trainer, those of models and those that are given, are those of the plain loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_loop import CLASSES
from run_with_transformers import ModelWithLoss
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    ConvNextV2Config,
    Dinov2Config,
    PreTrainedConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)
from transformers_trainers import LR, RESNET, VIT, build, make_trainer, plain_losses, samples

import batchmix as bm
from batchmix.adapters.transformers import mixup

CONVNEXT = ConvNextV2Config(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, num_labels=CLASSES)
DINO = Dinov2Config(
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=8,
    patch_size=4,
    num_labels=CLASSES,
)
CONFIGS = {"resnet": RESNET, "vit": VIT, "convnextv2": CONVNEXT, "dinov2": DINO}


def test_models_that_compute_their_own_loss_train_as_in_a_plain_loop(tmp_path: Path) -> None:
    for name, config in CONFIGS.items():
        trainer = make_trainer(build(config), tmp_path)
        mixup(trainer, bm.Mixup(0.4, seed=5)).train()
        wanted = plain_losses(build(config), samples(), bm.Mixup(0.4, seed=5))
        assert trainer.losses.train == pytest.approx(wanted, rel=1e-6), name


def test_several_labels_at_once_go_through_the_models_own_loss(tmp_path: Path) -> None:
    data = samples(labels=lambda y: torch.stack([y % 2, y // 2, (y > 0).long()], 1).float())
    changes = {"num_labels": 3, "problem_type": "multi_label_classification"}
    for config in (RESNET, VIT):
        trainer = make_trainer(
            build(config, **changes), tmp_path, data=data, arguments={"eval_strategy": "no"}
        )
        mixup(trainer, bm.Mixup(0.4, seed=5)).train()
        loss_fn = F.binary_cross_entropy_with_logits
        wanted = plain_losses(build(config, **changes), data, bm.Mixup(0.4, seed=5), loss_fn)
        assert trainer.losses.train == pytest.approx(wanted, rel=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's own
def test_a_loss_inside_of_a_compiled_model_takes_several_labels_at_once(tmp_path: Path) -> None:
    data = samples(16, labels=lambda y: torch.stack([y % 2, y // 2, (y > 0).long()], 1).float())
    changes = {"num_labels": 3, "problem_type": "multi_label_classification"}
    options = {"torch_compile_backend": "eager", "eval_strategy": "no", "num_train_epochs": 1}
    trainer = make_trainer(build(RESNET, **changes), tmp_path, data=data, arguments=options)
    mixup(trainer, bm.Mixup(0.4, seed=5)).train()
    assert type(trainer.model_wrapped) is torch._dynamo.OptimizedModule
    loss_fn = F.binary_cross_entropy_with_logits
    wanted = plain_losses(build(RESNET, **changes), data, bm.Mixup(0.4, seed=5), loss_fn, epochs=1)
    assert trainer.losses.train == pytest.approx(wanted, rel=1e-6)
    torch._dynamo.reset()


def squared_error(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Tensor:
    return F.mse_loss(outputs.logits.squeeze(1), labels)


def test_a_regression_trains_with_compute_loss_func(tmp_path: Path) -> None:
    data = samples(labels=torch.Tensor.float)
    trainer = make_trainer(
        build(VIT, num_labels=1),
        tmp_path,
        data=data,
        eval_dataset=data,
        compute_loss_func=squared_error,
    )
    mixup(trainer, bm.Mixup(0.4, seed=5)).train()
    wanted = plain_losses(
        build(VIT, num_labels=1), data, bm.Mixup(0.4, seed=5), lambda z, y: F.mse_loss(z.squeeze(1), y)
    )
    assert trainer.losses.train == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("config", [RESNET, VIT], ids=["resnet", "vit"])
def test_a_regression_by_the_models_own_loss_is_the_plain_loops(
    config: PreTrainedConfig, tmp_path: Path
) -> None:
    """A model squeezes the labels for itself; the ViT also where the last batch is a single sample."""
    data = samples(17 if config is VIT else 21, labels=torch.Tensor.float)
    changes = {"num_labels": 1, "problem_type": "regression"}
    trainer = make_trainer(build(config, **changes), tmp_path, data=data, eval_dataset=data)
    mixup(trainer, bm.Mixup(0.4, seed=5)).train()
    wanted = plain_losses(
        build(config, **changes), data, bm.Mixup(0.4, seed=5), lambda z, y: F.mse_loss(z.squeeze(1), y)
    )
    assert trainer.losses.train == pytest.approx(wanted, rel=1e-6)


def test_segmentation_labels_stay_with_their_pixels(tmp_path: Path) -> None:
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 8],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[1, 1],
        decoder_hidden_size=8,
        num_labels=CLASSES,
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SegformerForSemanticSegmentation(config)
    data = samples(labels=lambda y: y.view(-1, 1, 1).expand(-1, 8, 8).contiguous())
    twin = copy.deepcopy(model)
    trainer = make_trainer(model, tmp_path, data=data, arguments={"eval_strategy": "no"})
    mixup(trainer, bm.Mixup(0.4, seed=5)).train()

    def upsampled(logits: Tensor, y: Any) -> Tensor:
        size = tuple(y.shape[-2:])
        return F.cross_entropy(F.interpolate(logits, size=size, mode="bilinear"), y, ignore_index=255)

    wanted = plain_losses(twin, data, bm.Mixup(0.4, seed=5), upsampled)
    assert trainer.losses.train == pytest.approx(wanted, rel=1e-6)


def test_label_smoothing_is_that_of_cross_entropy(tmp_path: Path) -> None:
    for config in (RESNET, VIT):  # without and with num_items_in_batch
        trainer = make_trainer(build(config), tmp_path, arguments={"label_smoothing_factor": 0.1})
        mixup(trainer, bm.Mixup(0.4, seed=5)).train()
        wanted = plain_losses(
            build(config),
            samples(),
            bm.Mixup(0.4, seed=5),
            lambda logits, y: F.cross_entropy(logits, y, label_smoothing=0.1),
        )
        assert trainer.losses.train == pytest.approx(wanted, rel=1e-6)


def test_label_smoothing_of_what_is_not_mixed_is_the_trainers_own(tmp_path: Path) -> None:
    options = {"label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2}
    alone = make_trainer(build(VIT), tmp_path, arguments=options)
    alone.train()
    unmixed = make_trainer(build(VIT), tmp_path, arguments=options)
    mixup(unmixed, bm.Mixup(0.4, p=0.0)).train()
    assert unmixed.losses.train == pytest.approx(alone.losses.train, rel=1e-5)
    assert unmixed.losses.evaluation == pytest.approx(alone.losses.evaluation, rel=1e-5)


def own_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Tensor:
    """Written as the adapter's error message has it."""
    loss_fn = nn.CrossEntropyLoss(reduction="sum")
    return bm.mixed_loss(loss_fn, outputs.logits, labels).sum() / (num_items_in_batch or len(labels))


@pytest.mark.parametrize(
    ("build_model", "loss"),
    [(ModelWithLoss, None), (lambda: build(VIT), None), (lambda: build(VIT), own_loss)],
    ids=["a mean", "num_items_in_batch", "compute_loss_func"],
)
def test_micro_batches_are_mixed_one_by_one_and_add_up(
    build_model: Callable[[], nn.Module], loss: Any, tmp_path: Path
) -> None:
    """21 samples in batches of 8, 8 and 5: two gradients, of 16 and of 5 samples."""
    options = {"gradient_accumulation_steps": 2, "num_train_epochs": 1}
    trainer = make_trainer(build_model(), tmp_path, compute_loss_func=loss, arguments=options)
    mixup(trainer, bm.Mixup(0.4, seed=5)).train()

    model, mixer = build_model(), bm.Mixup(0.4, seed=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for group in (samples().batches()[:2], samples().batches()[2:]):
        for batch in group:
            x, y = mixer(batch["pixel_values"], batch["labels"])
            (model(pixel_values=x, labels=y)["loss"] / len(group)).backward()
        optimizer.step()
        optimizer.zero_grad()
    for (name, value), wanted in zip(trainer.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6, msg=name)


def test_bfloat16_trains_close_to_float32(tmp_path: Path) -> None:
    trainer = make_trainer(build(VIT), tmp_path, arguments={"bf16": True})
    mixup(trainer, bm.Mixup(0.4, seed=5)).train()
    wanted = plain_losses(build(VIT), samples(), bm.Mixup(0.4, seed=5))
    assert trainer.losses.train == pytest.approx(wanted, rel=2e-2)
    assert trainer.losses.train != pytest.approx(wanted, rel=1e-6)
