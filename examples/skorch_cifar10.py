"""mixup in skorch, fitted and scored as in scikit-learn: airplanes and cars of CIFAR-10, by a small ResNet.

pip install -e '.[cli,skorch]'
python examples/skorch_cifar10.py    # reaches 91 % in half a minute on two cores
"""

import numpy as np
import torch
from skorch.callbacks import LRScheduler
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from batchmix.adapters.skorch import MixUpClassifier
from batchmix.data import load_cifar10

EPOCHS, BATCH = 2, 100


class Residual(nn.Sequential):
    """Layers, with their input added to what they make of it."""

    def forward(self, x):
        """Same shape as ``x``."""
        return torch.relu(x + super().forward(x))


def conv(before, width, stride=1):
    """A convolution of 3 x 3, and what follows it."""
    return nn.Sequential(nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def make_resnet():
    """Three stages of growing width, on images of half the size each."""
    widths = ((3, 16), (16, 32), (32, 64))
    stages = [(conv(a, b, stride=2), Residual(conv(b, b), conv(b, b)[:2])) for a, b in widths]
    return nn.Sequential(*sum(stages, ()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))


def airplanes_and_cars(x, y):
    """Images (N, 3, 32, 32) around zero, and their classes."""
    keep = y < 2
    return np.moveaxis(x[keep], 3, 1).astype(np.float32) / 64 - 2, y[keep].astype(np.int64)


data = load_cifar10()
torch.manual_seed(0)
steps = EPOCHS * 10_000 // BATCH
net = MixUpClassifier(  # for NeuralNetClassifier
    make_resnet,
    mixer__alpha=0.4,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.AdamW,
    max_epochs=EPOCHS,
    batch_size=BATCH,
    train_split=None,
    iterator_train__shuffle=True,
    callbacks=[LRScheduler(OneCycleLR, max_lr=0.01, total_steps=steps, step_every="batch")],
)
net.fit(*airplanes_and_cars(data.train_x, data.train_y))
print(f"accuracy {100 * net.score(*airplanes_and_cars(data.test_x, data.test_y)):.1f} %")
