"""mixup in a plain PyTorch loop: airplanes and cars of CIFAR-10, by a small ResNet.

pip install -e '.[cli]'
python examples/plain_pytorch.py    # reaches 93 % in half a minute on two cores
"""

import torch
from torch import nn
from torch.nn import functional as F

import batchmix as bm
from batchmix.data import load_cifar10

EPOCHS, BATCH = 3, 64


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x):
        return F.relu(self.first(x) + self.shortcut(x))


def images_and_labels(images, labels):
    keep = labels < 2  # airplanes and cars
    x = torch.from_numpy(images[keep]).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return x, torch.from_numpy(labels[keep]).long()


torch.manual_seed(0)
data = load_cifar10()
train_x, train_y = images_and_labels(data.train_x, data.train_y)
test_x, test_y = images_and_labels(data.test_x, data.test_y)
model = nn.Sequential(
    Block(3, 16), Block(16, 32), Block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2)
)
steps = EPOCHS * len(train_x) // BATCH
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps + EPOCHS)
mixup = bm.Mixup(alpha=0.4)

for epoch in range(EPOCHS):
    model.train()
    for batch in torch.randperm(len(train_x)).split(BATCH):
        x, y = mixup(train_x[batch], train_y[batch])  # the line to add
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(test_x).argmax(1) == test_y).float().mean().item()
    print(f"epoch {epoch + 1}: loss of a mixed batch {loss.item():.3f}, accuracy {100 * accuracy:.1f} %")
