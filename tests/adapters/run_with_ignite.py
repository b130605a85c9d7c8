"""plain_loop's training by Ignite: a supervised trainer and a supervised evaluator."""

from __future__ import annotations

import warnings

import torch
from plain_loop import EPOCHS, LR, Run, eval_batches, make_model, train_batches
from torch.nn import functional as F

import batchmix as bm

with warnings.catch_warnings():
    # torch's own distributed.optim, which Ignite imports, uses what torch itself calls deprecated.
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer

    from batchmix.adapters.ignite import mixup_batch


def run(mixer: bm.Mixer | None, *, lr: float = LR) -> Run:
    model, losses = make_model(), Run()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    options = {} if mixer is None else {"prepare_batch": mixup_batch(mixer)}
    trainer = create_supervised_trainer(model, optimizer, F.cross_entropy, **options)
    evaluator = create_supervised_evaluator(
        model, output_transform=lambda x, y, y_pred: F.cross_entropy(y_pred, y).item()
    )
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.train.append(engine.state.output)
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(eval_batches()))
    evaluator.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.evaluation.append(engine.state.output)
    )
    trainer.run(train_batches(), max_epochs=EPOCHS)
    losses.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return losses
