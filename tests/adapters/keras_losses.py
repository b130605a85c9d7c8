"""Trains a small Keras net with mixing on the backend that KERAS_BACKEND names; writes its losses as JSON.

A process of its own, since Keras has one backend a process.
"""

from __future__ import annotations

import json
import sys

import keras
import numpy as np

import batchmix as bm
from batchmix.adapters.keras import MixUpDataset


def losses() -> dict[str, list[float]]:
    """Two epochs of 3 batches, from weights that are the same on every backend."""
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=21)
    x = (rng.random((21, 8, 8, 3)) + y[:, None, None, None] / 4).astype("float32")
    model = keras.Sequential(
        [
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4),
        ]
    )
    model.build((None, 8, 8, 3))
    model.set_weights([rng.normal(size=value.shape) / 4 for value in model.get_weights()])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    data = MixUpDataset(x, y, mixer=bm.Mixup(0.4, seed=5), num_classes=4, batch_size=8)
    plain = (x, keras.utils.to_categorical(y, 4))
    history = model.fit(data, epochs=2, validation_data=plain, shuffle=False, verbose=0).history
    numbers = {name: [float(value) for value in values] for name, values in history.items()}
    return {**numbers, "steps": [data.mixer.step]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(losses()))
