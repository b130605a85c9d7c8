"""mixup in torchvision's place for it: airplanes and cars of CIFAR-10, by torchvision's ResNet of ten layers.

pip install -e '.[cli,torchvision]'
python examples/torchvision_cifar10.py    # reaches 89 % in half a minute on two cores
"""

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.transforms import v2

from batchmix.adapters.torchvision import MixUp
from batchmix.data import load_cifar10

EPOCHS = 2


def make_set(images, labels):
    keep = labels < 2  # airplanes and cars
    to_float = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)])
    x = torch.from_numpy(images[keep]).permute(0, 3, 1, 2).contiguous()
    return TensorDataset(to_float(x), torch.from_numpy(labels[keep]).long())


torch.manual_seed(0)
data = load_cifar10()
train_set, test_set = make_set(data.train_x, data.train_y), make_set(data.test_x, data.test_y)
mixup = MixUp(alpha=0.4)  # with num_classes=2 labels would become (B, 2) probabilities
train_loader = DataLoader(
    train_set, batch_size=125, shuffle=True, collate_fn=lambda samples: mixup(*default_collate(samples))
)
test_loader = DataLoader(test_set, batch_size=250)

model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
scheduler = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, 0.1, epochs=EPOCHS, steps_per_epoch=len(train_loader)
)

for epoch in range(EPOCHS):
    model.train()
    for x, y in train_loader:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    model.eval()
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in test_loader)
    print(f"epoch {epoch + 1}: loss of a mixed batch {loss.item():.3f}")
    print(f"accuracy {100 * right / len(test_set):.1f} %")
