"""mixup and CutMix in the place of timm's own: airplanes and cars of CIFAR-10, by a narrow ResNet-10-T.

pip install -e '.[cli,timm]'
python examples/timm_cifar10.py    # reaches 91 % in half a minute on two cores
"""

import timm
import torch
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch.utils.data import DataLoader, TensorDataset

from batchmix.adapters.timm import Mixup
from batchmix.data import load_cifar10

EPOCHS = 2


def make_loader(images, labels, **options):
    keep = labels < 2  # airplanes and cars
    x = torch.from_numpy(images[keep]).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return DataLoader(TensorDataset(x, torch.from_numpy(labels[keep]).long()), **options)


timm.utils.random_seed(0)
data = load_cifar10()
train_loader = make_loader(data.train_x, data.train_y, batch_size=64, shuffle=True)
test_loader = make_loader(data.test_x, data.test_y, batch_size=250)

model = timm.create_model("resnet10t", num_classes=2, stem_width=16, channels=(16, 32, 64, 128))
optimizer = create_optimizer_v2(model, opt="adamw", lr=3e-3, weight_decay=0.02)
scheduler = CosineLRScheduler(
    optimizer, t_initial=EPOCHS * len(train_loader), warmup_t=50, warmup_lr_init=1e-4, t_in_epochs=False
)
mixup_fn = Mixup(
    mixup_alpha=0.2,
    cutmix_alpha=1.0,
    prob=0.5,
    label_smoothing=0.1,
    num_classes=2,
    mixup_off_epoch=EPOCHS - 1,
)
train_loss_fn = SoftTargetCrossEntropy()

for epoch in range(EPOCHS):
    mixup_fn.set_epoch(epoch)  # none of it in the last one
    model.train()
    for update, (x, target) in enumerate(train_loader, epoch * len(train_loader) + 1):
        x, target = mixup_fn(x, target)
        loss = train_loss_fn(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step_update(update)
    model.eval()
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in test_loader)
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"accuracy {100 * right / len(test_loader.dataset):.1f} %")
