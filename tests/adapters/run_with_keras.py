"""plain_loop's training by Keras on its torch backend: the net as a layer, Keras' loss and its SGD."""

from __future__ import annotations

from typing import Any

import keras
from plain_loop import CLASSES, EPOCHS, LR, Run, eval_batches, make_model, make_samples, train_batches
from torch.utils.data import DataLoader, TensorDataset

import batchmix as bm
from batchmix.adapters.keras import MixUpDataset


class OneHotBatches(keras.utils.PyDataset):
    """Batches with probabilities as labels, which the loss wants."""

    def __init__(self, batches: list[tuple[Any, Any]]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        x, y = self.batches[index]
        return x.numpy(), keras.utils.to_categorical(y, CLASSES)


class BatchLosses(keras.callbacks.Callback):
    """Keeps the loss of every batch; Keras shows means since the last reset."""

    def __init__(self, losses: Run) -> None:
        super().__init__()
        self.losses = losses

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.losses.train.append(float(logs["loss"]))
        self.model.reset_metrics()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.losses.evaluation.append(float(logs["loss"]))
        self.model.reset_metrics()


def run(mixer: bm.Mixer | None, *, lr: float = LR) -> Run:
    module, losses = make_model(), Run()
    model = keras.Sequential([keras.layers.TorchModuleWrapper(module, output_shape=(None, CLASSES))])
    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate=lr),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    data = OneHotBatches(train_batches())
    if mixer is not None:
        loader = DataLoader(TensorDataset(*make_samples(21, seed=1)), batch_size=8)
        data = MixUpDataset(loader, mixer=mixer, num_classes=CLASSES, data_format="channels_first")
    model.fit(
        data,
        validation_data=OneHotBatches(eval_batches()),
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[BatchLosses(losses)],
    )
    losses.weights = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
    return losses
