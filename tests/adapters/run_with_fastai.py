"""plain_loop's training by fastai: a Learner, its DataLoaders and its SGD."""

from __future__ import annotations

import warnings

from plain_loop import EPOCHS, LR, Batch, Run, eval_batches, make_model, train_batches

import batchmix as bm

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    warnings.filterwarnings("ignore", "The 'mode.chained_assignment' option")
    import fastai.callback.progress  # noqa: F401  (no_bar)
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    from fastai.optimizer import SGD

    import batchmix.adapters.fastai


class Keeper(Callback):
    """Keeps the loss of every batch as the learner has it in the end."""

    order = 60

    def __init__(self) -> None:
        self.run_losses = Run()

    def after_batch(self) -> None:
        kept = self.run_losses.train if self.training else self.run_losses.evaluation
        kept.append(self.learn.loss.item())


def samples(batches: list[Batch]) -> DataLoader:
    """The samples of all batches; fastai makes batches of 8 of them again."""
    return DataLoader([sample for batch in batches for sample in zip(*batch, strict=True)], bs=8)


def run(mixer: bm.Mixer | None, *, lr: float = LR) -> Run:
    dls = DataLoaders(samples(train_batches()), samples(eval_batches()))
    kept = Keeper()
    learn = Learner(
        dls, make_model(), loss_func=CrossEntropyLossFlat(), opt_func=SGD, wd=0.0, cbs=kept, path="."
    )
    if mixer is not None:
        learn.mixup(mixer=mixer)
    with learn.no_bar(), learn.no_logging():
        learn.fit(EPOCHS, lr)
    losses = kept.run_losses
    losses.weights = {name: value.detach().clone() for name, value in learn.model.state_dict().items()}
    return losses
