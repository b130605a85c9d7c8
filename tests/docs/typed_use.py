"""What users write, with annotations: ``make check`` has mypy read it, and nothing runs it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import Unpack, assert_type

import batchmix as bm
from batchmix.study import Task
from batchmix.typing import Cam, Kernel, Kinds, Layer, MixerOptions, Per, Policy, Schedule


def plain_loop(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> None:
    mixup = bm.Mixup(alpha=0.4)
    for x, y in loader:
        mixed, target = mixup(x, y)
        assert_type(mixed, Tensor)
        assert_type(target, bm.MixedTarget | Any)
        assert_type(bm.mixed_loss(F.cross_entropy, model(mixed), target), Tensor)
        nn.CrossEntropyLoss()(model(mixed), target).backward()


def mix_plainly(mixer: bm.Mixer, x: Tensor, y: Tensor) -> tuple[Tensor, bm.MixedTarget]:
    return mixer(x, y)


def pasted_masks(images: Tensor, masks: Tensor) -> Tensor:
    _, ids = bm.CutMix(1.0)(images, masks)
    assert isinstance(ids, Tensor)
    return assert_type(ids, Tensor)


def training_step(model: nn.Module, x: Tensor, y: Tensor | bm.MixedTarget) -> Tensor:
    return bm.mixed_loss(F.cross_entropy, model(x), y)


def scheduled() -> bm.Mixer:
    schedule = {"p": bm.off_after(10), "alpha": bm.ramp(0, 1, steps=3)}
    return bm.Mixup(schedule=schedule)


def look_at(target: bm.MixedTarget) -> None:
    a, _, lam = target
    assert_type((a, lam), tuple[Tensor, Tensor])
    assert_type(target.dominant, Tensor)
    assert_type(target.size(), torch.Size)
    assert_type(target.size(0), int)
    assert_type(target[2:5].to("cpu").view(-1), bm.MixedTarget)


def partners_of_the_next_rank(mixer: bm.Mixer, x: Tensor, y: Tensor) -> tuple[Tensor, bm.MixedTarget]:
    assert_type(bm.from_next_rank(x, y, x), tuple[Tensor, ...])
    return mixer.between((x, y), bm.from_next_rank(x, y))


class Half(bm.Mixer):
    hyperparameters = ("weight",)

    def __init__(self, weight: float = 0.5, **options: Unpack[MixerOptions]) -> None:
        self.weight = weight
        super().__init__(**options)

    def sample(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        between: bool = False,
        generator: torch.Generator,
        **settings: float,
    ) -> bm.MixPlan:
        partner = torch.randperm(len(x), generator=generator, device=generator.device)
        return bm.MixPlan(partner, torch.full((len(x),), settings["weight"], device=generator.device))


def falling(step: int) -> float:
    return 1 / (1 + step)


def make_mixer(per: Per, partner: Policy, schedule: Schedule = falling) -> bm.Mixer:
    bm.Choice({Half(0.3, schedule=schedule, p=0.5): 0.5, bm.CutMix(1.0): 0.3})
    methods = {bm.Mixup(0.4, per=per, partner=partner, schedule={"alpha": bm.ramp(0, 1, steps=500)}): 0.5}
    return bm.Choice(methods)


def grey(images: Tensor, labels: Tensor) -> Tensor:
    return images.mean(1)


def named_kernel(name: Kernel, cam: Cam = grey, layer: Layer = nn.Linear) -> bm.SnapMix:
    bm.ManifoldMixup(nn.Linear(3, 3), layer, mixer=bm.Mixup(2.0))
    with bm.kernel(name):
        return bm.SnapMix(cam)


def any_batch(mixer: bm.Mixer, batch: dict[str, Tensor]) -> object:
    kinds: Kinds = {"mask": "segmentation"}
    return mixer.mix(batch, kinds=kinds)


def hinge(output: Tensor, y: Tensor) -> Tensor:
    return (1 - output.gather(1, y[:, None]).squeeze(1)).clamp(min=0)


def make_task(seed: int) -> Task:
    model, data = nn.Linear(3, 10), TensorDataset(torch.rand(16, 3), torch.randint(10, (16,)))
    return Task(
        model=model,
        train_loader=DataLoader(data, batch_size=8, shuffle=True),
        test_loader=DataLoader(data, batch_size=8),
        loss=bm.MixUpLoss(hinge),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        schedule=lambda done: 1 - done,
    )
