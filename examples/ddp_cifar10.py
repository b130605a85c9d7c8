"""mixup in distributed data parallel training: airplanes and cars of CIFAR-10, by a small ResNet.

pip install -e '.[cli]'
python examples/ddp_cifar10.py    # reaches 91 % in half a minute on two cores
torchrun --nproc-per-node 2 examples/ddp_cifar10.py    # the same in two processes
"""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import batchmix as bm
from batchmix.data import load_cifar10


class Block(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, 1, 1), nn.BatchNorm2d(after)
        self.short = nn.Conv2d(before, after, 1, 2)

    def forward(self, x):
        return F.relu(self.short(x) + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


def make_data(images, labels):
    keep = labels < 2  # airplanes and cars
    x = torch.from_numpy(images[keep]).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return TensorDataset(x, torch.from_numpy(labels[keep]).long())


alone = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
dist.init_process_group("gloo", **alone)
torch.manual_seed(0)
data, blocks = load_cifar10(), [Block(3, 16), Block(16, 32), Block(32, 64)]
net = nn.Sequential(*blocks, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 2))
model, train = DistributedDataParallel(net), make_data(data.train_x, data.train_y)
sampler = DistributedSampler(train)
loader = DataLoader(train, batch_size=64 // dist.get_world_size(), sampler=sampler, drop_last=True)
optimizer, mixup = torch.optim.AdamW(model.parameters(), lr=3e-3), bm.Mixup(0.4)  # ranks draw apart

for epoch in range(3):
    sampler.set_epoch(epoch)
    for x, y in loader:
        x, y = mixup(x, y)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
if dist.get_rank() == 0:
    with torch.no_grad():
        x, y = make_data(data.test_x, data.test_y).tensors
        print(f"accuracy {100 * (net.eval()(x).argmax(1) == y).float().mean():.1f} %")
dist.destroy_process_group()
