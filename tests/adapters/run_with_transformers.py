"""``plain_loop`` by Hugging Face's Trainer; the collator is shared between training and evaluation."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from plain_loop import EPOCHS, LR, Batch, Run, eval_batches, make_model, train_batches
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

import batchmix as bm
from batchmix.adapters.transformers import mixup


class Samples(Dataset):
    """The samples of some batches, one by one."""

    def __init__(self, batches: list[Batch]) -> None:
        self.x, self.y = (torch.cat(parts) for parts in zip(*batches, strict=True))

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.x[index], "labels": self.y[index]}


class ModelWithLoss(nn.Module):
    """A model that computes its own loss from ``labels``, as those of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_model()

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(pixel_values)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class RecordingTrainer(Trainer):
    """Keeps the loss of every step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses = Run()

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self.losses.train.append(loss.item())
        return loss

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        loss, logits, labels = super().prediction_step(*args, **kwargs)
        self.losses.evaluation.append(loss.item())
        return loss, logits, labels


def arguments(folder: str, **options: Any) -> TrainingArguments:
    """Eight samples a batch in their order, on the CPU; nothing is written and nothing printed."""
    usual = {
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "num_train_epochs": EPOCHS,
        "train_sampling_strategy": "sequential",
        "max_grad_norm": 0.0,
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(output_dir=folder, **(usual | options))


def run(mixer: bm.Mixer | None, *, lr: float = LR) -> Run:
    """Two epochs of SGD on cross entropy, each followed by an evaluation."""
    model = ModelWithLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = RecordingTrainer(
            model=model,
            args=arguments(folder),
            train_dataset=Samples(train_batches()),
            eval_dataset=Samples(eval_batches()),
            optimizers=(optimizer, constant),
        )
        if mixer is not None:
            mixup(trainer, mixer)
        trainer.train()
    trainer.losses.weights = {name: value.detach().clone() for name, value in model.net.state_dict().items()}
    return trainer.losses
