"""The adapter in the real Trainer: models with losses of their own, resuming, evaluation, wrong use."""

from __future__ import annotations

import copy
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_loop import CLASSES, make_samples
from run_with_transformers import ModelWithLoss, RecordingTrainer, arguments
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import (
    AutoModelForImageClassification,
    BertConfig,
    BertForSequenceClassification,
    ConvNextV2Config,
    Dinov2Config,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedConfig,
    ResNetConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    ViTConfig,
)

import batchmix as bm
from batchmix.adapters.transformers import mixup

LR = 0.1
Sample = dict[str, Tensor]

RESNET = ResNetConfig(
    embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=CLASSES
)
VIT = ViTConfig(
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    image_size=8,
    patch_size=4,
    num_labels=CLASSES,
)
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


class Samples(Dataset):
    """Columns of equal length, one dict a sample."""

    def __init__(self, **columns: Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> Sample:
        return {key: column[index] for key, column in self.columns.items()}

    def batches(self, size: int = 8) -> list[Sample]:
        parts = zip(*(column.split(size) for column in self.columns.values()), strict=True)
        return [dict(zip(self.columns, part, strict=True)) for part in parts]


def samples(count: int = 21, seed: int = 1, labels: Callable[[Tensor], Tensor] = lambda y: y) -> Samples:
    x, y = make_samples(count, seed)
    return Samples(pixel_values=x, labels=labels(y))


def build(config: PreTrainedConfig, **changes: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = copy.deepcopy(config)
        for name, value in changes.items():
            setattr(config, name, value)
        return AutoModelForImageClassification.from_config(config)


def constant(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def make_trainer(
    model: nn.Module,
    folder: Path,
    *,
    kind: type[Trainer] = RecordingTrainer,
    data: Samples | None = None,
    **options: Any,
) -> Any:
    """A trainer with plain SGD; ``trainer`` in options goes to the Trainer, all else to its arguments."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    return kind(
        model=model,
        args=options.pop("args", None) or arguments(str(folder), **options.pop("arguments", {})),
        train_dataset=samples() if data is None else data,
        eval_dataset=options.pop("eval_dataset", samples(11, 2)),
        optimizers=(optimizer, constant(optimizer)),
        **options,
    )


def plain_losses(
    model: nn.Module,
    data: Samples,
    mixer: bm.Mixer,
    loss_fn: Callable[..., Tensor] = F.cross_entropy,
    epochs: int = 2,
) -> list[float]:
    """The same training written out, with the loss outside of the model."""
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=LR), []
    model.train()
    for _ in range(epochs):
        for batch in data.batches():
            x, y = mixer(batch["pixel_values"], batch["labels"])
            loss = loss_fn(model(pixel_values=x).logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


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
    loss = bm.mixed_loss(nn.CrossEntropyLoss(reduction="sum"), outputs.logits, labels)
    return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)


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


def test_embeddings_are_mixed_and_their_attention_masks_united(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=10,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=CLASSES,
    )
    model = BertForSequenceClassification(config)
    seen: list[Sample] = []
    model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    _, y = make_samples(8, 1)
    embeds = torch.rand(8, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(5) <= torch.arange(8).view(-1, 1)).long()
    data = Samples(inputs_embeds=embeds, attention_mask=mask, labels=y)
    options = {"eval_strategy": "no", "num_train_epochs": 1}
    mixup(make_trainer(model, tmp_path, data=data, arguments=options), bm.Mixup(0.4, seed=5)).train()
    plan = bm.Mixup(0.4, seed=5).plan(embeds)
    assert torch.equal(seen[0]["inputs_embeds"], bm.blend(embeds, plan))
    assert torch.equal(seen[0]["attention_mask"], mask | mask[plan.partner] * (plan.lam < 1).view(-1, 1))
    assert torch.equal(seen[0]["labels"].lam, plan.lam)


class LateTrainer(Seq2SeqTrainer):
    """A Trainer of somebody's own, with a loss of its own."""

    seen: list[Any]

    def compute_loss(self, model: nn.Module, inputs: Sample, return_outputs: bool = False, **_: Any) -> Any:
        labels = inputs.pop("labels")
        self.seen.append(labels)
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


def test_a_trainer_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    args = Seq2SeqTrainingArguments(**arguments(str(tmp_path)).to_dict() | {"num_train_epochs": 1})
    trainer = make_trainer(build(RESNET), tmp_path, kind=LateTrainer, args=args)
    trainer.seen = []
    assert mixup(trainer, bm.Mixup(0.4, seed=5)) is trainer
    trainer.train()
    kinds = [type(labels) for labels in trainer.seen]
    assert kinds == [bm.MixedTarget] * 3 + [Tensor] * 2


def test_evaluation_and_prediction_see_plain_batches(tmp_path: Path) -> None:
    test = samples(11, 2)

    def count(prediction: Any) -> dict[str, float]:
        assert np.array_equal(prediction.label_ids, test.columns["labels"].numpy())
        return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}

    trainer = make_trainer(build(RESNET), tmp_path, compute_metrics=count)
    mixup(trainer, bm.Mixup(0.4, seed=5)).train()
    model = trainer.model.eval()
    with torch.no_grad():
        logits = model(test.columns["pixel_values"]).logits
    loss = F.cross_entropy(logits, test.columns["labels"]).item()
    accuracy = (logits.argmax(1) == test.columns["labels"]).float().mean().item()
    step = trainer.training_step.mixer.step
    got = trainer.evaluate()
    assert got["eval_accuracy"] == pytest.approx(accuracy)
    losses = trainer.losses.evaluation[-2:]
    assert (8 * losses[0] + 3 * losses[1]) / 11 == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(trainer.predict(test).predictions, logits.numpy(), rtol=1e-4, atol=1e-5)
    assert trainer.training_step.mixer.step == step


@pytest.mark.parametrize("restore", [False, True])
def test_a_resumed_run_goes_on_with_the_same_draws(restore: bool, tmp_path: Path) -> None:
    options = {
        "save_strategy": "steps",
        "save_steps": 2,
        "gradient_accumulation_steps": 2,
        "train_sampling_strategy": "random",
        "num_train_epochs": 3,
        "restore_callback_states_from_checkpoint": restore,
    }
    whole = make_trainer(build(RESNET), tmp_path / "whole", arguments=options)
    mixup(whole, bm.Mixup(0.4, seed=5)).train()

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step == 3  # a step later than the checkpoint

    stopped = make_trainer(build(RESNET), tmp_path / "parts", arguments=options, callbacks=[Stop()])
    mixup(stopped, bm.Mixup(0.4, seed=5)).train()
    options["num_train_epochs"] = 3
    resumed = make_trainer(build(RESNET), tmp_path / "parts", arguments=options)
    mixup(resumed, bm.Mixup(0.4, seed=77))  # the checkpoint's seed counts
    resumed.train(resume_from_checkpoint=True)
    assert len(whole.losses.train) == 9
    assert stopped.losses.train == pytest.approx(whole.losses.train[:5], rel=1e-6)
    assert resumed.losses.train == pytest.approx(whole.losses.train[3:], rel=1e-6)


def test_all_processes_begin_with_the_seed_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here is the second of two, each with another seed; a checkpoint is written by the first."""
    sent: list[Any] = []

    def broadcast(objects: list[Any]) -> None:
        sent.append(objects[0])
        objects[0] = {"seed": 5, "step": 0}

    group = types.SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, broadcast_object_list=broadcast
    )
    monkeypatch.setattr("batchmix.adapters.transformers.dist", group)
    options = {"save_strategy": "steps", "save_steps": 3, "eval_strategy": "no"}
    trainer = make_trainer(build(RESNET), tmp_path, arguments=options)
    mixup(trainer, bm.Mixup(0.4, seed=1001)).train()
    wanted = plain_losses(build(RESNET), samples(), bm.Mixup(0.4, seed=5))
    assert trainer.losses.train == pytest.approx(wanted, rel=1e-6)
    assert sent == [{"seed": 1001, "step": 0}]
    resumed = make_trainer(build(RESNET), tmp_path, arguments=options)
    mixup(resumed, bm.Mixup(0.4, seed=1002)).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.losses.train == pytest.approx(wanted[3:], rel=1e-6)
    assert len(sent) == 1  # the checkpoint's state is the same in all of them
    trainer.train()
    assert sent[1:] == [{"seed": 1001, "step": 0}]


def test_mixing_can_begin_in_a_run_that_is_resumed(tmp_path: Path) -> None:
    options = {"save_strategy": "epoch", "num_train_epochs": 1}
    make_trainer(build(RESNET), tmp_path, arguments=options).train()
    resumed = make_trainer(build(RESNET), tmp_path, arguments=options | {"num_train_epochs": 2})
    mixer = bm.Mixup(0.4, seed=5)
    mixup(resumed, mixer).train(resume_from_checkpoint=True)
    assert mixer.state_dict() == {"seed": 5, "step": 3}


def test_every_train_begins_with_the_same_draws(tmp_path: Path) -> None:
    """As the trials of ``hyperparameter_search`` do, each with a model made anew and the same trainer."""
    trainer = RecordingTrainer(
        model_init=lambda: build(RESNET),
        args=arguments(str(tmp_path), lr_scheduler_type="constant"),
        train_dataset=samples(),
        eval_dataset=samples(11, 2),
    )
    mixup(trainer, bm.Mixup(0.4, seed=5, schedule=bm.off_after(3)))
    trainer.train()
    trainer.train()
    first, second = trainer.losses.train[:6], trainer.losses.train[6:]
    assert first == pytest.approx(second, rel=1e-6)


def test_given_twice_the_later_mixer_counts_and_mixes_once(tmp_path: Path) -> None:
    trainer = make_trainer(build(RESNET), tmp_path)
    first, second = bm.Mixup(0.4, seed=1), bm.Mixup(0.4, seed=5)
    mixup(trainer, first)
    mixup(trainer, second).train()
    assert (first.step, second.step) == (0, 6)
    assert trainer.losses.train == pytest.approx(
        plain_losses(build(RESNET), samples(), bm.Mixup(0.4, seed=5)), rel=1e-6
    )


def test_a_trained_model_is_saved_as_always(tmp_path: Path) -> None:
    trainer = make_trainer(build(RESNET), tmp_path)
    mixup(trainer).train()
    trainer.save_model(str(tmp_path / "model"))
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "model")
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


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


def one_line(raised: pytest.ExceptionInfo[bm.MixError]) -> str:
    message = str(raised.value)
    assert "\n" not in message
    return message


class Anything(nn.Module):
    """A model that takes whatever comes and never gets to it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, **batch: Any) -> dict[str, Tensor]:
        raise AssertionError("a wrong batch does not reach the model")


@pytest.mark.parametrize(
    ("columns", "options", "wanted"),
    [
        (
            {"pixel_values": (8, 3, 8, 8)},
            {},
            "labels takes keys of the batch, which has pixel_values, got 'labels'",
        ),
        ({"labels": (8,)}, {}, "inputs takes keys of the batch, which has labels, got 'pixel_values'"),
        (
            {"pixel_values": (8, 3, 8, 8), "labels": (8,)},
            {"inputs": "image"},
            "inputs takes keys of the batch, which has pixel_values, labels, got 'image'",
        ),
        (
            {"pixel_values": (8, 3, 8, 8), "labels": (8,)},
            {"labels": ["labels", "more"]},
            "labels takes keys of the batch, which has pixel_values, labels, got 'labels' and 'more'",
        ),
    ],
)
def test_a_batch_without_what_is_mixed_is_named(
    columns: dict[str, tuple[int, ...]], options: dict[str, Any], wanted: str, tmp_path: Path
) -> None:
    data = Samples(**{key: torch.rand(shape) for key, shape in columns.items()})
    settings = {"eval_strategy": "no", "remove_unused_columns": False, "label_names": ["labels"]}
    trainer = make_trainer(Anything(), tmp_path, data=data, arguments=settings)
    mixer = bm.Mixup(0.4)
    mixup(trainer, mixer, **options)
    with pytest.raises(bm.MixError) as raised:
        trainer.train()
    assert one_line(raised) == wanted
    assert mixer.step == 0


def test_token_ids_are_refused_with_what_to_do(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    data = Samples(input_ids=torch.ones(8, 5, dtype=torch.int64), labels=torch.ones(8, dtype=torch.int64))
    trainer = make_trainer(
        BertForSequenceClassification(config), tmp_path, data=data, arguments={"eval_strategy": "no"}
    )
    with pytest.raises(bm.MixError) as raised:
        mixup(trainer).train()
    assert one_line(raised) == (
        "inputs takes floating point tensors, such as inputs_embeds in place of the token ids, "
        "which embed=True makes of them, or ids where the mixer is a bm.TokenCutMix, "
        "got 'input_ids', int64 tensor (8, 5)"
    )


def test_token_cutmix_pastes_token_ids_with_what_stands_beside_them(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 10, (8, 5), generator=generator)
    used = (torch.arange(5) < torch.tensor([5, 4, 3, 5, 2, 4, 5, 3])[:, None]).long()
    x = {"input_ids": ids * used, "token_type_ids": ids % 2 * used, "attention_mask": used}
    y = torch.arange(8) % 2
    trainer = make_trainer(
        BertForSequenceClassification(config),
        tmp_path,
        data=Samples(**x, labels=y),
        arguments={"eval_strategy": "no"},
    )
    mixer = bm.TokenCutMix(special=[0], seed=1)
    mixup(trainer, mixer)
    mixed = trainer.training_step.mix({**x, "labels": y})
    wanted, target = bm.TokenCutMix(special=[0], seed=1)(x, y)
    assert all(torch.equal(mixed[key], wanted[key]) for key in x)
    assert not torch.equal(mixed["token_type_ids"], x["token_type_ids"])
    assert torch.equal(mixed["labels"].lam, target.lam)
    trainer.train()
    assert mixer.step > 1


def test_integer_images_are_refused(tmp_path: Path) -> None:
    data = samples()
    data.columns["pixel_values"] = (data.columns["pixel_values"] * 255).to(torch.uint8)
    trainer = mixup(make_trainer(build(RESNET), tmp_path, data=data))
    with pytest.raises(bm.MixError, match=r"pixel_values takes floating point samples"):
        trainer.train()


class HingeModel(nn.Module):
    """A model whose own loss does with labels what two of them have no meaning for."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ModelWithLoss().net

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.net(pixel_values)
        if labels is None:
            return Logits(logits=logits)
        return Logits(loss=hinge(logits, labels).mean(), logits=logits)


class Logits(dict):
    """What transformers' models return, near enough: a dict whose entries are attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def hinge(logits: Tensor, labels: Tensor) -> Tensor:
    return (1 - logits.gather(1, labels[:, None]).squeeze(1)).clamp(min=0)


def test_a_loss_that_cannot_take_two_labels_is_named_with_what_can_be_done(tmp_path: Path) -> None:
    trainer = mixup(make_trainer(HingeModel(), tmp_path))
    with pytest.raises(bm.MixError) as raised:
        trainer.train()
    message = one_line(raised)
    assert message.startswith(
        "compute_loss_func takes the place of a loss that cannot take a MixedTarget, as that of "
    )
    assert "HingeModel" in message

    def wrapped(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Tensor:
        return bm.mixed_loss(hinge, outputs.logits, labels).mean()

    trainer = make_trainer(
        HingeModel(), tmp_path, compute_loss_func=wrapped, arguments={"eval_strategy": "no"}
    )
    mixup(trainer, bm.Mixup(0.4, seed=5)).train()
    assert len(trainer.losses.train) == 6


def test_a_language_model_that_shifts_its_labels_is_told_what_can_be_done(tmp_path: Path) -> None:
    config = GPT2Config(
        vocab_size=10, n_embd=8, n_layer=1, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    embeds = torch.rand(4, 5, 8, generator=torch.Generator().manual_seed(0))
    data = Samples(inputs_embeds=embeds, labels=torch.arange(20).view(4, 5) % 10)
    with pytest.raises(bm.MixError) as raised:
        mixup(make_trainer(GPT2LMHeadModel(config), tmp_path, data=data)).train()
    message = one_line(raised)
    assert message.startswith("compute_loss_func takes the place of a loss that cannot take a MixedTarget")
    assert "GPT2LMHeadModel" in message


def test_errors_of_the_model_that_are_not_ours_stay_as_they_are(tmp_path: Path) -> None:
    class Broken(ModelWithLoss):
        def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
            raise ValueError("the model's own")

    with pytest.raises(ValueError, match=r"^the model's own$"):
        mixup(make_trainer(Broken(), tmp_path)).train()


def test_boxes_with_weights_need_a_loss_that_reads_them(tmp_path: Path) -> None:
    """A detector's own loss reads none: an object of a thousandth of the image would count in full."""
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = [{"labels": torch.tensor([i]), "boxes": torch.tensor([[2.0, 2, 6, 6]])} for i in range(4)]
    batch = {"pixel_values": x, "labels": labels}
    trainer = make_trainer(build(RESNET), tmp_path)
    step = mixup(trainer, bm.Mixup(0.4, partner="roll", seed=1)).training_step
    with pytest.raises(
        bm.MixError, match=r"^labels takes a mixer that pastes boxes, .*, got Mixup and the model's"
    ):
        step.mix(batch)
    trainer.compute_loss_func = lambda outputs, labels, **_: outputs
    assert len(step.mix(batch)["labels"][0]["weights"]) == 2
    trainer.compute_loss_func = None
    pasted = mixup(trainer, bm.CutMix(1.0, seed=1)).training_step.mix(batch)["labels"]
    assert all((part["weights"] == 1).all() for part in pasted)
    in_full = mixup(trainer, bm.Mixup(0.4, partner="roll", seed=1), boxes={"weighted": False})
    joined = in_full.training_step.mix(batch)["labels"]
    assert [part["labels"].tolist() for part in joined] == [[0, 3], [1, 0], [2, 1], [3, 2]]
    assert not any("weights" in part for part in joined)


def detections(**more: Tensor) -> list[dict[str, Tensor]]:
    """What transformers' image processors make of annotations of images of 8 by 12."""
    box = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    return [{"class_labels": torch.tensor([i]), "boxes": box, **more} for i in range(4)]


@pytest.mark.parametrize("mixer", [bm.CutMix(1.0, seed=1), bm.Mixup(0.4, seed=1), bm.Mixup(p=0.0, seed=1)])
def test_boxes_beside_class_labels_are_shares_around_a_middle(mixer: bm.Mixer, tmp_path: Path) -> None:
    x = torch.rand(4, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    used = torch.ones(4, 8, 12, dtype=torch.long)
    used[1, :, 9:] = 0
    labels = detections(size=torch.tensor([8, 12]))
    plan = copy.deepcopy(mixer).plan(x)
    trainer = make_trainer(build(RESNET), tmp_path, compute_loss_func=lambda outputs, labels, **_: outputs)
    step = mixup(trainer, mixer).training_step
    mixed = step.mix({"pixel_values": x, "pixel_mask": used, "labels": labels})
    wanted = bm.mix_objects(labels, plan, form="cxcywh", normalized=True)
    for got, other in zip(mixed["labels"], wanted, strict=True):
        assert got.keys() == other.keys()
        assert all(torch.equal(got[name], other[name]) for name in got)
    assert torch.equal(mixed["pixel_values"], bm.blend(x, plan))
    both = used | used[plan.partner] * (plan.lam < 1).view(-1, 1, 1)
    own = None if plan.mask is None else plan.mask[:, 0]
    pasted = both if own is None else torch.where(own, used, used[plan.partner])
    assert torch.equal(mixed["pixel_mask"], pasted)
    assert mixer.step == 1


def test_boxes_of_another_form_can_be_told(tmp_path: Path) -> None:
    x = torch.rand(4, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    labels = [{**one, "boxes": torch.tensor([[2.0, 2, 6, 6]])} for one in detections()]
    trainer = make_trainer(build(RESNET), tmp_path)
    step = mixup(trainer, bm.CutMix(1.0, seed=1)).training_step
    with pytest.raises(
        bm.MixError,
        match=r"^labels: targets takes boxes of middle, .* or boxes={'form': .*, got numbers up to 6$",
    ):
        step.mix({"pixel_values": x, "labels": labels})
    boxes = {"form": "xyxy", "normalized": False, "min_visible": 0.3}
    step = mixup(trainer, bm.CutMix(1.0, seed=1), boxes=boxes).training_step
    mixed = step.mix({"pixel_values": x, "labels": labels})["labels"]
    wanted = bm.mix_objects(labels, bm.CutMix(1.0, seed=1).plan(x), min_visible=0.3)
    for got, other in zip(mixed, wanted, strict=True):
        assert torch.equal(got["boxes"], other["boxes"])


def test_boxes_that_are_shares_of_an_image_before_its_padding_are_refused(tmp_path: Path) -> None:
    batch = {"pixel_values": torch.rand(4, 3, 8, 12), "labels": detections(size=torch.tensor([8, 10]))}
    step = mixup(make_trainer(build(RESNET), tmp_path), bm.CutMix(1.0, seed=1)).training_step
    trainer = make_trainer(build(RESNET), tmp_path, compute_loss_func=lambda outputs, labels, **_: outputs)
    for mixer in (bm.Mixup(0.4), bm.CutMix(p=0.0)):  # which change no box
        assert len(mixup(trainer, mixer).training_step.mix(batch)["labels"]) == 4
    with pytest.raises(bm.MixError) as raised:
        step.mix(batch)
    assert one_line(raised).startswith("labels takes boxes that are shares of the whole images, (8, 12)")
    assert one_line(raised).endswith("got one whose 'size' is (8, 10)")


@pytest.mark.parametrize("kinds", [{"y": "pass"}, {"y.labels": "pass"}])
def test_boxes_can_be_left_to_the_trainers_own_loss(kinds: dict[str, str], tmp_path: Path) -> None:
    batch = {"pixel_values": torch.rand(4, 3, 8, 12), "labels": detections()}
    step = mixup(make_trainer(build(RESNET), tmp_path), bm.CutMix(1.0, seed=1), kinds=kinds).training_step
    mixed = step.mix(batch)
    assert mixed["labels"] is batch["labels"]
    assert not torch.equal(mixed["pixel_values"], batch["pixel_values"])


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


BERT = BertConfig(
    vocab_size=10,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=8,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    num_labels=CLASSES,
)


def bert() -> BertForSequenceClassification:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertForSequenceClassification(copy.deepcopy(BERT))


def texts(count: int = 16) -> Samples:
    generator = torch.Generator().manual_seed(0)
    used = (torch.arange(5) <= torch.arange(count).view(-1, 1) % 5).long()
    ids = torch.randint(1, 10, (count, 5), generator=generator) * used
    return Samples(
        input_ids=ids, token_type_ids=ids % 2, attention_mask=used, labels=make_samples(count, 1)[1]
    )


def test_embeddings_of_ids_are_mixed_as_in_a_plain_loop(tmp_path: Path) -> None:
    model, data, options = bert(), texts(), {"eval_strategy": "no"}
    trainer = make_trainer(bert(), tmp_path, data=data, arguments=options)
    mixup(trainer, 0.4, seed=5, embed=True).train()
    mixer, losses = bm.Mixup(0.4, seed=5), []
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for _ in range(2):
        for batch in data.batches():
            x = {
                "inputs_embeds": model.get_input_embeddings()(batch["input_ids"]),
                "attention_mask": batch["attention_mask"],
            }
            x, y = mixer(x, batch["labels"])
            loss = F.cross_entropy(model(**x, token_type_ids=batch["token_type_ids"]).logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert trainer.losses.train == pytest.approx(losses, rel=1e-6)
    weight = trainer.model.get_input_embeddings().weight
    torch.testing.assert_close(weight, model.get_input_embeddings().weight, rtol=1e-5, atol=1e-7)
    start = bert().get_input_embeddings().weight
    moved = (weight != start).any(1)
    assert moved[data.columns["input_ids"].unique()[1:]].all()
    assert not moved[0]  # of padding, which the layer keeps at 0


def test_embeddings_in_bfloat16_are_those_that_the_model_makes(tmp_path: Path) -> None:
    options = {"eval_strategy": "no"}
    whole = make_trainer(bert(), tmp_path, data=texts(), arguments=options)
    mixup(whole, 0.4, seed=5, embed=True).train()
    half = make_trainer(bert(), tmp_path, data=texts(), arguments=options | {"bf16": True})
    mixup(half, 0.4, seed=5, embed=True).train()
    assert half.losses.train == pytest.approx(whole.losses.train, rel=2e-2)
    batch = half.training_step.mix(texts().batches()[0])
    assert batch["inputs_embeds"].dtype == torch.float32
    unmixed = make_trainer(bert(), tmp_path, data=texts(), arguments=options | {"bf16": True})
    mixup(unmixed, 0.4, p=0.0, embed=True).train()
    plain = make_trainer(bert(), tmp_path, data=texts(), arguments=options | {"bf16": True})
    plain.train()
    assert unmixed.losses.train == pytest.approx(plain.losses.train, rel=1e-4)


def test_embedding_leaves_evaluation_and_the_ids_of_the_batch_as_they_are(tmp_path: Path) -> None:
    trainer = make_trainer(bert(), tmp_path, data=texts(), eval_dataset=texts(8))
    step = mixup(trainer, 0.4, embed=True).training_step
    trainer.train()
    assert len(trainer.losses.evaluation) == 2
    batch = texts().batches()[0]
    mixed = step.mix(batch)
    assert "input_ids" in batch
    assert "input_ids" not in mixed
    assert mixed["token_type_ids"] is batch["token_type_ids"]
    for inputs in ("input_ids", "inputs_embeds"):
        step = mixup(trainer, 0.4, embed=True, inputs=[inputs, "age"]).training_step
        assert step.mix({**batch, "age": AGE})["age"] is not AGE
    with pytest.raises(bm.MixError, match=r"inputs=\['inputs_embeds', 'age'\], or kinds="):
        mixup(trainer, 0.4, embed=True).training_step.mix({**batch, "age": AGE})


class Sharded(nn.Embedding):
    """An embedding as ZeRO-3 leaves it between forward passes."""

    def __init__(self) -> None:
        super().__init__(10, 8)
        self.weight.ds_id = 0


def test_what_cannot_be_embedded_is_named(tmp_path: Path) -> None:
    batch = texts().batches()[0]
    trainer = make_trainer(bert(), tmp_path, data=texts())
    inner = bm.Choice({bm.Mixup(): 0.5, bm.CutMix(): 0.5})
    for mixer in (bm.TokenCutMix(), bm.SmoothMix(), inner, bm.Choice({inner: 1.0}), bm.EnergyMixup()):
        with pytest.raises(bm.MixError, match=r"^mixer takes one of any samples, .* beside embed=True, got "):
            mixup(trainer, mixer, embed=True)
    assert mixup(make_trainer(bert(), tmp_path), bm.Choice({bm.Mixup(): 1.0}), embed=True)
    with pytest.raises(bm.MixError, match=r"^embed takes True or False, got 1$"):
        mixup(trainer, embed=1)
    assert "training_step" not in vars(trainer)
    step = mixup(trainer, embed=True).training_step
    with pytest.raises(bm.MixError, match=r"^embed takes batches that have 'input_ids', got labels$"):
        step.mix({"labels": batch["labels"]})
    trainer.model.set_input_embeddings(Sharded())
    with pytest.raises(
        bm.MixError, match=r"^embed takes parameters that are whole .*, got the sharded ones of"
    ):
        step.mix(batch)
    trainer.is_fsdp_enabled = True
    trainer.model = bert()
    with pytest.raises(bm.MixError, match=r"^embed takes parameters that are whole in each process"):
        step.mix(batch)
    for model in (Anything(), build(RESNET)):
        step = mixup(make_trainer(model, tmp_path), embed=True).training_step
        with pytest.raises(
            bm.MixError, match=r"^embed takes a model that has get_input_embeddings and takes"
        ):
            step.mix(batch)


def test_options_of_mixup_stand_in_for_a_mixer(tmp_path: Path) -> None:
    trainer = make_trainer(build(RESNET), tmp_path)
    for options in ({"alpha": 0.2}, {"mixer": 0.2}):
        made = mixup(trainer, **options, seed=1).training_step.mixer
        assert repr(made) == repr(bm.Mixup(0.2, seed=1))


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    trainer = make_trainer(build(RESNET), tmp_path)
    with pytest.raises(bm.MixError, match=r"^trainer takes a transformers.Trainer, got 3$"):
        mixup(3)
    with pytest.raises(bm.MixError, match=r"^mixer takes a method such as bm.Mixup\(0.4\), got str '0.4'$"):
        mixup(trainer, "0.4")
    with pytest.raises(bm.MixError, match=r"^mixer takes all options itself, or None where alpha is"):
        mixup(trainer, bm.CutMix(), alpha=0.2)
    for wrong in ([3], [], 3, 0, {"label"}):
        wanted = re.escape(f"labels takes a key of the batch, or several, got {wrong}")
        with pytest.raises(bm.MixError, match=f"^{wanted}$"):
            mixup(trainer, labels=wrong)
    with pytest.raises(bm.MixError, match=r"^inputs takes a key of the batch, or several, got 0$"):
        mixup(trainer, inputs=0)
    for wrong in ({"box": 1}, ["form"]):
        with pytest.raises(bm.MixError, match=r"^boxes takes a dict of arguments of bm.mix_objects: min_vis"):
            mixup(trainer, boxes=wrong)
    assert "training_step" not in vars(trainer)


def test_several_gpus_in_one_process_are_refused(tmp_path: Path) -> None:
    trainer = mixup(make_trainer(build(RESNET), tmp_path))
    trainer.args._n_gpu = 2  # as args find them on such a machine
    with pytest.raises(bm.MixError, match=r"^trainer takes one GPU a process, by torchrun .*, got 2$"):
        trainer.training_step.mix(samples().batches()[0])
