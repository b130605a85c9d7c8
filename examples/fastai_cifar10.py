"""mixup in fastai: airplanes and cars of CIFAR-10, by a small xresnet of fastai's own.

pip install -e '.[cli,fastai]'
python examples/fastai_cifar10.py    # reaches 90 % in half a minute on two cores
"""

import torch
from fastai.callback.schedule import Learner  # with fit_one_cycle
from fastai.data.all import DataLoader, DataLoaders
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastai.vision.models.xresnet import ResBlock, XResNet

import batchmix.adapters.fastai  # noqa: F401  (gives a Learner its mixup)
from batchmix.data import load_cifar10


def make_samples(images, labels):
    """Airplanes and cars, in [-1, 1]."""
    keep = labels < 2
    x = torch.from_numpy(images[keep]).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return list(zip(x, torch.from_numpy(labels[keep]).long(), strict=True))


set_seed(0)
data = load_cifar10()
dls = DataLoaders(
    DataLoader(make_samples(data.train_x, data.train_y), bs=64, shuffle=True, drop_last=True),
    DataLoader(make_samples(data.test_x, data.test_y), bs=256),
)
model = XResNet(ResBlock, 1, [1, 1, 1, 1], stem_szs=(16, 16, 64), widen=0.25, n_out=2)

learn = Learner(dls, model, loss_func=CrossEntropyLossFlat(), metrics=accuracy)
learn.mixup(0.4)  # the line to add; CutMix instead: learn.mixup(mixer=batchmix.CutMix(1.0))
with learn.no_bar():
    learn.fit_one_cycle(2, 6e-3)  # epoch, loss of mixed batches, loss and accuracy of the test images, time
    loss, right = learn.validate()
print(f"accuracy {100 * right:.1f} %")
