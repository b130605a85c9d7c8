"""The adapter in the real Trainer: trainers of one's own, resuming, evaluation, wrong use."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from messages import one_line
from run_with_transformers import ModelWithLoss, RecordingTrainer, arguments
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModelForImageClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)
from transformers_trainers import (
    RESNET,
    VIT,
    Anything,
    Sample,
    Samples,
    build,
    make_trainer,
    plain_losses,
    samples,
)

import batchmix as bm
from batchmix.adapters.transformers import mixup
from batchmix.core.draws import as_rank


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


def test_a_trainer_that_scales_its_inputs_does_so_once(tmp_path: Path) -> None:
    class Scaling(RecordingTrainer):
        def _prepare_inputs(self, inputs: Any) -> Any:
            inputs = super()._prepare_inputs(inputs)
            return {**inputs, "pixel_values": inputs["pixel_values"] / 2}

    data = samples()
    scaled = Samples(**{**data.columns, "pixel_values": data.columns["pixel_values"] / 2})
    wanted = plain_losses(build(VIT), scaled, bm.Mixup(0.4, seed=5))
    trainer = make_trainer(build(VIT), tmp_path, kind=Scaling, data=data)
    mixup(trainer, bm.Mixup(0.4, seed=5)).train()
    assert trainer.losses.train == pytest.approx(wanted, rel=1e-5)
    assert "_prepare_inputs" not in vars(trainer)


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


@pytest.mark.parametrize(("own", "place"), [(None, 1), (3, 3)], ids=["by their number", "the mixer's own"])
def test_processes_that_share_a_batch_draw_alike(
    own: int | None, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here is the third of four, which are context parallel in pairs."""
    trainer = make_trainer(build(RESNET), tmp_path, arguments={"eval_strategy": "no"})
    mixup(trainer, bm.Mixup(0.4, seed=5, rank=own))
    monkeypatch.setattr(trainer, "get_cp_size", lambda: 2, raising=False)  # recent ones have it
    with monkeypatch.context() as told:
        told.setenv("RANK", "2")
        trainer.train()
    with as_rank(place):
        wanted = plain_losses(build(RESNET), samples(), bm.Mixup(0.4, seed=5))
    assert trainer.losses.train == pytest.approx(wanted, rel=1e-6)


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
    advice = message[message.index("lambda") : message.index(", got ")]
    wrapped = eval(advice, {"bm": bm, "loss_fn": hinge})  # what it says is what is taken
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
