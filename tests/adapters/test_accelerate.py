"""Accelerate needs no adapter: a mixer is called in the loop or in the collate function, and checkpointed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import send_to_device
from plain_loop import LR, eval_batches, make_model, train_batches
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, default_collate

import batchmix as bm


@pytest.fixture(autouse=True)
def nothing_shared() -> Iterator[None]:
    """Accelerate keeps its state in singletons, which would outlive a test."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def samples(batches: list[Any]) -> TensorDataset:
    return TensorDataset(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


class Training:
    """A loop as in Accelerate's own guide, with the mixer registered for its checkpoints."""

    def __init__(self, mixer: bm.Mixer, accumulate: int = 1) -> None:
        self.mixer = mixer
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
        model = make_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
        loader = DataLoader(samples(train_batches()), batch_size=8)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        self.accelerator.register_for_checkpointing(mixer)

    def epoch(self) -> list[float]:
        losses = []
        for x, y in self.loader:
            with self.accelerator.accumulate(self.model):
                x, y = self.mixer(x, y)
                loss = F.cross_entropy(self.model(x), y)
                self.accelerator.backward(loss)
                self.optimizer.step()
                self.optimizer.zero_grad()
                losses.append(loss.item())
        return losses


def test_a_restored_state_goes_on_with_the_same_draws(tmp_path: Path) -> None:
    whole = Training(bm.Mixup(0.4, seed=5))
    whole.epoch()
    whole.accelerator.save_state(str(tmp_path))
    wanted = whole.epoch() + whole.epoch()

    resumed = Training(bm.Mixup(0.4, seed=77))
    resumed.epoch()
    resumed.accelerator.load_state(str(tmp_path))
    assert resumed.mixer.state_dict() == {"seed": 5, "step": 3}
    assert resumed.epoch() + resumed.epoch() == pytest.approx(wanted, rel=1e-6)


def test_accumulated_micro_batches_are_mixed_one_by_one_and_add_up() -> None:
    """Three micro-batches: two of them make the first gradient, the last one the second."""
    training = Training(bm.Mixup(0.4, seed=5), accumulate=2)
    losses = training.epoch()

    model, mixer, wanted = make_model(), bm.Mixup(0.4, seed=5), []
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    for group in (train_batches()[:2], train_batches()[2:]):
        for x, y in group:
            x, y = mixer(x, y)
            loss = F.cross_entropy(model(x), y)
            (loss / 2).backward()
            wanted.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    assert losses == pytest.approx(wanted, rel=1e-6)
    unwrapped = training.accelerator.unwrap_model(training.model)
    for got, value in zip(unwrapped.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(got, value, rtol=1e-5, atol=1e-6)


def test_what_is_gathered_for_metrics_is_the_plain_evaluation() -> None:
    training = Training(bm.Mixup(0.4, seed=5))
    training.epoch()
    accelerator = training.accelerator
    loader = accelerator.prepare(DataLoader(samples(eval_batches()), batch_size=8))
    logits, labels = [], []
    training.model.eval()
    with torch.no_grad():
        for x, y in loader:
            gathered = accelerator.gather_for_metrics((training.model(x), y))
            logits.append(gathered[0])
            labels.append(gathered[1])
        wanted = [training.model(x) for x, _ in eval_batches()]
    torch.testing.assert_close(torch.cat(logits), torch.cat(wanted))
    assert torch.equal(torch.cat(labels), torch.cat([y for _, y in eval_batches()]))


def test_a_mixed_target_is_sent_to_a_device_like_a_tensor() -> None:
    target = bm.MixedTarget(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0.75, 1.0]))
    batch = {"image": torch.zeros(2, 3), "label": (target, [target])}
    sent = send_to_device(batch, torch.device("meta"), non_blocking=True)  # a device that every machine has
    for part in (sent["label"][0], sent["label"][1][0]):
        assert isinstance(part, bm.MixedTarget)
        assert {tensor.device.type for tensor in part} == {"meta"}
    assert target.device.type == "cpu"


def test_a_loader_that_mixes_as_it_collates_can_be_prepared() -> None:
    mixer = bm.Mixup(0.4, seed=5)

    def collate(rows: list[tuple[Tensor, Tensor]]) -> Any:
        return mixer(*default_collate(rows))

    loader = Accelerator(cpu=True).prepare(
        DataLoader(samples(train_batches()), batch_size=8, collate_fn=collate)
    )
    again = bm.Mixup(0.4, seed=5)
    for (x, y), (plain_x, plain_y) in zip(loader, train_batches(), strict=True):
        wanted_x, wanted_y = again(plain_x, plain_y)
        assert torch.equal(x, wanted_x)
        assert all(torch.equal(got, wanted) for got, wanted in zip(y, wanted_y, strict=True))
