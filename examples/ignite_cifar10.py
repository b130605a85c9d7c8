"""mixup in Ignite's supervised trainer: airplanes and cars of CIFAR-10, by a small ResNet.

pip install -e '.[cli,ignite]'
python examples/ignite_cifar10.py    # reaches 91 % in half a minute on two cores
"""

import torch
from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import LRScheduler
from ignite.metrics import Accuracy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from batchmix.adapters.ignite import mixup_batch
from batchmix.data import load_cifar10

EPOCHS = 2


class Residual(nn.Sequential):
    """Layers, with their input added to what they make of it."""

    def forward(self, x):
        """Same shape as ``x``."""
        return torch.relu(x + super().forward(x))


def conv(before, width, stride=1):
    """A convolution of 3 x 3, and what follows it."""
    return nn.Sequential(nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def make_loader(images, labels, **options):
    """Batches of airplanes and cars."""
    keep = labels < 2
    x = torch.from_numpy(images[keep]).permute(0, 3, 1, 2).float().div(64).sub(2).contiguous()
    return DataLoader(TensorDataset(x, torch.from_numpy(labels[keep]).long()), **options)


torch.manual_seed(0)
data = load_cifar10()
train_loader = make_loader(data.train_x, data.train_y, batch_size=100, shuffle=True)
test_loader = make_loader(data.test_x, data.test_y, batch_size=500)
stages = [(conv(a, b, 2), Residual(conv(b, b), conv(b, b)[:2])) for a, b in ((3, 16), (16, 32), (32, 64))]
model = nn.Sequential(*sum(stages, ()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))
optimizer = torch.optim.AdamW(model.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=EPOCHS * len(train_loader) + 1)
trainer = create_supervised_trainer(model, optimizer, nn.CrossEntropyLoss(), prepare_batch=mixup_batch())
trainer.add_event_handler(Events.ITERATION_COMPLETED, LRScheduler(schedule))
evaluator = create_supervised_evaluator(model, metrics={"accuracy": Accuracy()})


@trainer.on(Events.EPOCH_COMPLETED)
def evaluate():
    """On the test images."""
    state = evaluator.run(test_loader)
    print(f"epoch {trainer.state.epoch}: accuracy {100 * state.metrics['accuracy']:.1f} %")


trainer.run(train_loader, max_epochs=EPOCHS)
