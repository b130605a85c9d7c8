"""Learners for the tests of the fastai adapter, and what their training gives without fastai."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.all import CategoryBlock, DataBlock, DataLoader, DataLoaders, IndexSplitter, Normalize
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import SGD
from fastai.vision.all import ImageBlock, PILImage, imagenet_stats
from plain_loop import make_model, make_samples
from torch import Tensor, nn
from torch.nn import functional as F

import batchmix as bm
import batchmix.adapters.fastai

X, Y = make_samples(24, seed=3)
Batches = list[tuple[Any, ...]]


class Seen(Callback):
    """Keeps what the learner holds where everything has been done to the batch."""

    order = 60

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.valid_losses: list[float] = []
        self.seen_x: list[Any] = []
        self.loss_objects: list[Any] = []

    def after_pred(self) -> None:
        if self.training:
            self.seen_x.append(self.learn.xb)

    def after_loss(self) -> None:
        (self.losses if self.training else self.valid_losses).append(self.learn.loss.mean().item())

    def __call__(self, event_name: str) -> Any:
        self.loss_objects.append(self.learn.loss_func)
        return super().__call__(event_name)


def batches(*parts: Tensor, size: int = 8) -> Batches:
    """Batches of ``size`` samples of every part."""
    return list(zip(*(part.split(size) for part in parts), strict=True))


def loaders(data: Batches, n_inp: int = 1) -> DataLoaders:
    samples = [sample for batch in data for sample in zip(*batch, strict=True)]
    dls = DataLoaders(*(DataLoader(samples, bs=len(data[0][0])) for _ in range(2)))
    dls.n_inp = n_inp
    return dls


def learner(
    data: Batches | None = None,
    model: nn.Module | None = None,
    loss_func: Any = None,
    n_inp: int = 1,
    path: Path | str = ".",
    **options: Any,
) -> Learner:
    """A Learner without bars and logs, on plain_loop's model and samples."""
    learn = Learner(
        loaders(batches(X, Y) if data is None else data, n_inp),
        make_model() if model is None else model,
        loss_func=CrossEntropyLossFlat() if loss_func is None else loss_func,
        opt_func=SGD,
        lr=0.1,
        wd=0.0,
        path=path,
        **options,
    )
    learn.add_cb(Seen())
    learn.logger = lambda *_: None
    return _barless(learn)


def _barless(learn: Learner) -> Learner:
    return learn.remove_cb(learn.progress) if hasattr(learn, "progress") else learn


def plain_losses(
    mixer: bm.Mixer, loss_fn: Callable[..., Tensor] = F.cross_entropy, epochs: int = 1, every: int = 1
) -> list[float]:
    """The losses of the same training, written out in torch."""
    model, losses = make_model(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        for i, (x, y) in enumerate(batches(X, Y), 1):
            x, target = mixer(x, y)
            loss = loss_fn(model(x), target)
            (loss / every).backward()
            losses.append(loss.item())
            if i % every == 0:
                optimizer.step()
                optimizer.zero_grad()
    return losses


def weights(learn: Learner) -> Tensor:
    return nn.utils.parameters_to_vector(learn.model.parameters()).detach().clone()


def one_line(raised: pytest.ExceptionInfo[bm.MixError]) -> str:
    """Our line; fastai puts one of its own before those of callbacks."""
    message = str(raised.value)
    if message.startswith("Exception occured in"):
        message = message.partition("\n\t")[2]
    assert "\n" not in message
    return message


def image_learner(tmp_path: Path, **options: Any) -> Learner:
    """A learner with fastai's own data block: images of two categories, normalised."""
    images = (X * 255).byte().permute(0, 2, 3, 1).numpy()
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_x=lambda i: PILImage.create(images[i]),
        get_y=lambda i: "cat" if i % 2 else "dog",
        splitter=IndexSplitter(list(range(16, 24))),
        batch_tfms=Normalize.from_stats(*imagenet_stats, cuda=False),
    )
    dls = block.dataloaders(list(range(24)), bs=8, num_workers=0, device="cpu")
    net = make_model()
    last = net[-1]
    net[-1] = nn.Linear(last.in_features, 2)  # of any more, a class without a name could win
    net[-1].load_state_dict({name: part[:2] for name, part in last.state_dict().items()})
    learn = Learner(dls, net, opt_func=SGD, lr=0.1, path=tmp_path, **options)
    learn.logger = lambda *_: None
    return _barless(learn)


class Interrupt(Callback):
    """Ctrl-C, or an error, at an event of the second batch."""

    def __init__(self, event: str, error: BaseException) -> None:
        setattr(self, event, self.interrupt)
        self.error = error

    def interrupt(self) -> None:
        if self.iter == 1 and self.training:
            raise self.error


class MixesInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = make_model()

    def forward(self, x: Tensor, other: Tensor | None = None, lam: Tensor | None = None) -> Tensor:
        return self.net(x if other is None else torch.lerp(other, x, lam.view(-1, 1, 1, 1)))
