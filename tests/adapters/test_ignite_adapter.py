"""The Ignite adapter in real engines: any loss, evaluators left alone, checkpoints that keep the draws."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_loop import eval_batches, make_model, make_samples, train_batches
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import batchmix as bm

with warnings.catch_warnings():
    # torch's own distributed.optim, which Ignite imports, uses what torch itself calls deprecated.
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    from ignite.engine import (
        DeterministicEngine,
        Events,
        create_supervised_evaluator,
        create_supervised_trainer,
        supervised_training_step,
    )
    from ignite.handlers import Checkpoint, DiskSaver, FastaiLRFinder
    from ignite.metrics import Accuracy, Loss, RunningAverage

    from batchmix.adapters.ignite import mixup_batch

Trainer = tuple[Any, nn.Module, torch.optim.Optimizer]


def make_trainer(mixer: bm.Mixer | None, *, loss_fn: Any = F.cross_entropy, **options: Any) -> Trainer:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = create_supervised_trainer(
        model, optimizer, loss_fn, prepare_batch=mixup_batch(mixer), **options
    )
    return trainer, model, optimizer


def losses_of(trainer: Any) -> list[float]:
    losses: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output))
    return losses


def test_without_a_mixer_named_it_is_mixup() -> None:
    torch.manual_seed(3)
    [(x, y)] = train_batches()[:1]
    mixed, target = mixup_batch()((x, y))
    wanted, _ = bm.Mixup(0.4)(x, y)
    assert torch.equal(mixed, wanted)
    assert isinstance(target, bm.MixedTarget)


def test_a_loss_of_your_own_is_wrapped_once() -> None:
    def hinge(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (1 - output.gather(1, y[:, None]).squeeze(1)).clamp(min=0)

    loss_fn = bm.MixUpLoss(hinge)
    trainer, _, _ = make_trainer(
        bm.Mixup(0.4, seed=1),
        loss_fn=lambda output, y: loss_fn(output, y).mean(),
    )
    losses = losses_of(trainer)
    trainer.run(train_batches()[:1])
    (x, y), model = train_batches()[0], make_model()
    x, y = bm.Mixup(0.4, seed=1)(x, y)
    by_hand = y.lam * hinge(model(x), y.a) + (1 - y.lam) * hinge(model(x), y.b)
    assert losses == pytest.approx([by_hand.mean().item()], rel=1e-6)


def test_a_batch_of_another_form_goes_through_your_own_preparation() -> None:
    def prepare(batch: Any, device: Any, non_blocking: bool) -> Any:
        return batch["image"].float() / 255, batch["label"]

    x, y = make_samples(8, seed=1)
    batch = {"image": (x * 255).byte(), "label": y}
    mixed, target = mixup_batch(bm.Mixup(0.4, seed=1), prepare_batch=prepare)(batch, "cpu", False)
    wanted, _ = bm.Mixup(0.4, seed=1)((x * 255).byte().float() / 255, y)
    assert torch.equal(mixed, wanted)
    assert torch.equal(target.a, y)


def test_what_is_in_doubt_is_told_by_kinds() -> None:
    x = torch.rand(4, 3, 6, 6)
    mask = torch.randint(5, (4, 3, 3))  # of half the size
    prepare = mixup_batch(bm.Mixup(0.4, seed=5), kinds={"y": "segmentation"})
    assert torch.equal(prepare((x, mask))[1].b, mask[bm.Mixup(0.4, seed=5).plan(x).partner])


def test_arguments_that_an_engine_hands_on_reach_the_preparation() -> None:
    """MONAI's engines call ``prepare_batch(batch, device, non_blocking, **to_kwargs)``, for ``Tensor.to``."""
    seen: list[dict[str, Any]] = []

    def prepare(batch: Any, device: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return batch["image"].to(device=device, non_blocking=non_blocking, **kwargs), batch["label"]

    x, y = train_batches()[0]
    mixed, _ = mixup_batch(bm.Mixup(0.4, seed=1), prepare_batch=prepare)(
        {"image": x, "label": y}, torch.device("cpu"), False, dtype=torch.float64
    )
    assert seen == [{"dtype": torch.float64}]
    assert torch.equal(mixed, bm.Mixup(0.4, seed=1)(x.double(), y)[0])
    pair = mixup_batch(bm.Mixup(0.4, seed=1))((x, y), torch.device("cpu"), True, copy=True)
    assert torch.equal(pair[0], bm.Mixup(0.4, seed=1)(x, y)[0])
    with torch.no_grad():
        plain, _ = mixup_batch()((x, y), "cpu", True, dtype=torch.float64)
    assert torch.equal(plain, x.double())


def test_a_preparation_that_returns_more_than_a_pair_is_named() -> None:
    """As MONAI's ``PrepareBatchExtraInput`` does: what is beside the pair would stay unmixed."""
    prepare = mixup_batch(prepare_batch=lambda batch, device, non_blocking: (*batch, (), {}))
    message = r"^prepare_batch takes a callable that returns \(x, y\), got 4 parts$"
    with pytest.raises(bm.MixError, match=message):
        prepare(train_batches()[0])
    with torch.no_grad():
        assert len(prepare(train_batches()[0])) == 4


def test_the_batch_goes_to_the_device_before_it_is_mixed() -> None:
    x, y = mixup_batch(bm.Mixup(0.4, seed=1))(train_batches()[0], device="cpu", non_blocking=True)
    assert x.device == y.device == torch.device("cpu")
    prepare = mixup_batch(prepare_batch=lambda batch, device, non_blocking: batch)
    assert len(prepare(train_batches()[0], device="meta")) == 2


def test_the_training_accuracy_counts_both_labels() -> None:
    def output(x: Any, y: Any, y_pred: Any, loss: Any) -> dict[str, float]:
        return {"loss": loss.item(), "accuracy": y.expected_accuracy(y_pred).item()}

    trainer, _, _ = make_trainer(bm.Mixup(0.4, seed=1), output_transform=output)
    seen: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output["accuracy"]))
    RunningAverage(output_transform=lambda out: out["accuracy"], alpha=0.5).attach(trainer, "accuracy")
    trainer.run(train_batches())
    assert trainer.state.metrics["accuracy"] == pytest.approx(((seen[0] + seen[1]) / 2 + seen[2]) / 2)
    assert all(isinstance(part, torch.Tensor) for part in trainer.state.batch)


def test_gradients_accumulate_over_mixed_batches() -> None:
    trainer, model, _ = make_trainer(bm.Mixup(0.4, seed=1), gradient_accumulation_steps=3)
    before = [value.clone() for value in model.parameters()]
    moved = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda: moved.append(
            any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        ),
    )
    trainer.run(train_batches())
    assert moved == [False, False, True]


@pytest.mark.parametrize("shared", [False, True], ids=["own preparation", "shared preparation"])
def test_an_evaluator_sees_plain_batches(shared: bool) -> None:
    model, mixer = make_model(), bm.Mixup(0.4, seed=1)
    options = {"prepare_batch": mixup_batch(mixer)} if shared else {}
    metrics = {"accuracy": Accuracy(), "loss": Loss(F.cross_entropy)}
    evaluator = create_supervised_evaluator(model, metrics=metrics, **options)
    found = evaluator.run(eval_batches()).metrics
    x, y = (torch.cat(parts) for parts in zip(*eval_batches(), strict=True))
    with torch.no_grad():
        assert found["loss"] == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-6)
    assert found["accuracy"] == pytest.approx((model(x).argmax(1) == y).float().mean().item())
    assert mixer.step == 0


def train_and_keep(folder: Path, engine: str, epochs: int, resume: Path | None = None) -> dict[str, Any]:
    """Train with a checkpoint after epoch 2; the losses and weights at the end."""
    torch.manual_seed(0)  # the order of the loader
    mixer = bm.Mixup(0.4, seed=1 if resume is None else 99)
    trainer, model, optimizer = make_trainer(mixer)
    if engine == "deterministic":
        step = supervised_training_step(model, optimizer, F.cross_entropy, prepare_batch=mixup_batch(mixer))
        trainer = DeterministicEngine(lambda engine, batch: step(engine, batch))
    losses = losses_of(trainer)
    kept = {"trainer": trainer, "model": model, "optimizer": optimizer, "mixer": mixer}
    if resume is None:
        saver = DiskSaver(str(folder), create_dir=True, require_empty=False)
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=2), Checkpoint(kept, saver))
    else:
        Checkpoint.load_objects(to_load=kept, checkpoint=torch.load(resume, weights_only=False))
    shuffled = engine == "deterministic"
    loader = DataLoader(TensorDataset(*make_samples(21, seed=1)), batch_size=8, shuffle=shuffled)
    trainer.run(loader, max_epochs=epochs)
    return {"losses": losses, "mixer": mixer.state_dict(), "model": model.state_dict()}


@pytest.mark.parametrize("engine", ["usual", "deterministic"])
def test_a_checkpoint_resumes_the_draws(engine: str, tmp_path: Path) -> None:
    unbroken = train_and_keep(tmp_path, engine, epochs=4)
    [file] = tmp_path.glob("*.pt")
    resumed = train_and_keep(tmp_path, engine, epochs=4, resume=file)
    assert resumed["losses"] == unbroken["losses"][6:]
    assert resumed["mixer"] == unbroken["mixer"] == {"seed": 1, "step": 12}
    for name, value in unbroken["model"].items():
        assert torch.equal(resumed["model"][name], value)


@pytest.mark.filterwarnings("ignore:Run completed without loss diverging")  # in three steps
def test_a_search_for_a_learning_rate_gives_the_draws_back() -> None:
    mixer = bm.Mixup(0.4, seed=1)
    trainer, model, optimizer = make_trainer(mixer)
    kept = {"model": model, "optimizer": optimizer, "mixer": mixer}
    with FastaiLRFinder().attach(trainer, kept, num_iter=3, diverge_th=math.inf) as searching:
        searching.run(train_batches())
        assert mixer.step == 3
    assert mixer.state_dict() == {"seed": 1, "step": 0}


def test_options_of_mixup_stand_in_for_a_mixer() -> None:
    x, y = torch.rand(8, 3), torch.arange(8) % 3
    wanted, _ = bm.Mixup(0.2, seed=1)(x, y)
    for prepare_batch in (mixup_batch(alpha=0.2, seed=1), mixup_batch(0.2, seed=1)):
        got, target = prepare_batch((x, y))
        assert torch.equal(got, wanted)
        assert isinstance(target, bm.MixedTarget)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixer": "0.4"}, r"mixer takes a method such as bm.Mixup\(0\.4\), got str '0\.4'"),
        ({"mixer": True}, r"mixer takes a method such as bm.Mixup\(0\.4\), got bool True"),
        ({"mixer": -1}, "alpha takes a finite number >= 0, got -1"),
        ({"mixer": 0.4, "alpha": 0.2}, r"alpha takes one number, got 0\.4 and alpha=0\.2"),
        ({"mixer": bm.CutMix(), "alpha": 1}, "mixer takes all options itself, or None where alpha is given"),
        ({"prepare_batch": 3}, "prepare_batch takes a callable of batch, device and non_blocking, got 3"),
    ],
)
def test_wrong_use_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(bm.MixError, match=message):
        mixup_batch(**arguments)


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        (tuple(torch.zeros(3, 2, 1)), "3 parts"),
        ({"image": torch.zeros(2, 1)}, "dict"),
        (torch.zeros(2, 1), "float32 tensor"),
    ],
)
def test_a_batch_that_is_not_a_pair_asks_for_your_own_preparation(batch: Any, got: str) -> None:
    with pytest.raises(bm.MixError, match=rf"^batch takes \(x, y\), .* your own prepare_batch, got {got}"):
        mixup_batch()(batch)
